"""Is a route muted now, by a time interval of the policy or by a person, and until when? Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.kit.times import at
from app.policy.intervals import end_of
from app.policy.schema import Policy, Route

#: As the name of a route: every route.
EVERY_ROUTE = "-"


@dataclass(frozen=True, slots=True)
class Pause:
    """A person mutes a route, or every route, until a time. None: until somebody lifts it."""

    route: str
    until: datetime | None
    reason: str
    by: str
    at: datetime

    def holds(self, now: datetime) -> bool:
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class Mute:
    """What mutes a route, in words, and until when. None: the end is not known."""

    by: str
    until: datetime | None

    def __str__(self) -> str:
        """For people."""
        end = f"muted until {at(self.until)}" if self.until else "muted, without a known end"
        return f"{end}: {self.by}"


def mute_of(policy: Policy, route: Route, pauses: Mapping[str, Pause], now: datetime) -> Mute | None:
    """What mutes the route now. If several things mute it one after the other, `until` is the end of the last one."""
    paused = [p for name in (route.name, EVERY_ROUTE) if (p := pauses.get(name)) is not None]
    named = policy.mutes(route)
    by = next((f"{p.by} has paused it: {p.reason}" for p in paused if p.holds(now)), None)
    if by is None:
        by = next((f"the time interval {name!r} holds" for name, i in named if i.contains(now)), None)
    if by is None:
        return None
    intervals = tuple(interval for _, interval in named)
    until: datetime | None = now
    while until is not None:
        later = end_of(intervals, until)
        for pause in paused:
            if later is not None and pause.holds(later):
                later = pause.until
        if later == until:
            break
        until = later
    return Mute(by, until)
