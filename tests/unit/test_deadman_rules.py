"""When a switch is new, up, in grace, down: around each boundary, over failures, runs under way and our own outages."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.deadman import rules
from app.deadman.rules import Expectation, Facts, State
from app.policy.language.cron import Cron
from tests.acceptance.world import at

START: Final = at("2026-11-23T12:00")
DAILY: Final = Expectation(timedelta(days=1), timedelta(hours=2))
TICK: Final = timedelta(microseconds=1)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def heard(*signs: Callable[[Facts], None]) -> Facts:
    """A switch that was loaded at START, and what was heard of it since."""
    facts = Facts(START)
    for sign in signs:
        sign(facts)
    return facts


def success(after: float, run: str | None = None) -> Callable[[Facts], None]:
    return lambda facts: rules.succeed(facts, START + hours(after), run)


def start(after: float, run: str | None = None) -> Callable[[Facts], None]:
    return lambda facts: rules.start(facts, START + hours(after), run)


def failure(after: float, run: str | None = None) -> Callable[[Facts], None]:
    return lambda facts: rules.fail(facts, START + hours(after), run)


@pytest.mark.parametrize(
    ("facts", "first", "boundaries"),
    [
        pytest.param(heard(), "new", [(24, "grace"), (26, "down")], id="never heard of: like one that was up"),
        pytest.param(heard(success(1)), "up", [(25, "grace"), (27, "down")], id="heard of once"),
        pytest.param(heard(success(1), success(20)), "up", [(44, "grace"), (46, "down")], id="the newest counts"),
        pytest.param(heard(success(20), success(1)), "up", [(44, "grace"), (46, "down")], id="an older one told later"),
        pytest.param(heard(success(-100)), "new", [(24, "grace"), (26, "down")], id="heard of before it was loaded"),
        pytest.param(heard(success(1), failure(3)), "up", [(3, "down")], id="a failure is down at once"),
        pytest.param(heard(failure(3), success(4)), "up", [(28, "grace"), (30, "down")], id="a success mends it"),
        pytest.param(heard(success(1), start(5)), "up", [(7, "down")], id="a run that does not end within the grace"),
        pytest.param(heard(start(5), success(6)), "up", [(30, "grace"), (32, "down")], id="it ended"),
        pytest.param(heard(start(5, "a"), start(6, "b"), success(6, "b")), "up", [(7, "down")], id="the other did not"),
        pytest.param(heard(start(5, "a"), start(6, "b"), success(6.5)), "up", [(30.5, "grace")], id="no id ends all"),
        pytest.param(heard(start(5, "a"), start(6, "a")), "new", [(7, "down")], id="a start that was told twice"),
        pytest.param(heard(success(1), start(25.5)), "up", [(25, "grace"), (27, "down")], id="a start is no good sign"),
    ],
)
def test_a_state_changes_exactly_at_its_boundary(facts: Facts, first: str, boundaries: list[tuple[float, str]]) -> None:
    before = first
    for after, state in boundaries:
        instant = START + hours(after)
        assert rules.state_at(facts, DAILY, instant - TICK) == before
        assert rules.state_at(facts, DAILY, instant) == state
        before = state
    assert rules.state_at(facts, DAILY, START + timedelta(days=4000)) == "down"


def test_without_a_grace_a_run_that_began_has_no_limit_of_its_own() -> None:
    facts = heard(success(1), start(2))
    assert rules.state_at(facts, Expectation(timedelta(days=1), timedelta(0)), START + hours(25) - TICK) == "up"
    assert rules.state_at(facts, Expectation(timedelta(days=1), timedelta(0)), START + hours(25)) == "down"


def test_a_paused_switch_is_awaited_no_more_and_counts_anew_when_resumed() -> None:
    facts = heard(success(1), start(2), failure(3))
    facts.paused = True
    assert rules.state_at(facts, DAILY, START + hours(100)) == "paused"
    assert rules.next_change(facts, DAILY, START) is None
    rules.resume(facts, START + hours(100))
    assert rules.state_at(facts, DAILY, START + hours(100)) == "new"
    assert rules.down_at(facts, DAILY) == START + hours(126)


def test_a_cron_expectation_is_due_at_its_next_occurrence() -> None:
    weekly = Expectation(Cron("0 3 * * 1", "Europe/Madrid"), hours(12))
    facts = Facts(at("2026-10-19T01:00"))  # Monday 03:00 in Madrid, the very occurrence
    assert rules.due_at(facts, weekly) == at("2026-10-26T02:00")
    rules.succeed(facts, at("2026-10-26T04:00"))
    assert rules.down_at(facts, weekly) == at("2026-11-02T14:00")


# -- our own outages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "down"),
    [
        pytest.param(heard(success(1)), 27 + 5, id="last heard of before the outage: it may come later by that"),
        pytest.param(heard(), 26 + 5, id="not heard of yet"),
        pytest.param(heard(success(12)), 38 + 3, id="heard of after the last look, before our end: it gets the rest"),
        pytest.param(heard(success(15)), 41, id="heard of when we were back: nothing was missed"),
        pytest.param(heard(success(1), start(9)), 11 + 5, id="a run under way may end later"),
        pytest.param(heard(success(1), start(12)), 14 + 3, id="one that began after the last look may, too"),
        pytest.param(heard(start(9, "a"), success(12, "b")), 11 + 5, id="whatever was heard of another run"),
    ],
)
def test_an_outage_of_ours_is_given_to_what_was_awaited_then(facts: Facts, down: float) -> None:
    rules.allow(facts, rules.state_at(facts, DAILY, START + hours(10)), START + hours(10), START + hours(15))
    assert rules.down_at(facts, DAILY) == START + hours(down)


def test_what_was_down_before_an_outage_of_ours_stays_down() -> None:
    facts = heard(success(1))
    rules.allow(facts, State.DOWN, START + hours(30), START + hours(35))
    assert facts.allowance == timedelta(0)
    assert rules.state_at(facts, DAILY, START + hours(30)) == "down"


def test_the_next_good_sign_ends_the_allowance() -> None:
    facts = heard(success(1))
    rules.allow(facts, State.UP, START + hours(10), START + hours(15))
    rules.succeed(facts, START + hours(16))
    assert rules.down_at(facts, DAILY) == START + hours(16 + 26)


@pytest.mark.parametrize(
    ("read", "gap_until", "now", "may"),
    [
        pytest.param(26, None, 26, True, id="Airflow was read at the deadline"),
        pytest.param(25.9, None, 26, False, id="read before it: a run may have ended since"),
        pytest.param(25.9, None, 26 + 40 / 3600, True, id="Airflow does not answer: after 40 s"),
        pytest.param(None, None, 26 + 39 / 3600, False, id="never read, within the 40 s"),
        pytest.param(26, 30, 30, False, id="our outage ended later: read again"),
        pytest.param(30, 30, 30, True, id="read since our outage"),
        pytest.param(26, 30, 30 + 9 / 60, False, id="Airflow comes up after us"),
        pytest.param(26, 30, 30 + 10 / 60, True, id="it does not come up"),
        pytest.param(26, 20, 26, True, id="an outage before the deadline"),
    ],
)
def test_a_retrain_is_given_up_on_a_look_at_airflow(
    read: float | None, gap_until: float | None, now: float, may: bool
) -> None:
    def time(after: float | None) -> datetime | None:
        return None if after is None else START + hours(after)

    interval = timedelta(seconds=10)
    assert rules.may_judge(START + hours(26), time(read), time(gap_until), START + hours(now), interval) is may


def test_a_retrain_whose_airflow_is_read_rarely_waits_for_that_look() -> None:
    deadline, interval = START, timedelta(minutes=15)
    before = START - timedelta(minutes=1)
    for gap_until in (None, START + TICK):
        assert not rules.may_judge(deadline, before, gap_until, START + timedelta(minutes=15, seconds=29), interval)
        assert rules.may_judge(deadline, before, gap_until, START + timedelta(minutes=15, seconds=31), interval)


@pytest.mark.parametrize(
    ("before", "after", "judge", "shown"),
    [
        ("up", State.DOWN, True, "down"),
        ("up", State.DOWN, False, "grace"),
        ("down", State.DOWN, False, "down"),
        ("down", State.UP, False, "up"),
        ("up", State.GRACE, False, "grace"),
    ],
)
def test_a_judgement_that_is_withheld_gives_nothing_up_and_ends_nothing(
    before: str, after: State, judge: bool, shown: str
) -> None:
    assert rules.shown(before, after, judge=judge) == shown


# -- whatever happens ---------------------------------------------------------------------------------------------------

_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["success", "start", "fail", "gap"]), st.integers(0, 60), st.sampled_from([None, "a", "b"])
    ),
    max_size=12,
)
_EXPECTED = st.sampled_from(
    [DAILY, Expectation(Cron("30 2 * * *", "Europe/Madrid"), hours(1)), Expectation(timedelta(days=1), hours(0))]
)


@given(_EVENTS, _EXPECTED)
def test_time_alone_changes_the_state_only_at_the_instants_that_next_change_names(
    events: list[tuple[str, int, str | None]], expected: Expectation
) -> None:
    facts, now = Facts(START), START
    for kind, pause, run in events:
        now += hours(pause)
        match kind:
            case "success":
                rules.succeed(facts, now, run)
                assert rules.state_at(facts, expected, now) != State.NEW
            case "start":
                rules.start(facts, now, run)
            case "fail":
                rules.fail(facts, now, run)
                assert rules.state_at(facts, expected, now) == State.DOWN
            case "gap":
                state = rules.state_at(facts, expected, now)
                rules.allow(facts, state, now, now + hours(7))
                now += hours(7)
                assert (state == State.DOWN) == (rules.state_at(facts, expected, now) == State.DOWN)
    order = [State.NEW, State.UP, State.GRACE, State.DOWN]
    for _ in range(4):
        change = rules.next_change(facts, expected, now)
        if change is None:
            break
        assert rules.state_at(facts, expected, change - TICK) == rules.state_at(facts, expected, now)
        before, now = rules.state_at(facts, expected, now), change
        assert order.index(rules.state_at(facts, expected, now)) >= order.index(before)
    assert rules.next_change(facts, expected, now) is None
    assert rules.state_at(facts, expected, now) == State.DOWN
