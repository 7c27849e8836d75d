"""Backoff, deadlines and the breaker of delivery: pure, so without a clock and without a database."""

import random
from datetime import timedelta
from uuid import UUID

import pytest

from app.kit.outbox.model import LONGEST_GAP, Breaker, Item, Retry, backoff, spent
from tests.sizes import seed, size
from tests.unit.builders import HOUR, NOW, uid

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("attempts", "longest", "bound"),
    [
        (1, 60, 2),
        (2, 60, 4),
        (5, 60, 32),
        (6, 60, 60),
        (7, 60, 60),
        (10_000, 60, 60),
        (10_000, 1e9, 2**20),
        (3, 0.5, 0.5),
    ],
)
def test_a_pause_is_anywhere_below_a_bound_that_doubles(attempts: int, longest: float, bound: float) -> None:
    chance = random.Random(seed())
    pauses = [backoff(attempts, longest, chance).total_seconds() for _ in range(size(300, 10_000))]
    assert min(pauses) >= 0.1
    assert max(pauses) <= bound
    assert max(pauses) > 0.8 * bound
    assert min(pauses) < 0.1 + 0.2 * bound


def item(answered_ago: timedelta | None, used: float = 100.0) -> Item:
    answered = None if answered_ago is None else NOW - answered_ago
    return Item(uid(1), "airflow.dag_run", "airflow:default", {}, NOW - HOUR, uid(2), 3, False, answered, used)


@pytest.mark.parametrize(
    ("known", "outcome", "seconds"),
    [
        (item(30 * SECOND), Retry("missing", ""), 130.0),
        (item(None), Retry("missing", ""), 100.0),
        (item(30 * SECOND), Retry("timeout", "", answered=False), 100.0),
        (item(30 * SECOND), Retry("dag_paused", "", waits=True), 100.0),
        (item(-30 * SECOND), Retry("missing", ""), 100.0),
        (item(timedelta(0), 0.0), Retry("missing", ""), 0.0),
        (item(9 * HOUR), Retry("missing", ""), 100.0 + LONGEST_GAP),
    ],
    ids=[
        "between two answers",
        "the first answer after silence",
        "no answer",
        "a paused DAG",
        "a clock behind",
        "at once",
        "a gateway that was off for the night",
    ],
)
def test_a_deadline_is_used_up_only_between_two_answers(known: Item, outcome: Retry, seconds: float) -> None:
    assert spent(known, outcome, NOW) == seconds


def test_a_night_without_an_answer_costs_nothing_of_the_deadline() -> None:
    before = item(None, 0.0)
    assert spent(before, Retry("unreachable", "", answered=False), NOW + 9 * HOUR) == 0.0
    assert spent(before, Retry("missing", ""), NOW + 9 * HOUR) == 0.0


# -- the breaker -----------------------------------------------------------------------------------------------------


def test_a_well_target_takes_as_many_as_one_round_has() -> None:
    breaker = Breaker(60)
    assert (breaker.allows(NOW, 8), breaker.is_open) == (8, False)
    breaker.answered(1, 8)
    assert breaker.allows(NOW, 8) == 8


def test_one_failure_opens_it_for_a_while_and_then_one_item_may_try() -> None:
    breaker = Breaker(60)
    breaker.failed(NOW)
    assert breaker.is_open
    assert [breaker.allows(NOW + after * SECOND, 8) for after in (0, 1, 2, 100)] == [0, 0, 1, 1]


def test_each_failure_doubles_the_pause_up_to_the_longest() -> None:
    breaker, pauses = Breaker(60), []
    for _ in range(8):
        breaker.failed(NOW)
        pauses.append(next(s for s in range(100) if breaker.allows(NOW + s * SECOND, 8)))
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("asked", "pause"), [(None, 2), (0.5, 2), (30.0, 30), (3600.0, 3600)])
def test_it_leaves_a_target_alone_for_as_long_as_that_asks(asked: float | None, pause: int) -> None:
    breaker = Breaker(60)
    breaker.failed(NOW, asked)
    assert breaker.allows(NOW + pause * SECOND - timedelta(milliseconds=1), 8) == 0
    assert breaker.allows(NOW + pause * SECOND, 8) == 1


