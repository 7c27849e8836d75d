"""The facts of a group: what clears it, what wakes it, and how a fire, an end, a reset and a redrive are booked."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.decide import facts
from app.decide.state import DEAD, FAILED, GONE, LOST, SUCCESS, Group
from app.policy.schema import Route
from tests.unit.builders import DAY, HOUR, MINUTE, NOW, episode, group, route
from tests.unit.test_rules import BROKEN, DAILY, EPSILON, FIRED, HELD, OPEN, SLOW, T1, T2


@pytest.mark.parametrize(
    ("failures", "backoff", "cooldown", "pause"),
    [
        (1, 30 * MINUTE, DAY, 30 * MINUTE),
        (2, 30 * MINUTE, DAY, HOUR),
        (3, 30 * MINUTE, DAY, 2 * HOUR),
        (6, 30 * MINUTE, DAY, 16 * HOUR),
        (7, 30 * MINUTE, DAY, DAY),
        (1000, 30 * MINUTE, DAY, DAY),
        (10**9, timedelta(seconds=1), 1000 * DAY, 1000 * DAY),
        (0, 30 * MINUTE, DAY, 30 * MINUTE),
        (1, 2 * HOUR, HOUR, 2 * HOUR),
        (5, 2 * HOUR, HOUR, 2 * HOUR),
        (5, 2 * HOUR, timedelta(0), 2 * HOUR),
        (5, timedelta(0), DAY, timedelta(0)),
        (1000, timedelta(0), timedelta(0), timedelta(0)),
    ],
)
def test_the_backoff_doubles_and_never_passes_the_longer_of_cooldown_and_backoff(
    failures: int, backoff: timedelta, cooldown: timedelta, pause: timedelta
) -> None:
    assert facts.backoff(failures, route(failure_backoff=backoff, cooldown=cooldown)) == pause


@pytest.mark.parametrize(
    ("known", "wake"),
    [
        ({}, None),
        (HELD, NOW - 4 * MINUTE + 10 * MINUTE),
        (OPEN, None),
        (FIRED, NOW - HOUR + DAY),
        (FIRED | {"accepted_at": NOW}, NOW + DAY),
        (BROKEN, NOW + 20 * MINUTE),
        (FIRED | {"reset_at": NOW}, None),
    ],
    ids=["nothing known", "held", "in flight", "cooling", "accepted later", "backing off", "reset"],
)
def test_a_group_wakes_when_what_stands_in_its_way_ends(known: dict[str, Any], wake: datetime | None) -> None:
    assert facts.wake_at(group(**known), SLOW) == wake


@pytest.mark.parametrize(
    ("silence", "stale"),
    [(timedelta(0), False), (6 * HOUR, False), (6 * HOUR + EPSILON, True), (-MINUTE, False)],
    ids=["just heard", "to the very end", "an instant longer", "a clock behind"],
)
def test_an_alert_not_heard_of_for_stale_after_counts_no_more(silence: timedelta, stale: bool) -> None:
    assert facts.is_stale(episode(last_seen_at=NOW - silence), DAILY, NOW) is stale


def test_only_a_held_group_has_an_end_of_its_hold() -> None:
    with pytest.raises(ValueError, match="is not held"):
        facts.held_until(group(**OPEN), SLOW)


def facts_of(known: Group) -> tuple[Any, ...]:
    return known.outcome, known.failures, known.ended_at, known.wake_at


@pytest.mark.parametrize(
    ("outcome", "counted", "failures", "wake"),
    [
        (SUCCESS, False, 0, NOW - HOUR + DAY),
        (SUCCESS, True, 0, NOW - HOUR + DAY),
        (FAILED, False, 3, NOW + 2 * HOUR),
        (FAILED, True, 2, NOW + HOUR),
        (GONE, False, 3, NOW + 2 * HOUR),
        (DEAD, False, 3, NOW + 2 * HOUR),
    ],
    ids=["success", "lost, then success", "failed", "lost, then failed", "gone", "dead"],
)
def test_an_end_books_outcome_failures_and_the_next_look(
    outcome: str, counted: bool, failures: int, wake: datetime
) -> None:
    known = group(fired_at=NOW - HOUR, last_trigger=T1, failures=2)
    facts.record_end(known, outcome, DAILY, NOW, counted=counted)
    assert facts_of(known) == (outcome, failures, NOW, wake)


@pytest.mark.parametrize("wake", [NOW + MINUTE, NOW - MINUTE], ids=["earlier", "due already"])
def test_an_end_keeps_an_earlier_look(wake: datetime) -> None:
    known = group(fired_at=NOW - HOUR, last_trigger=T1, wake_at=wake)
    facts.record_end(known, SUCCESS, DAILY, NOW)
    assert known.wake_at == wake


def test_a_lost_run_stays_in_flight_and_is_not_woken() -> None:
    known = group(**OPEN)
    facts.record_end(known, LOST, DAILY, NOW)
    assert facts_of(known) == (LOST, 1, NOW, None)


def test_a_lost_run_is_a_failure_and_its_end_is_no_second_one() -> None:
    known = group(**OPEN, failures=2)
    assert facts.lose(known, T1, DAILY, NOW)
    assert (known.outcome, known.failures) == (LOST, 3)
    assert facts.end(known, T1, FAILED, DAILY, NOW + HOUR, counted=True)
    assert (known.outcome, known.failures) == (FAILED, 3)


def test_the_loss_of_a_run_that_is_not_the_groups_open_one_changes_nothing() -> None:
    known = group(**OPEN)
    assert not facts.lose(known, T2, DAILY, NOW)
    assert (known.outcome, known.failures, known.open_trigger) == (None, 0, T1)


@pytest.mark.parametrize("chosen", [None, route(cooldown=timedelta(0))], ids=["no route any more", "no cooldown"])
def test_without_anything_to_wait_for_the_group_is_looked_at_at_once(chosen: Route | None) -> None:
    known = group(fired_at=NOW - HOUR, last_trigger=T1)
    facts.record_end(known, SUCCESS, chosen, NOW)
    assert known.wake_at == NOW


def test_a_fire_takes_the_facts_of_the_trigger_before_it_away_but_not_the_failures() -> None:
    known = group(**BROKEN, accepted_at=NOW - HOUR, held_since=NOW, wake_at=NOW, reset_at=NOW)
    facts.fire(known, T2, "release", NOW)
    assert known == group(open_trigger=T2, last_trigger=T2, fired_at=NOW, failures=1, on_failure="release")


def test_a_reset_frees_one_fire_even_when_all_happens_in_one_instant() -> None:
    known = group(**FIRED)
    facts.reset(known, NOW)
    assert (known.wake_at, facts.clear_at(known, DAILY)) == (NOW, None)
    facts.fire(known, T2, "release", NOW)
    known.open_trigger = None
    assert facts.clear_at(known, DAILY) == NOW + DAY


def test_a_reset_wakes_no_group_whose_trigger_is_open() -> None:
    known = group(**OPEN, failures=4)
    facts.reset(known, NOW)
    assert (known.wake_at, known.failures) == (None, 0)


@pytest.mark.parametrize(
    ("known", "trigger", "until"),
    [
        (BROKEN | {"outcome": DEAD}, T1, None),
        (FIRED, T2, NOW + 23 * HOUR),
        (BROKEN, T2, NOW + 20 * MINUTE),
        (FIRED | {"reset_at": NOW}, T2, None),
        (FIRED | {"fired_at": NOW - DAY}, T2, None),
    ],
    ids=["its own death", "a newer success", "a newer failure", "reset", "the newer one's cooldown is over"],
)
def test_a_redrive_waits_for_newer_triggers_and_not_for_its_own_death(
    known: dict[str, Any], trigger: UUID, until: datetime | None
) -> None:
    assert facts.redrive_at(group(**known), trigger, DAILY, NOW) == until
