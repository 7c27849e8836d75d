"""Which alerts are one drift episode, at each boundary one second before and after."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.decide.drift import Drift, Firing, drifts

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
HOUR, DAY, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(seconds=1)
WATCH, STALE = 7 * DAY, 6 * HOUR


def firing(begin: timedelta, end: timedelta | None, *, heard: timedelta | None = None, severity: str = "") -> Firing:
    ended = NOON + end if end is not None else None
    return Firing(
        "Drift", NOON + begin, ended, NOON + heard if heard is not None else ended or NOON, ended, "", severity
    )


def found(*firings: Firing, now: timedelta = 30 * DAY) -> list[Drift]:
    return drifts(firings, WATCH, STALE, NOON + now)


ROWS = [
    ("it overlaps", [(0 * DAY, 2 * HOUR), (HOUR, 3 * HOUR)], 1),
    ("it begins with the end", [(0 * DAY, 2 * HOUR), (2 * HOUR, 3 * HOUR)], 1),
    ("a second before watch is over", [(0 * DAY, HOUR), (HOUR + WATCH - SECOND, 8 * DAY)], 1),
    ("when watch is over", [(0 * DAY, HOUR), (HOUR + WATCH, 8 * DAY)], 1),
    ("a second later", [(0 * DAY, HOUR), (HOUR + WATCH + SECOND, 8 * DAY)], 2),
    ("the longer one counts", [(0 * DAY, 2 * DAY), (HOUR, 2 * HOUR), (WATCH + DAY, 9 * DAY)], 1),
    ("each follows the one before", [(0 * DAY, HOUR), (6 * DAY, 7 * DAY), (13 * DAY, 14 * DAY)], 1),
]


@pytest.mark.parametrize(("alerts", "episodes"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_alerts_that_overlap_or_follow_within_watch_are_one_episode(
    alerts: list[tuple[timedelta, timedelta]], episodes: int
) -> None:
    assert len(found(*(firing(begin, end) for begin, end in alerts))) == episodes


@pytest.mark.parametrize(
    ("now", "end"), [(6 * HOUR, None), (6 * HOUR + SECOND, NOON + 6 * HOUR)], ids=["before", "after"]
)
def test_an_alert_that_goes_stale_ends_its_episode(now: timedelta, end: datetime | None) -> None:
    assert [each.end for each in found(firing(-HOUR, None, heard=timedelta(0)), now=now)] == [end]


def test_the_worst_severity_is_that_of_the_episode() -> None:
    [episode] = found(*(firing(0 * DAY, HOUR, severity=each) for each in ("odd", "warning", "Critical", "info")))
    assert episode.severity == "Critical"


@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 3000)), min_size=1, max_size=12))
def test_each_alert_is_in_one_episode_and_episodes_are_further_apart_than_watch(rows: list[tuple[int, int]]) -> None:
    alerts = [firing(timedelta(minutes=at * 5), timedelta(minutes=at * 5 + long)) for at, long in rows]
    episodes = found(*alerts, now=90 * DAY)
    assert sorted(f.begin for e in episodes for f in e.firings) == sorted(f.begin for f in alerts)
    for earlier, later in pairwise(episodes):
        assert earlier.end is not None
        assert later.begin - earlier.end > WATCH


def test_an_episode_of_many_alerts_takes_time_in_proportion() -> None:
    def seconds(alerts: int) -> float:
        many = [firing(n * SECOND, n * SECOND + HOUR) for n in range(alerts)]
        taken = []
        for _ in range(3):
            before = process_time()
            [drift] = found(*many)
            taken.append(process_time() - before)
            assert len(drift.firings) == alerts
        return min(taken)

    assert seconds(20_000) < 40 * seconds(2_000)  # With a copy for each alert it is a hundred times as much.