def test_a_target_that_is_back_gets_twice_as_many_a_round() -> None:
    breaker, rounds = Breaker(60), []
    breaker.failed(NOW)
    for _ in range(5):
        allowed = breaker.allows(NOW + 2 * SECOND, 8)
        rounds.append(allowed)
        breaker.answered(allowed, 8)
    assert (rounds, breaker.is_open) == ([1, 2, 4, 8, 8], False)


def test_a_target_that_falls_again_while_it_recovers_starts_from_one() -> None:
    breaker = Breaker(60)
    breaker.failed(NOW)
    breaker.answered(1, 8)
    breaker.answered(1, 8)
    breaker.failed(NOW)
    assert breaker.allows(NOW, 8) == 0
    assert breaker.allows(NOW + 2 * SECOND, 8) == 1
    breaker.answered(1, 8)
    assert breaker.allows(NOW, 8) == 2


def test_an_answer_forgets_the_failures_in_a_row() -> None:
    breaker = Breaker(60)
    for _ in range(5):
        breaker.failed(NOW)
    breaker.answered(1, 8)
    breaker.failed(NOW)
    assert breaker.allows(NOW + 2 * SECOND, 8) == 1


def test_a_round_of_one_item_needs_no_ramp() -> None:
    breaker = Breaker(60)
    breaker.failed(NOW)
    breaker.answered(1, 1)
    assert breaker.allows(NOW, 1) == 1


# -- one item, or the target -----------------------------------------------------------------------------------------

POISON, WELL, OTHER = uid(11), uid(12), uid(13)
#: Rounds of (answered, silent), and whether the breaker blames POISON for its own failures afterwards.
ROUNDS = {
    "alone since ever: that may be an outage": ([({}, {POISON})], False),
    "the target answered another item later": ([({}, {POISON}), ({WELL}, {})], True),
    "the target answered another item in the same round": ([({WELL}, {POISON})], True),
    "the target answered another item before": ([({WELL}, {}), ({}, {POISON})], False),
    "another item gets no answer either: an outage again": ([({}, {POISON}), ({WELL}, {}), ({}, {OTHER})], False),
    "and that other one was answered in the end": ([({}, {POISON}), ({WELL}, {}), ({}, {OTHER}), ({OTHER}, {})], True),
    "it was answered itself": ([({}, {POISON}), ({WELL}, {}), ({POISON}, {})], False),
}


@pytest.mark.parametrize(("rounds", "blamed"), ROUNDS.values(), ids=ROUNDS)
def test_an_item_is_blamed_when_the_target_answered_others_since_it_failed_first(
    rounds: list[tuple[set[UUID], set[UUID]]], blamed: bool
) -> None:
    breaker = Breaker(60)
    for answered, silent in rounds:
        breaker.remember(answered, silent)
    assert breaker.blames(POISON) is blamed


def test_an_item_that_was_never_tried_does_not_wait_for_the_end_of_a_long_pause() -> None:
    breaker = Breaker(60)
    for _ in range(8):
        breaker.failed(NOW)
    assert [breaker.allows(NOW + after * SECOND, 8) for after in (2, 59, 60)] == [0, 0, 1]
    assert [breaker.allows_new(NOW + after * SECOND) for after in (0, 1, 2)] == [False, False, True]
    breaker.failed(NOW + 2 * SECOND, new=True)
    assert not breaker.allows_new(NOW + 3 * SECOND)
    assert breaker.allows(NOW + 60 * SECOND, 8) == 1, "many new items do not make the others wait longer"
    breaker.failed(NOW, 30.0)
    assert not breaker.allows_new(NOW + 29 * SECOND), "the target asked to be left alone"
    breaker.answered(1, 8)
    assert not breaker.is_open
