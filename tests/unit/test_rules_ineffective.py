"""The place of `ineffective` among the reasons: after cooldown, before limit. And what counts as a row without effect."""

from datetime import timedelta
from typing import Any

import pytest

from app.decide import rules
from app.decide.drift import Firing
from app.decide.facts import reset
from app.decide.state import Group, Reason, RunRequest
from app.effects.streak import is_over, streak
from tests.unit.builders import DAY, HOUR, NOW, episode, group, route

HOLD = route(on_no_effect={"after": 2, "then": "hold"}, limit={"triggers": 1, "per": "1d"})
FULL = rules.Obstacles([NOW - HOUR], rules.Mute("somebody", None))


def vain(count: int = 2, under: str = HOLD.digest, **more: Any) -> Group:
    long_ago = NOW - 9 * DAY
    facts: dict[str, Any] = {
        "fired_at": long_ago,
        "accepted_at": long_ago,
        "ended_at": long_ago,
        "outcome": "success",
    } | more
    return group(ineffective=count, ineffective_since=long_ago, ineffective_under=under, **facts)


ROWS = [
    ("a run in flight comes first", vain(open_trigger=episode().id), Reason.IN_FLIGHT),
    ("the cooldown comes first", vain(fired_at=NOW - HOUR), Reason.COOLDOWN),
    ("it comes before limit and mute", vain(), Reason.INEFFECTIVE),
    ("more than enough", vain(9), Reason.INEFFECTIVE),
    ("one too few", vain(1), Reason.LIMIT),
    ("under another entry", vain(under="another"), Reason.LIMIT),
]


@pytest.mark.parametrize(("facts", "reason"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_it_has_its_place_among_the_reasons(facts: Group, reason: Reason) -> None:
    decision = rules.decide(facts, episode(), HOLD, NOW, FULL)
    assert decision.reason is reason
    if reason is Reason.INEFFECTIVE:
        assert decision.until is None


def test_to_tell_stops_nothing_and_a_reset_ends_it() -> None:
    telling = route(on_no_effect={"after": 2, "then": "tell"})
    assert rules.decide(vain(under=telling.digest), episode(), telling, NOW).reason is Reason.NEW_ALERT
    released = vain()
    reset(released, NOW)
    assert rules.decide(released, episode(), HOLD, NOW).reason is Reason.NEW_ALERT


@pytest.mark.parametrize("force", [False, True])
def test_a_request_obeys_it_unless_it_is_forced(force: bool) -> None:
    request = RunRequest(Reason.FORCED if force else Reason.MANUAL, "ana", "new data", {}, force)
    decision = rules.decide_request(vain(), HOLD, request, NOW)
    assert decision.reason is (Reason.FORCED if force else Reason.INEFFECTIVE)


STREAKS = [
    ([], 0),
    (["recurred", "no_model", "not_promoted"], 3),
    (["recurred", "fixed", "recurred"], 1),
    (["fixed", "recurred"], 0),
    (["failed", "recurred", "unknown", "recurred"], 2),
    (["recurred", "other", "recurred"], 1),
]


@pytest.mark.parametrize(("effects", "count"), STREAKS)
def test_retrains_in_a_row_count_from_the_newest(effects: list[str], count: int) -> None:
    rows = [(NOW - timedelta(days=i), effect, "x" if effect == "other" else "d") for i, effect in enumerate(effects)]
    found = streak(((at, "recurred" if effect == "other" else effect, under) for at, effect, under in rows), "d")
    assert found[0] == count


def _fired(begin: timedelta, end: timedelta | None, heard: timedelta) -> Firing:
    ended = NOW + end if end is not None else None
    return Firing("Drift", NOW + begin, ended, NOW + heard, ended)


#: Prometheus was restarted: the alert began anew, and nobody sends an end of the earlier one.
REPLACED = Firing("Drift", NOW - HOUR, None, NOW, NOW + HOUR, replaced=True)


OVER = [
    ("its alerts ended, and watch is over", [_fired(-HOUR, HOUR, HOUR)], True),
    ("it fires", [_fired(-HOUR, None, 9 * DAY)], False),
    ("it went silent: nobody heard its end", [_fired(-HOUR, None, HOUR)], False),
    ("it began anew, and ended", [REPLACED, _fired(HOUR, 2 * HOUR, 2 * HOUR)], True),
    ("it began anew, and fires", [REPLACED, _fired(HOUR, None, 9 * DAY)], False),
    ("it began anew, and went silent", [REPLACED, _fired(HOUR, None, 2 * HOUR)], False),
    ("another began within watch", [_fired(-HOUR, HOUR, HOUR), _fired(3 * DAY, None, 9 * DAY)], False),
    ("another began after watch", [_fired(-HOUR, HOUR, HOUR), _fired(8 * DAY, None, 9 * DAY)], True),
    ("another began after one went silent", [_fired(-HOUR, None, HOUR), _fired(8 * DAY, None, 9 * DAY)], False),
]


@pytest.mark.parametrize(("alerts", "over"), [row[1:] for row in OVER], ids=[row[0] for row in OVER])
def test_the_drift_is_over_when_each_end_was_heard_and_none_began_within_watch(
    alerts: list[Firing], over: bool
) -> None:
    assert is_over(alerts, NOW, 7 * DAY, 6 * HOUR, NOW + 9 * DAY) is over
