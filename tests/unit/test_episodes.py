"""Which episode a notification belongs to, and what it does to it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.decide.alert import Alert
from app.decide.episodes import Move, Window, begin, move, move_for, reopen, supersede
from app.decide.state import Episode
from tests.unit.builders import HOUR, MINUTE, NOW, REORDER, episode, firing, resolved, uid

EPSILON = timedelta(microseconds=1)
BEGAN = NOW - HOUR  # by the sender's clock
WINDOW = Window(REORDER, stale_after=6 * HOUR)
FAR = timedelta(days=365)  # how wrong a sender's clock may be without changing anything


def times(episode: Episode) -> tuple[datetime | None, ...]:
    return episode.late_at, episode.resolved_at, episode.ends_at


def still_open(**fields: object) -> Episode:
    return episode(starts_at=BEGAN, **fields)


def closed(ends: datetime | None, ago: timedelta = MINUTE) -> Episode:
    """Resolved `ago` by our clock; `ends` by the sender's."""
    at = NOW - ago
    return episode(starts_at=BEGAN, status="resolved", ends_at=ends, closed_at=at, resolved_at=at)


ENDED = BEGAN + 30 * MINUTE

PLACES = [
    # The first of its fingerprint.
    ("the first firing begins", None, firing(at=BEGAN), Move.BEGIN),
    ("a resolved never heard of is an episode that is over", None, resolved(), Move.BEGIN),
    # Firing beside an open episode.
    ("the same startsAt is a repeat", still_open(), firing(at=BEGAN), Move.REPEAT),
    ("an earlier startsAt is a repeat", still_open(), firing(at=BEGAN - MINUTE), Move.REPEAT),
    ("a much earlier startsAt is a repeat", still_open(), firing(at=BEGAN - FAR), Move.REPEAT),
    ("another replica's startsAt is a repeat", still_open(), firing(at=BEGAN + MINUTE), Move.REPEAT),
    ("a startsAt at the window's end is a repeat", still_open(), firing(at=BEGAN + REORDER), Move.REPEAT),
    ("a startsAt beyond the window begins the next", still_open(), firing(at=BEGAN + REORDER + EPSILON), Move.BEGIN),
    ("our clock plays no part", still_open(last_seen_at=NOW - FAR), firing(at=BEGAN), Move.REPEAT),
    # Resolved.
    ("a resolved after the beginning closes", still_open(), resolved(at=BEGAN + MINUTE), Move.RESOLVE),
    ("a resolved in the instant of the beginning closes", still_open(), resolved(at=BEGAN), Move.RESOLVE),
    ("a resolved before the beginning was another's", still_open(), resolved(at=BEGAN - EPSILON), Move.AFTER),
    ("a second resolved closes nothing", closed(ENDED), resolved(at=ENDED), Move.AFTER),
    ("a resolved of the future closes", still_open(), resolved(at=NOW + FAR), Move.RESOLVE),
    # Firing after a resolved.
    ("what began after the end is new", closed(ENDED), firing(at=ENDED + EPSILON), Move.BEGIN),
    ("what began before the end is late", closed(ENDED), firing(at=BEGAN), Move.LATE),
    ("what began with the end is late", closed(ENDED), firing(at=ENDED), Move.LATE),
    ("late lasts to the window's last instant", closed(ENDED, REORDER - EPSILON), firing(at=BEGAN), Move.LATE),
    ("at the window's end it reopens", closed(ENDED, REORDER), firing(at=BEGAN), Move.REOPEN),
    ("long after it reopens: a partition has healed", closed(ENDED, 3 * HOUR), firing(at=BEGAN), Move.REOPEN),
    ("without an end every firing is new", closed(None), firing(at=BEGAN), Move.BEGIN),
    # Native: the timestamp is the notification's.
    ("a later timestamp is a repeat", still_open(), firing(at=BEGAN + 5 * HOUR, native=True), Move.REPEAT),
    ("an earlier timestamp is a repeat", still_open(), firing(at=BEGAN - HOUR, native=True), Move.REPEAT),
    (
        "heard of within stale_after it is a repeat",
        still_open(last_seen_at=NOW - 6 * HOUR),
        firing(at=NOW, native=True),
        Move.REPEAT,
    ),
    (
        "after a longer silence it begins anew",
        still_open(last_seen_at=NOW - 6 * HOUR - EPSILON),
        firing(at=NOW, native=True),
        Move.BEGIN,
    ),
    ("a native resolved closes", still_open(), resolved(at=BEGAN + MINUTE, native=True), Move.RESOLVE),
    ("a native resolved of before does not", still_open(), resolved(at=BEGAN - MINUTE, native=True), Move.AFTER),
    ("a native firing after the end is new", closed(ENDED), firing(at=ENDED + MINUTE, native=True), Move.BEGIN),
    ("a native firing of before the end is late", closed(ENDED), firing(at=ENDED - MINUTE, native=True), Move.LATE),
]


@pytest.mark.parametrize(("last", "alert", "expected"), [p[1:] for p in PLACES], ids=[p[0] for p in PLACES])
def test_a_notification_has_one_place(last: Episode | None, alert: Alert, expected: Move) -> None:
    assert move_for(last, alert, WINDOW, NOW) is expected


