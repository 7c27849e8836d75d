"""What every part of the gateway uses: the database, the clock, the policy in force, the metrics, and the bells of loops."""

from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from app.kit.clock import Clock
from app.kit.loop import Bell
from app.kit.metrics import Metrics
from app.policy.holder import Holder
from app.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class Bells:
    """Bells that wake loops of this process. A loop of another process finds its work by polling."""

    relay: Bell = field(default_factory=Bell)
    waker: Bell = field(default_factory=Bell)
    confirmer: Bell = field(default_factory=Bell)
    follower: Bell = field(default_factory=Bell)


@dataclass(frozen=True, slots=True)
class Core:
    """One process has one Core; intake has a copy of it with connections of its own.

    `reorder` is GATEWAY_REORDER_WINDOW: how late a firing may arrive after its resolved. `records` is
    GATEWAY_RECORD_REPEATS: whether the minutes in which an alert was heard are kept.
    """

    engine: AsyncEngine
    clock: Clock
    policies: Holder
    metrics: Metrics
    bells: Bells
    reorder: timedelta
    records: bool = True

    @property
    def policy(self) -> Policy:
        """The policy in force. A pass reads it once, so it never sees two policies."""
        return self.policies.current()
