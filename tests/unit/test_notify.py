"""Alertmanager's timing, by hand and beside the times of a real one."""

import json
import random
from datetime import timedelta
from itertools import pairwise

import pytest

from app.replay.prometheus.notify import Pace, Posted, Span, notifications
from tests.sizes import seed, size
from tests.unit.timings import FILE, START, moment, real, unlike

PACE = Pace(("model",))  # 30 s, 5 m, 4 h
MINUTE = 60.0
HOUR = 60 * MINUTE
FOREVER = float("inf")

#: Spans of the alerts a, b, ... of one group in minutes, and what is posted: minutes, and the statuses of the alerts.
CASES: dict[str, tuple[list[list[tuple[float, float]]], list[tuple[float, str]]]] = {
    "a flap of 20 seconds is never posted": ([[(0, 1 / 3)]], []),
    "a flap of a minute is posted, and its end five minutes later": ([[(0, 1)]], [(0.5, "a"), (5.5, "A")]),
    "an alert is repeated every four hours": ([[(0, 600)]], [(0.5, "a"), (240.5, "a"), (480.5, "a"), (600.5, "A")]),
    "a second alert waits for the tick": ([[(0, 60)], [(6, 60)]], [(0.5, "a"), (10.5, "ab"), (60.5, "AB")]),
    "a second alert that came and went is posted as ended": (
        [[(0, 12)], [(1, 3)]],
        [(0.5, "a"), (5.5, "aB"), (15.5, "A")],
    ),
    "an alert that fires again before its end was posted": ([[(0, 2), (4, 30)]], [(0.5, "a"), (30.5, "A")]),
    "an alert that fires again long after it": (
        [[(0, 2), (90, 92)]],
        [(0.5, "a"), (5.5, "A"), (90.5, "a"), (95.5, "A")],
    ),
    "an alert without an end": ([[(0, FOREVER)]], [(0.5, "a"), (240.5, "a"), (480.5, "a"), (720.5, "a")]),
}


@pytest.mark.parametrize("name", CASES)
def test_notifications_by_hand(name: str) -> None:
    alerts, expected = CASES[name]
    spans = {
        frozenset({"model": "churn", "alertname": "abc"[number]}.items()): [
            Span(moment(begin * MINUTE), None if end == FOREVER else moment(end * MINUTE)) for begin, end in times
        ]
        for number, times in enumerate(alerts)
    }
    found = []
    for posted in notifications(spans, PACE, moment(13 * HOUR), START):
        names = [(dict(alert.labels)["alertname"], alert.firing) for alert in posted.alerts]
        shown = "".join(sorted((name if firing else name.upper() for name, firing in names), key=str.lower))
        found.append(((posted.at - START).total_seconds() / MINUTE, shown))
    assert found == expected


def test_groups_have_clocks_of_their_own_and_dots_make_a_group_of_each_alert() -> None:
    alerts = {
        frozenset({"model": "a", "pod": "1"}.items()): [Span(moment(0))],
        frozenset({"model": "a", "pod": "2"}.items()): [Span(moment(60))],
        frozenset({"model": "b", "pod": "1"}.items()): [Span(moment(90))],
    }
    for group_by, expected in {("model",): [30, 120, 330], None: [30, 90, 120], (): [30, 330]}.items():
        found = notifications(alerts, Pace(group_by), moment(HOUR), START)
        assert sorted((posted.at - START).total_seconds() for posted in found) == expected, group_by


def test_without_send_resolved_an_end_is_not_posted_and_yet_counted() -> None:
    wait, interval, repeat = (timedelta(seconds=value) for value in (1, 10, 3600))
    pace = Pace((), wait, interval, repeat, send_resolved=False)
    alerts = {
        frozenset({("name", "a")}): [Span(moment(0), moment(40))],
        frozenset({("name", "b")}): [Span(moment(0), moment(5)), Span(moment(25), moment(28))],
    }
    found = notifications(alerts, pace, moment(HOUR), START)
    assert [((posted.at - START).total_seconds(), len(posted.alerts)) for posted in found] == [(1, 2)]


def test_the_model_posts_what_a_real_alertmanager_posted() -> None:
    recorded = json.loads(FILE.read_text())
    assert list(unlike(recorded, within=0.5)) == []
    # Three ticks are shorter than the fourth by microseconds, so that either of them repeats.
    even = [at for at, _ in real(recorded)["even", "repeats"]]
    assert {round((later - earlier) / 4) for earlier, later in pairwise(even)} <= {3, 4}


def second_by_second(
    spans: list[list[tuple[int, int]]], times: tuple[int, int, int], until: int
) -> list[tuple[int, str]]:
    """The same as Alertmanager has it: a store that alerts are put into, a timer, and a log. One group, second by second."""
    wait, interval, repeat = times
    store: dict[int, tuple[int, int]] = {}
    timer, log, found = None, None, []
    for now in range(until + 1):
        if now % 30 == 0 and not store:
            timer = None  # The empty group is forgotten.
        for alert, known in enumerate(spans):
            for span in known:
                if span[0] == now:
                    store[alert] = span
                    timer = now + wait if timer is None else timer
        if timer != now:
            continue
        timer = now + interval
        firing = {alert for alert, span in store.items() if span[1] > now}
        resolved = store.keys() - firing
        if log is None:
            needed = bool(firing)
        elif firing - log[1]:
            needed = True
        elif not firing:
            needed = bool(log[1])
        else:
            needed = bool(resolved - log[2]) or now - log[0] >= repeat
        if store and needed:
            log = now, firing, resolved
            found.append((now, "".join("abc"[a] if a in firing else "ABC"[a] for a in sorted(store))))
        for alert in resolved:
            del store[alert]
    return found


def test_leaps_over_idle_ticks_change_nothing() -> None:
    chosen = random.Random(seed())
    for _ in range(size(100, 2000)):
        times = chosen.randint(0, 9), chosen.randint(1, 12), chosen.randint(1, 90)
        moments = [sorted(chosen.sample(range(1, 600), 2 * chosen.randint(1, 6))) for _ in range(chosen.randint(1, 3))]
        spans = [list(zip(known[::2], known[1::2], strict=True)) for known in moments]
        alerts = {
            frozenset({("name", "abc"[number])}): [Span(moment(begin), moment(end)) for begin, end in known]
            for number, known in enumerate(spans)
        }
        wait, interval, repeat = (timedelta(seconds=value) for value in times)
        posted = notifications(alerts, Pace((), wait, interval, repeat), moment(600), START)
        leapt = [
            ((n.at - START).total_seconds(), "".join(sorted(map(_shown, n.alerts), key=str.lower))) for n in posted
        ]
        assert leapt == second_by_second(spans, times, 600), (times, spans)


def _shown(alert: Posted) -> str:
    name = dict(alert.labels)["name"]
    return name if alert.firing else name.upper()
