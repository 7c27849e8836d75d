"""The breaker: callers stop asking at once, and the looks grow rarer."""

import pytest

from mlflow_spool.breaker import FIRST, LONGEST, Breaker


class Seconds:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def breaker(seconds: Seconds) -> Breaker:
    return Breaker(seconds, choose=lambda low, high: high)


def test_it_is_closed_until_a_failure_and_again_after_a_success(breaker: Breaker) -> None:
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    breaker.succeeded()
    assert (breaker.is_open, breaker.wait()) == (False, 0.0)


def test_periods_double_up_to_the_longest(breaker: Breaker, seconds: Seconds) -> None:
    waits = []
    for _ in range(9):
        breaker.failed()
        waits.append(breaker.wait())
        seconds.at += breaker.wait()
    assert waits[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert waits[-1] == LONGEST


def test_many_callers_that_find_out_together_count_as_one(breaker: Breaker) -> None:
    for _ in range(5):
        breaker.failed()
    assert breaker.wait() == FIRST


def test_it_stays_open_when_its_period_is_over_until_something_succeeds(breaker: Breaker, seconds: Seconds) -> None:
    breaker.failed()
    seconds.at += 1000
    assert (breaker.is_open, breaker.wait()) == (True, 0.0)


@pytest.mark.parametrize(("asked", "waited"), [(None, FIRST), (1.0, FIRST), (20.0, 20.0), (9999.0, LONGEST)])
def test_retry_after_is_honoured_within_reason(breaker: Breaker, asked: float | None, waited: float) -> None:
    breaker.failed(asked)
    assert breaker.wait() == waited


def test_periods_are_jittered(seconds: Seconds) -> None:
    asked: list[tuple[float, float]] = []

    def choose(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    Breaker(seconds, choose).failed()
    assert asked == [(FIRST / 2, FIRST)]
