"""What happened, in the order of time: everything that a replay needs. Pure values."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from app.decide.alert import Alert
from app.decide.rules import Pause
from app.decide.state import LIVE, Confirmation
from app.policy.confirm import Confirm
from app.policy.schema import Policy

#: Answers the `confirm` of a route for a group, as of then; None: nobody knows.
Ask = Callable[[Confirm, Mapping[str, str], datetime], Confirmation | None]


@dataclass(frozen=True, slots=True)
class Heard:
    """A notification arrived."""

    at: datetime
    alerts: Sequence[Alert]


@dataclass(frozen=True, slots=True)
class Asked:
    """A person or a script asked for a DAG run of a group."""

    at: datetime
    route: str
    group: Mapping[str, str]
    by: str
    why: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Paused:
    """A person muted a route, or every route."""

    at: datetime
    pause: Pause


@dataclass(frozen=True, slots=True)
class Lifted:
    """A person ended the pause of a route."""

    at: datetime
    route: str


@dataclass(frozen=True, slots=True)
class Reset:
    """A person cleared the cooldown of a group."""

    at: datetime
    route: str
    group: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A person cancelled the held trigger of a group."""

    at: datetime
    route: str
    group: Mapping[str, str]
    by: str


@dataclass(frozen=True, slots=True)
class Redriven:
    """A person had the dead trigger of a group fire again."""

    at: datetime
    route: str
    group: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A policy came into force."""

    at: datetime
    policy: Policy


@dataclass(frozen=True, slots=True)
class Ineffective:
    """The newest retrains of a group did not help (`holds`), or that is over."""

    at: datetime
    route: str
    group: Mapping[str, str]
    holds: bool


@dataclass(frozen=True, slots=True)
class Outage:
    """No gateway ran until `until`: nothing was decided, and holds are longer by that time."""

    at: datetime
    until: datetime


Event = Outage | Heard | Asked | Paused | Lifted | Reset | Cancelled | Redriven | Reloaded | Ineffective


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A trigger that fired, and what became of it. None: not yet, or never. In shadow mode nothing was started."""

    route: str
    group: Mapping[str, str]
    fired_at: datetime
    accepted_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    lost_at: datetime | None = None
    reason: str = ""
    mode: str = LIVE


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """What Prometheus answered about a group before a fire. None: it gave no answer, and `on_error` counted."""

    at: datetime
    route: str
    group: Mapping[str, str]
    confirmed: bool | None


@dataclass(frozen=True, slots=True)
class NotEvaluable:
    """Something that hangs on what nobody knows: the answer of a Prometheus, or a group that this policy does not have."""

    at: datetime
    route: str
    group: Mapping[str, str]
    why: Literal["confirm", "no_route", "group_by", "no_trigger"]


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that could not be read, or an alert of it."""

    line: int
    error: str


@dataclass(frozen=True, slots=True)
class Assumed:
    """What the source of a history takes for granted. `episodes`: which alerts hang on it, each by its fingerprint and its
    startsAt; None: all."""

    name: str
    text: str
    episodes: frozenset[tuple[str, datetime]] | None = None


@dataclass(slots=True)
class History:
    """`events` are in the order of time. `runs` and `answers` are those of the gateway that lived through it; a monitor
    leaves none. `lines` counts what was read, `broken` has the first lines at fault of `broken_count`, and `notes` are
    sentences that a report repeats. `covers` and `holes` are for a source that knows from when to when it knows everything:
    without them the first and the last event count, and silences are holes. `ask` is there when Prometheus can be asked."""

    events: list[Event] = field(default_factory=list)
    runs: list[LiveRun] = field(default_factory=list)
    answers: list[LiveAnswer] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    broken_count: int = 0
    lines: int = 0
    notes: list[str] = field(default_factory=list)
    resolution: str = "as the lines have it"
    covers: tuple[datetime, datetime] | None = None
    holes: list[tuple[datetime, datetime]] | None = None
    assumed: list[Assumed] = field(default_factory=list)
    ask: Ask | None = None

    @property
    def first_at(self) -> datetime | None:
        return self.events[0].at if self.events else None

    @property
    def last_at(self) -> datetime | None:
        return self.events[-1].at if self.events else None

    @property
    def policies(self) -> list[Reloaded]:
        """The policies that were in force, if the history names them."""
        return [event for event in self.events if isinstance(event, Reloaded)]

    def answers_to(self, policy: Policy) -> list[LiveAnswer]:
        """The answers to what this policy asks Prometheus: those to another question say nothing. Where the history names no
        policy, nobody knows what was asked, and each answer counts."""
        known = self.policies
        return [a for a in self.answers if not known or _asks_the_same(in_force(known, a.at), policy, a.route)]

    def in_order(self) -> None:
        """Sort by time. Events of one moment stay in the order in which they were read."""
        self.events.sort(key=lambda event: event.at)
        self.runs.sort(key=lambda run: run.fired_at)
        self.answers.sort(key=lambda answer: answer.at)


def nearest(answers: Sequence[LiveAnswer], at: datetime, within: timedelta) -> LiveAnswer | None:
    """The answer that came nearest to a moment, and no further from it than this. They are in the order of time."""
    place = bisect_left(answers, at, key=lambda answer: answer.at)
    near = min(answers[max(place - 1, 0) : place + 1], key=lambda each: abs(each.at - at), default=None)
    return near if near is not None and abs(near.at - at) <= within else None


def in_force(known: Sequence[Reloaded], at: datetime) -> Policy:
    """The policy that was in force then, of those that a history names in the order of time."""
    return known[max(bisect_right(known, at, key=lambda event: event.at) - 1, 0)].policy


def _asks_the_same(then: Policy, policy: Policy, name: str) -> bool:
    """Whether a route asks one Prometheus one query under both policies. An address that is a variable may be any."""
    routes = then.route(name), policy.route(name)
    questions = [route.confirm for route in routes if route is not None and route.confirm is not None]
    addresses = {confirm.prometheus for confirm in questions}
    is_one = len(addresses) == 1 or any("${" in address for address in addresses)
    return len(questions) == 2 and is_one and questions[0].query == questions[1].query


def group_name(group: Mapping[str, str], route: str = "") -> str:
    """A group as people name it: its values. A route without `group_by` has only the route's name."""
    return ", ".join(value or '""' for value in group.values()) or route
