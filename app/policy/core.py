"""What every room stands on: the database, the clock, the policy in force, the metrics, and the bells that wake loops."""

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
    """The loops that others wake. Nobody hears the bell of a loop that runs in another process: that one finds its work by
    polling."""

    relay: Bell = field(default_factory=Bell)
    waker: Bell = field(default_factory=Bell)
    confirmer: Bell = field(default_factory=Bell)
    follower: Bell = field(default_factory=Bell)


@dataclass(frozen=True, slots=True)
class Core:
    """One process has one Core; intake has a copy of it with connections of its own.

    `reorder` is GATEWAY_REORDER_WINDOW: how late a firing may arrive after its resolved.
    """

    engine: AsyncEngine
    clock: Clock
    policies: Holder
    metrics: Metrics
    bells: Bells
    reorder: timedelta

    @property
    def policy(self) -> Policy:
        """The policy in force. A pass asks once, so that it never sees two policies."""
        return self.policies.current()
