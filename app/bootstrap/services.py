"""The only place that builds real clients. Here what everything is built on; each part is put together in a file of its own,
a function `Base -> Part`: what its HTTP routes need, and its loops."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from app.bootstrap.base import Base
from app.bootstrap.chains import chains
from app.bootstrap.deadman import deadman
from app.bootstrap.lineage import lineage
from app.bootstrap.mlflow import MlflowOf
from app.bootstrap.notices import incidents, notices
from app.bootstrap.promotion import promotion
from app.bootstrap.servers import Urls, servers
from app.bootstrap.settings import Settings
from app.bootstrap.triggers import triggers
from app.bootstrap.watchman import watchman
from app.deadman.service import DeadmanServices
from app.deliver.airflows import AirflowClients
from app.groups.service import TriggerServices
from app.intake.batcher import Batcher
from app.intake.memory import Memory
from app.kit.clock import Clock, SystemClock
from app.kit.db import database_now
from app.kit.errors import UsageError
from app.kit.http import Http, open_http
from app.kit.loop import Loop
from app.kit.metrics import Metrics
from app.kit.redis.client import Redis, open_redis
from app.kit.replica import Reader, open_engines
from app.lineage.api import ChainServices
from app.lineage.service import LineageServices
from app.notices.service import NoticeServices
from app.policy.file.load import load_policy
from app.policy.holder import Holder
from app.policy.reload import LOOK_EVERY, Reloader
from app.policy.schema import Policy
from app.promotion.service import PromotionServices
from app.web.probes import Probes, probes
from app.web.ratelimit import RateLimit
from app.web.security import is_loopback, refuse_open_bind
from app.web.tokens import Tokens, tokens_exist

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that runs. `loops` are the worker's, `constant` every process'; `batcher.run` is the web process' own."""

    settings: Settings
    policies: Holder
    reloader: Reloader
    clock: Clock
    engine: AsyncEngine
    redis: Redis
    memory: Memory
    tokens: Tokens
    metrics: Metrics
    triggers: TriggerServices
    notices: NoticeServices
    chains: ChainServices
    promotion: PromotionServices
    deadman: DeadmanServices
    probes: Probes
    batcher: Batcher
    lineage: LineageServices
    loops: tuple[Loop, ...]
    constant: tuple[Loop, ...]

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.policies.current()

    @property
    def running(self) -> tuple[Loop, ...]:
        """The loops that run in this process; `serve --no-worker` has only the constant ones."""
        return tuple(loop for loop in (*self.constant, *self.loops) if loop.started)

    def loop(self, name: str) -> Loop:
        """The loop of this name."""
        return next(loop for loop in (*self.constant, *self.loops) if loop.name == name)

    def reload_soon(self) -> None:
        """Read the policy file again, changed or not. For a signal handler."""
        self.reloader.ask()
        for loop in self.constant:
            loop.wake()


def read_policy(settings: Settings) -> Policy:
    """The policy in force. Raises UsageError naming `init` when there is none."""
    path = settings.policy_file
    if not Path(path).is_file():
        raise UsageError(f"there is no policy at {path}: `trigger-gateway init` writes one, or set GATEWAY_POLICY_FILE")
    return load_policy(path)


@asynccontextmanager
async def open_services(
    settings: Settings,
    policy: Policy,
    urls: Urls,
    *,
    clock: Clock | None = None,
    http: Http | None = None,
) -> AsyncIterator[Services]:
    """Everything, built on migrated servers; closed again in reverse. `clock` and `http` are replaced by tests."""
    refuse_open_bind(settings.host, tokens_exist(settings.tokens_path))
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        engines = await stack.enter_async_context(open_engines(urls.database, settings.database_read_url))
        engine = engines.everything
        clock = clock or await _the_databases_clock(engine)
        redis = open_redis(urls.redis, settings.redis_timeout, prefix=settings.redis_prefix)
        stack.push_async_callback(redis.aclose)
        if http is None:
            http = open_http()
            stack.push_async_callback(http.aclose)
        policies = Holder(policy, clock.now())
        base = Base(
            settings=settings,
            policies=policies,
            clock=clock,
            engine=engine,
            intake_engine=engines.intake,
            reader=Reader(engine, engines.copy, metrics.replica_failures.inc),
            redis=redis,
            memory=Memory(redis, ttl=settings.memory_ttl, failed=metrics.redis_failures.labels("memory").inc),
            tokens=Tokens(settings.tokens_path, clock, loopback=is_loopback(settings.host)),
            metrics=metrics,
            limiter=RateLimit(redis, settings.rate_limit, on_unlimited=metrics.redis_failures.labels("rate_limit").inc),
            http=http,
            notices=incidents(engine, clock, policies.current),
            airflows=AirflowClients(policies.current, http, clock),
            mlflow=MlflowOf(policies.current, http, clock),
            bells={},
        )
        yield _assemble(base)


async def _the_databases_clock(engine: AsyncEngine) -> Clock:
    clock = SystemClock()
    await clock.synchronise(lambda: database_now(engine))
    return clock


def _assemble(base: Base) -> Services:
    telling = notices(base)
    lineage_side = lineage(base)
    chain_side = chains(base)
    promotion_side = promotion(base)
    trigger_side = triggers(base, {**telling.destinations, **lineage_side.destinations})
    reloader = Reloader(base.policies, base.settings.policy_file, base.engine, base.clock, base.metrics)
    switches = deadman(base)
    parts = (telling, trigger_side, chain_side, promotion_side, switches)
    loops = tuple(loop for part in parts for loop in part.loops)
    constant = _constant_loops(base, reloader)
    watched = (*constant, *loops)
    batcher = trigger_side.batcher
    loops += watchman(base, lambda: [loop for loop in watched if loop.started], batcher.stuck)
    base.bells.update({loop.name: loop for loop in loops})
    for loop in (*constant, *loops):
        base.metrics.loop_failures.labels(loop.name).set_function(partial(getattr, loop, "failures"))
    return Services(
        settings=base.settings,
        policies=base.policies,
        reloader=reloader,
        clock=base.clock,
        engine=base.engine,
        redis=base.redis,
        memory=base.memory,
        tokens=base.tokens,
        metrics=base.metrics,
        triggers=trigger_side.services,
        notices=telling.services,
        chains=chain_side.services,
        promotion=promotion_side.services,
        deadman=switches.services,
        probes=probes(base),
        batcher=batcher,
        lineage=lineage_side.services,
        loops=loops,
        constant=constant,
    )


def _constant_loops(base: Base, reloader: Reloader) -> tuple[Loop, ...]:
    """What a process without the worker's loops needs as well: the right time, and the policy of the day."""
    clock = base.clock

    async def synchronise() -> bool:
        if isinstance(clock, SystemClock):
            await clock.synchronise(lambda: database_now(base.engine))
        return False

    return Loop("clock", synchronise, idle=60.0), Loop("policy", reloader.step, idle=LOOK_EVERY)


__all__ = ["Services", "Urls", "open_services", "read_policy", "servers"]
