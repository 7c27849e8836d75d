"""When Alertmanager would have posted what: from alerts over time to notifications. Pure.

Source: Alertmanager's `dispatch` (groups and their ticks) and `notify` (when a notification is needed), compared with times
recorded from a real one. A group has its first tick `group_wait` after its first alert, and one each `group_interval` then.
A tick posts when a new alert fires, when one ended, or when `repeat_interval` is over. So a flap may never be posted.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

#: How often Alertmanager forgets its empty groups. A group that it has not forgotten goes on ticking.
FORGETS: Final = timedelta(seconds=30)

#: When it began to count these 30 s. Nobody knows for a real one.
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

NEVER: Final = datetime.max.replace(tzinfo=UTC)

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How a route of Alertmanager groups and waits. `group_by` None: each alert is a group of its own (`...`)."""

    group_by: tuple[str, ...] | None = ("alertname", "model")
    group_wait: timedelta = timedelta(seconds=30)
    group_interval: timedelta = timedelta(minutes=5)
    repeat_interval: timedelta = timedelta(hours=4)
    send_resolved: bool = True


@dataclass(frozen=True, slots=True)
class Span:
    """One time in which an alert fires. `end` None: it still does."""

    begin: datetime
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    """One alert of a notification."""

    labels: Labels
    span: Span
    firing: bool


@dataclass(frozen=True, slots=True)
class Notification:
    """What a receiver gets at a moment."""

    at: datetime
    alerts: tuple[Posted, ...]


@dataclass(slots=True)
class _Alert:
    labels: Labels
    spans: Sequence[Span]
    next: int = 0  # the first span whose end no tick has seen


@dataclass(slots=True)
class _Log:
    """What the receiver knows of a group: the newest notification."""

    at: datetime | None = None
    firing: frozenset[Labels] = frozenset()
    resolved: frozenset[Labels] = frozenset()


def notifications(
    alerts: Mapping[Labels, Sequence[Span]], pace: Pace, until: datetime, counted_from: datetime = EPOCH
) -> Iterator[Notification]:
    """Every notification of a route until a moment, group by group. The spans of an alert are in the order of time."""
    groups: defaultdict[Labels, list[_Alert]] = defaultdict(list)
    for labels, spans in alerts.items():
        key = labels if pace.group_by is None else frozenset(pair for pair in labels if pair[0] in pace.group_by)
        groups[key].append(_Alert(labels, spans))
    for members in groups.values():
        yield from _of_group(members, pace, until, counted_from)


def _of_group(members: Sequence[_Alert], pace: Pace, until: datetime, counted_from: datetime) -> Iterator[Notification]:
    log = _Log()
    while (first := _begins(members)) is not None:
        tick = first + pace.group_wait
        while tick <= until:
            seen = [alert for member in members if (alert := _state(member, tick)) is not None]
            if sent := _flush(seen, tick, log, pace):
                yield Notification(tick, sent)
            if not any(alert.firing for alert in seen) and not _goes_on(members, tick, counted_from):
                break  # It is forgotten. The next alert makes a new group.
            tick = _next_tick(members, tick, log, pace)
        else:
            return


def _begins(members: Sequence[_Alert]) -> datetime | None:
    """When the next alert of an empty group begins."""
    return min((m.spans[m.next].begin for m in members if m.next < len(m.spans)), default=None)


def _goes_on(members: Sequence[_Alert], tick: datetime, counted_from: datetime) -> bool:
    """Whether an alert begins before Alertmanager forgets the empty group."""
    begins = _begins(members)
    forgotten = counted_from + ((tick - counted_from) // FORGETS + 1) * FORGETS
    return begins is not None and begins < forgotten


def _flush(seen: Sequence[Posted], tick: datetime, log: _Log, pace: Pace) -> tuple[Posted, ...]:
    """What one tick of a group posts."""
    firing = frozenset(alert.labels for alert in seen if alert.firing)
    resolved = frozenset(alert.labels for alert in seen if not alert.firing)
    if not seen or not _is_needed(log, firing, resolved, tick, pace):
        return ()
    log.at, log.firing, log.resolved = tick, firing, resolved
    return tuple(alert for alert in seen if alert.firing or pace.send_resolved)


def _state(member: _Alert, tick: datetime) -> Posted | None:
    """What a tick sees of an alert; None: nothing since the tick that saw its end."""
    seen = None
    while member.next < len(member.spans) and member.spans[member.next].begin <= tick:
        span = member.spans[member.next]
        seen = Posted(member.labels, span, span.end is None or span.end > tick)
        if seen.firing:
            break
        member.next += 1
    return seen


def _is_needed(log: _Log, firing: frozenset[Labels], resolved: frozenset[Labels], tick: datetime, pace: Pace) -> bool:
    if log.at is None:
        return bool(firing)
    if not firing <= log.firing:
        return True
    if not firing:
        return bool(log.firing)
    if pace.send_resolved and not resolved <= log.resolved:
        return True
    # Each tick comes a little later than planned. So a repeat_interval of many ticks is over with the last of them.
    return tick - log.at >= pace.repeat_interval


def _next_tick(members: Sequence[_Alert], tick: datetime, log: _Log, pace: Pace) -> datetime:
    """The first tick that can see something new: an alert begins or ends, or it is time to repeat."""
    changes = [moment for member in members if (moment := _changes(member, tick)) is not None]
    if log.at is not None and log.firing:
        changes.append(log.at + pace.repeat_interval)
    if not changes:
        return NEVER
    steps = max(-((tick - min(changes)) // pace.group_interval), 1)  # Rounded up.
    return tick + steps * pace.group_interval


def _changes(member: _Alert, tick: datetime) -> datetime | None:
    if member.next >= len(member.spans):
        return None
    span = member.spans[member.next]
    return span.begin if span.begin > tick else span.end