def test_without_a_route_a_native_alert_never_goes_stale() -> None:
    silent = still_open(last_seen_at=NOW - FAR)
    assert move_for(silent, firing(at=NOW, native=True), Window(REORDER), NOW) is Move.REPEAT


def test_an_episode_that_fires_is_open_from_now() -> None:
    born = begin(firing("f", BEGAN, team="risk"), uid(5), NOW)
    assert (born.id, born.fingerprint, born.status, born.firing) == (uid(5), "f", "firing", True)
    assert (born.starts_at, born.firing_since, born.first_seen_at, born.last_seen_at) == (BEGAN, NOW, NOW, NOW)
    assert (born.closed_at, born.resolved_at, born.late_at, born.ends_at, born.count) == (None, None, None, None, 0)
    assert born.labels["team"] == "risk"


def test_an_episode_that_begins_with_its_end_is_over_at_once() -> None:
    born = begin(resolved("f", ENDED, BEGAN), uid(5), NOW)
    assert (born.status, born.firing, born.starts_at, born.ends_at) == ("resolved", False, BEGAN, ENDED)
    assert born.closed_at == born.resolved_at == NOW


def test_a_repeat_keeps_the_earliest_start_and_takes_the_newest_severity() -> None:
    episode = still_open()
    for at, severity in [(BEGAN + MINUTE, "critical"), (BEGAN - MINUTE, "warning"), (BEGAN, "info")]:
        move(Move.REPEAT, episode, firing(at=at, severity=severity), NOW)
    assert (episode.starts_at, episode.severity, episode.firing_since) == (BEGAN - MINUTE, "info", NOW)


@pytest.mark.parametrize("apart", [timedelta(0), timedelta(seconds=15), REORDER], ids=str)
def test_two_replicas_that_move_starts_at_stay_one_episode(apart: timedelta) -> None:
    episode = still_open()
    for step in range(20):
        seen = firing(at=BEGAN + apart * (step % 2))
        assert move_for(episode, seen, WINDOW, NOW) is Move.REPEAT
        move(Move.REPEAT, episode, seen, NOW)
    assert episode.starts_at == BEGAN


def test_a_resolved_closes_and_remembers_the_senders_end() -> None:
    episode = still_open()
    move(Move.RESOLVE, episode, resolved(at=ENDED, severity="info"), NOW)
    assert (episode.status, episode.firing, episode.ends_at) == ("resolved", False, ENDED)
    assert episode.closed_at == episode.resolved_at == NOW
    assert episode.severity == "critical"  # What it was when it fired.


def test_a_resolved_without_an_end_closes_at_the_start() -> None:
    episode, no_end = still_open(), replace(resolved(at=ENDED), ends_at=None)
    assert move_for(episode, no_end, WINDOW, NOW) is Move.RESOLVE
    move(Move.RESOLVE, episode, no_end, NOW)
    assert episode.ends_at == BEGAN


def test_another_resolved_silences_a_late_firing_and_moves_the_end() -> None:
    episode = closed(ENDED)
    move(Move.LATE, episode, firing(at=BEGAN), NOW)
    assert episode.late_at == NOW
    move(Move.AFTER, episode, resolved(at=ENDED + MINUTE), NOW + MINUTE)
    assert times(episode) == (None, NOW + MINUTE, ENDED + MINUTE)
    move(Move.AFTER, episode, resolved(at=ENDED), NOW + 2 * MINUTE)
    assert episode.ends_at == ENDED + MINUTE


def test_a_resolved_of_an_earlier_episode_leaves_the_open_one_alone() -> None:
    episode, before = still_open(), still_open()
    move(Move.AFTER, episode, resolved(at=BEGAN - HOUR), NOW)
    assert episode == before


def test_what_reopens_fires_again_and_waits_for_calm_anew() -> None:
    episode = closed(ENDED, ago=3 * HOUR)
    move(Move.REOPEN, episode, firing(at=BEGAN, severity="warning"), NOW)
    assert (episode.status, episode.firing, episode.firing_since, episode.severity) == ("firing", True, NOW, "warning")
    assert (episode.closed_at, episode.resolved_at, episode.ends_at, episode.late_at) == (None, None, None, None)


def test_a_late_firing_that_was_right_fires_since_it_was_heard_of() -> None:
    episode = closed(ENDED)
    move(Move.LATE, episode, firing(at=BEGAN), NOW)
    reopen(episode, NOW)
    assert (episode.firing, episode.firing_since, episode.late_at) == (True, NOW, None)


@pytest.mark.parametrize("episode", [still_open(), closed(ENDED)], ids=["open", "closed"])
def test_an_episode_that_another_follows_neither_fires_nor_reopens(episode: Episode) -> None:
    was_closed, episode.late_at = episode.closed_at, NOW
    supersede(episode, NOW)
    assert (episode.status, episode.firing) == ("resolved", False)
    assert times(episode)[0] is None
    assert episode.closed_at == (was_closed or NOW)
