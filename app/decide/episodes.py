"""Which episode does a notification belong to? Pure.

A fingerprint has at most one open episode. The rules come from measurements: two Prometheus replicas differ in startsAt by
seconds; after a partition Alertmanager sends "resolved" and then "firing" again with the same startsAt; notifications
overtake each other. A sender's time is compared only with senders' times, and an arrival only with our clock.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from app.decide.alert import Alert
from app.decide.state import Episode


class Move(Enum):
    BEGIN = "begin"  # a new episode; the open one, if any, is closed
    REPEAT = "repeat"  # of the open episode
    LATE = "late"  # a firing overtaken by its resolved: wait for the window's end
    REOPEN = "reopen"  # it fires on after its resolved
    RESOLVE = "resolve"  # closes the open episode
    AFTER = "after"  # a resolved that closes nothing: a repeat, or of an episode before the open one


@dataclass(frozen=True, slots=True)
class Window:
    """GATEWAY_REORDER_WINDOW, and `stale_after` of the route, which ends native alerts."""

    reorder: timedelta
    stale_after: timedelta | None = None


def move_for(last: Episode | None, alert: Alert, window: Window, now: datetime) -> Move:
    """Where `alert` belongs, given the newest episode of its fingerprint (open or closed)."""
    if not alert.firing:
        return _move_for_resolved(last, alert)
    if last is None:
        return Move.BEGIN
    if last.firing:
        return _move_beside_open(last, alert, window, now)
    if last.ends_at is None or alert.starts_at > last.ends_at:
        return Move.BEGIN
    resolved_at = last.resolved_at or last.closed_at
    if resolved_at is not None and now < resolved_at + window.reorder:
        return Move.LATE
    return Move.REOPEN


def _move_beside_open(last: Episode, alert: Alert, window: Window, now: datetime) -> Move:
    if alert.timestamped:
        # A native timestamp moves with every repeat: only a silence separates two episodes.
        stale = window.stale_after is not None and now - last.last_seen_at > window.stale_after
        return Move.BEGIN if stale else Move.REPEAT
    return Move.BEGIN if alert.starts_at > last.starts_at + window.reorder else Move.REPEAT


def _move_for_resolved(last: Episode | None, alert: Alert) -> Move:
    if last is None:
        return Move.BEGIN
    if not last.firing:
        return Move.AFTER
    end = alert.ends_at
    return Move.RESOLVE if end is None or last.starts_at <= end else Move.AFTER


def begin(alert: Alert, episode_id: UUID, now: datetime) -> Episode:
    """The episode that `alert` begins. One that begins with a resolved is over at once, and stays in the history."""
    closed = None if alert.firing else now
    return Episode(
        id=episode_id,
        alert_id=alert.alert_id,
        fingerprint=alert.fingerprint,
        source=alert.source,
        status="firing" if alert.firing else "resolved",
        severity=alert.severity,
        starts_at=alert.starts_at,
        ends_at=alert.ends_at,
        labels=alert.labels,
        annotations=alert.annotations,
        first_seen_at=now,
        last_seen_at=now,
        firing_since=now,
        closed_at=closed,
        resolved_at=closed,
    )


def supersede(episode: Episode, now: datetime) -> None:
    """A newer episode of the fingerprint begins: this one does not fire and does not reopen any more."""
    episode.late_at = None
    if episode.firing:
        episode.closed_at, episode.status = now, "resolved"


def move(kind: Move, episode: Episode, alert: Alert, now: datetime) -> None:
    """Apply what `move_for` found to the newest episode (every Move but BEGIN)."""
    match kind:
        case Move.REPEAT:
            episode.starts_at = min(episode.starts_at, alert.starts_at)
        case Move.LATE:
            episode.late_at = now
        case Move.REOPEN:
            reopen(episode, now)
        case Move.RESOLVE:
            episode.closed_at = episode.resolved_at = now
            episode.ends_at = alert.ends_at or episode.starts_at
            episode.status = "resolved"
        case Move.AFTER if not episode.firing:
            episode.resolved_at, episode.late_at = now, None
            episode.ends_at = max(filter(None, (episode.ends_at, alert.ends_at)), default=None)
    if alert.firing and episode.firing:
        episode.severity = alert.severity


def reopen(episode: Episode, since: datetime) -> None:
    """It fires again, and its debounce begins again at `since`."""
    episode.status, episode.firing_since, episode.dismissed = "firing", since, False
    episode.closed_at = episode.resolved_at = episode.ends_at = episode.late_at = None
