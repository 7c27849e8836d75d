"""What every part is built on: the servers, the clock, the policy in force."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.bootstrap.settings import Settings
from app.decide.ledger import Ledger
from app.deliver.airflows import AirflowClients
from app.intake.memory import Memory
from app.kit.clock import Clock
from app.kit.errors import Problem
from app.kit.http import Http
from app.kit.loop import Loop
from app.kit.metrics import Metrics
from app.kit.mlflow.client import Mlflow
from app.kit.redis.client import Redis
from app.kit.replica import Reader
from app.notices.telling import Notices
from app.policy.holder import Holder
from app.policy.schema import Policy
from app.web.ratelimit import RateLimit
from app.web.tokens import Caller, Tokens


@dataclass(frozen=True, slots=True)
class Base:
    """What every part is built on."""

    settings: Settings
    policies: Holder
    clock: Clock
    engine: AsyncEngine
    intake_engine: AsyncEngine
    reader: Reader
    redis: Redis
    memory: Memory
    tokens: Tokens
    metrics: Metrics
    limiter: RateLimit
    http: Http
    notices: Notices
    airflows: AirflowClients
    mlflow: Callable[[], Mlflow | None]
    bells: dict[str, Loop]  # filled when the loops are built: they and what wakes them need each other

    def ledger(self, policy: Policy, now: datetime) -> Ledger:
        """Empty books for one pass over the groups."""
        return Ledger(policy, now, timedelta(seconds=self.settings.reorder_window), uuid7)

    @property
    def repeat(self) -> timedelta | None:
        """How often an open incident is told again, where the policy says nothing else. None: once."""
        seconds = self.settings.notice_repeat
        return timedelta(seconds=seconds) if seconds else None

    @property
    def current(self) -> Callable[[], Policy]:
        return self.policies.current

    async def limit(self, caller: Caller) -> None:
        """Raises the problem 429 when a token writes too often; nobody is limited while everything is open."""
        if self.tokens.is_open:
            return
        try:
            await self.limiter.check(caller.name, self.clock.now())
        except Problem:
            self.metrics.rate_limited.inc()
            raise

    def ring(self, *names: str) -> None:
        """Wake loops of this process. Others find the work by polling."""
        for name in names:
            if name in self.bells:
                self.bells[name].wake()
