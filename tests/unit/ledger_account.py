"""The words of the contract on when a group may fire, written once more and without app.decide.rules."""

from dataclasses import dataclass
from datetime import datetime

from app.decide.state import DEAD, FAILED, GONE, LOST
from app.policy.schema import Route
from tests.unit.builders import DAY
from tests.unit.replicas import Fired


@dataclass
class Account:
    """What the contract says of one group: its newest trigger, the failures in a row, whether a person reset it."""

    newest: Fired | None = None
    accepted_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    failures: int = 0
    was_reset: bool = False

    def clear_at(self, route: Route) -> datetime | None:
        """When the next trigger may fire at the earliest, resets apart; None: at any time."""
        if self.newest is None:
            return None
        if self.outcome == DEAD or (self.outcome in (FAILED, LOST, GONE) and route.on_failure == "release"):
            assert self.ended_at is not None
            pause = route.failure_backoff
            for _ in range(self.failures - 1):
                pause = min(pause * 2, DAY * 100)
            return self.ended_at + min(pause, max(route.cooldown, route.failure_backoff))
        return max(self.newest.at, self.accepted_at or self.newest.at) + route.cooldown
