"""What a history of live says about another policy: answers to its own questions, and runs without live's waits."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from app.policy.file.load import parse_policy
from app.policy.schema import Policy
from app.replay.history import LiveRun, Reloaded
from app.replay.runs import without_waits
from tests.unit.builders import HOUR, MINUTE, NOW, policy
from tests.unit.histories import answer, fires, line

NO_TIME = timedelta(0)
CONFIRM = {"prometheus": "http://prometheus:9090", "query": "x < 1", "on_error": "suppress"}


def asking(**changed: str) -> Policy:
    return policy(confirm={**CONFIRM, **changed})


@pytest.mark.parametrize(
    ("confirmed", "changed", "retrains", "unknown"),
    [
        (True, {}, 1, False),
        (False, {}, 0, False),
        (True, {"on_error": "fire"}, 1, False),
        (True, {"query": "y < 1"}, 0, True),
        (False, {"query": "y < 1", "on_error": "fire"}, 1, True),
        (True, {"prometheus": "http://other:9090"}, 0, True),
        (None, {}, 0, False),
        (None, {"on_error": "fire"}, 1, False),
    ],
)
def test_an_answer_of_prometheus_counts_for_the_question_that_live_asked(
    confirmed: bool | None, changed: dict[str, str], retrains: int, unknown: bool
) -> None:
    group = {"route": "accuracy", "group": {"model": "churn"}}
    noted = [line(timedelta(seconds=s), "gateway.confirm", group | {"confirmed": confirmed}) for s in (0, 60, 120)]
    lines = [line(NO_TIME, "gateway.policy", {"text": asking().text}), *fires("churn", NO_TIME, 4 * MINUTE), *noted]
    found = answer(lines, None, asking(**changed)).as_json()
    assert found["proposed"]["retrains"] == retrains
    assert bool(found["proposed"]["not_evaluable"]) is unknown


def capped(places: int | None) -> Policy:
    more = f", max_parallel: {places}" if places else ""
    text = policy(cooldown=HOUR).text.replace("'http://airflow.test'}", f"'http://airflow.test'{more}}}")
    return parse_policy(text, "policy.yaml", {})


def run(fired: int, accepted: int, ended: int | None, **more: Any) -> LiveRun:
    """A live run; times in minutes."""
    at: list[datetime | None] = [
        NOW + minutes * MINUTE if minutes is not None else None for minutes in (accepted, ended)
    ]
    return LiveRun("accuracy", {"model": str(fired)}, NOW + fired * MINUTE, at[0], at[1], "success", **more)


FIRST = run(0, 0, 20)
CASES: dict[str, tuple[list[LiveRun], int | None, list[int]]] = {
    "it waited for the only place": ([FIRST, run(1, 20, 40)], 1, [0, 1]),
    "and so did the third, behind the second": ([FIRST, run(1, 20, 40), run(2, 40, 60)], 1, [0, 1, 2]),
    "there were two places": ([FIRST, run(1, 20, 40)], 2, [0, 20]),
    "there was no cap": ([FIRST, run(1, 20, 40)], None, [0, 20]),
    "the place was free for long, so Airflow was away": ([FIRST, run(1, 30, 50)], 1, [0, 30]),
    "the first has no end yet": ([run(0, 0, None)], 1, [0]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_live_run_that_waited_for_a_place_could_have_begun_at_once(case: str) -> None:
    runs, places, begun = CASES[case]
    found = without_waits(runs, [Reloaded(NOW, capped(places))])
    assert [each.accepted_at for each in found] == [NOW + minutes * MINUTE for minutes in begun]
    lengths = [
        [each.ended_at - each.accepted_at for each in some if each.ended_at and each.accepted_at]
        for some in (runs, found)
    ]
    assert lengths[0] == lengths[1], "a run keeps its length"


def test_without_a_policy_that_is_known_every_wait_stays() -> None:
    runs = [FIRST, run(1, 20, 40)]
    assert without_waits(runs, []) == runs
