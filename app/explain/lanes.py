"""The lane of a group: what happened to it in a span of time, as marks on one line. Pure; the rows are those of
app.explain.history or of the API.

A page draws the marks as SVG (app.ui).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

Row = Mapping[str, Any]

#: How many alerts and triggers of one group a lane shows: the newest.
MOST: Final = 200
#: A part of the lane lies in the future, where cooldowns and deadlines end.
_AHEAD: Final = 10
_STEPS: Final = (1, 5, 20, 60, 180)  # minutes
_PIXELS: Final = 2000
_AN_INSTANT: Final = timedelta(seconds=1)  # a trigger that was held for less was not held


class Kind(StrEnum):
    """What a mark stands for."""

    EPISODE = "episode"  # an alert, from its first notification to its end; its word is the severity
    HOLD = "hold"  # a held trigger, which waits for its debounce to end
    RUN = "run"  # a fired trigger, from its fire to the end of its DAG run; its word is its state
    COOLDOWN = "cooldown"  # the group fires nothing
    PROMOTION = "promotion"  # a version that the group's triggers made got an alias, or lost it by a rollback
    DEADLINE = "deadline"  # when a switch is due; its word is the state of the switch


class Mark(NamedTuple):
    """One mark, of which a fleet has thousands. `id` names what it stands for: an alert, a trigger, a promotion or a switch.
    `note` is one sentence."""

    kind: Kind
    word: str
    start: datetime
    end: datetime
    id: str
    note: str


@dataclass(frozen=True, slots=True)
class Span:
    """From `since` to `until`, with `now` in between."""

    since: datetime
    now: datetime
    until: datetime

    @classmethod
    def of(cls, now: datetime, days: int) -> "Span":
        """The last `days`, and a tenth of them ahead."""
        span = timedelta(days=days)
        return cls(now - span, now, now + span / _AHEAD)

    def steady(self) -> "Span":
        """The same span by a coarse clock, which moves it by half a pixel at a time. What has ended stays in its place."""
        minutes = (self.until - self.since) / timedelta(minutes=1)
        step = max((each for each in _STEPS if each * _PIXELS <= minutes), default=_STEPS[0])
        late = timedelta(seconds=self.now.timestamp() % (step * 60))
        return Span(self.since - late, self.now - late, self.until - late)

    def place(self, time: datetime) -> float:
        """Where a time lies: 0 at the beginning, 100 at the end. What lies outside is at the edge."""
        return min(max((time - self.since) / (self.until - self.since), 0.0), 1.0) * 100


def marks_of(span: Span, alerts: Iterable[Row], triggers: Iterable[Row], state: Row | None) -> list[Mark]:
    """The marks of a group, those that lie behind others first. `state` is the live state of the group."""
    marks = list(_cooldown(state)) if state is not None else []
    for alert in alerts:
        end = span.now if alert["status"] == "firing" else alert["last_seen_at"]
        note = f"{alert['alert_id']}, {alert['severity']}, {alert['status']}"
        marks.append(Mark(Kind.EPISODE, alert["severity"], alert["first_seen_at"], end, str(alert["id"]), note))
    for trigger in triggers:
        marks += _of_trigger(span, trigger, state)
    return sorted((mark for mark in marks if mark.end >= span.since), key=_order)


def state_of(trigger: Row) -> str:
    """The state of a trigger in one word. A run that does not end in time is `lost`; in shadow mode nothing ran."""
    if trigger["mode"] == "shadow" and trigger["fired_at"] is not None:
        return "shadow"
    return "lost" if trigger["lost_at"] is not None or trigger["outcome"] == "lost" else str(trigger["state"])


def _cooldown(state: Row) -> Iterable[Mark]:
    until, fired_at = state["cooldown_until"], state["fired_at"]
    if until is not None:
        trigger = str(state["last_trigger"] or "")
        yield Mark(
            Kind.COOLDOWN, "cooldown", fired_at or until, until, trigger, "the group fires nothing until this ends"
        )


def _of_trigger(span: Span, trigger: Row, state: Row | None) -> Iterable[Mark]:
    ident, created, fired, ended = (trigger[name] for name in ("id", "created_at", "fired_at", "ended_at"))
    word = state_of(trigger)
    if word == "held":
        until = (state["held_until"] if state is not None else None) or span.now
        yield Mark(Kind.HOLD, "held", created, until, str(ident), "held: it waits for its debounce to end")
        return
    left = fired or ended
    if left is not None and left - created >= _AN_INSTANT:
        yield Mark(Kind.HOLD, "held", created, left, str(ident), "held: it waited for its debounce to end")
    if left is not None:
        yield Mark(
            Kind.RUN, word, left, ended or span.now, str(ident), f"{trigger['reason']}, {word}: {trigger['detail']}"
        )


def flags_of(promotions: Iterable[Row]) -> list[Mark]:
    """The promotions and rollbacks of the versions that a group's triggers made, as flags."""
    marks = []
    for row in promotions:
        verb = "got" if row["state"] == "promoted" else "lost"
        note = f"{row['model']} {row['version']} {verb} {row['to']}, by {row['requested_by']}"
        marks.append(Mark(Kind.PROMOTION, row["state"], row["ended_at"], row["ended_at"], str(row["id"]), note))
    return marks


#: What lies behind others comes first.
_PLACES: Final = {kind: place for place, kind in enumerate(Kind)} | {Kind.COOLDOWN: -1}


def _order(mark: Mark) -> tuple[int, datetime]:
    return _PLACES[mark.kind], mark.start


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the lanes, with its label."""

    at: datetime
    label: str


def ticks_of(span: Span) -> list[Tick]:
    """Midnights of a short span, Mondays of a longer one, firsts of months of a long one. All in UTC."""
    days = (span.until - span.since).days
    day = span.since.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    ticks = []
    while day < span.until:
        if days <= 10 or (days <= 45 and day.weekday() == 0) or (day.day == 1 and days > 45):
            ticks.append(Tick(day, day.strftime("%b" if days > 45 else "%d %b")))
        day += timedelta(days=1)
    return ticks
