"""`backtest --check` on histories in a few lines: what is alike, and what is named as a difference."""

from datetime import timedelta
from typing import Any

import pytest

from app.replay.check import Checked, check
from app.replay.replay import REORDER
from tests.unit.builders import HOUR, MINUTE, NOW
from tests.unit.histories import alert, line, read

SECOND = timedelta(seconds=1)
POLICY = """
version: 1
airflow: [{name: default, url: "http://127.0.0.1:8080"}]
routes:
  - {name: accuracy, match: ['alertname="ModelAccuracyLow"'], group_by: [model], cooldown: 1h, %s dag: {id: retrain}}
"""


def fired(after: timedelta, reason: str = "new_alert", **more: Any) -> str:
    """A run of churn, of which Airflow took care within a second and twenty minutes."""
    accepted, ended = NOW + after + SECOND, NOW + after + 20 * MINUTE
    times = {"accepted_at": accepted.isoformat(), "ended_at": ended.isoformat(), "outcome": "success"}
    return line(
        after, "gateway.run", {"route": "accuracy", "group": {"model": "churn"}, "reason": reason} | times | more
    )


def firing(*after: timedelta) -> list[str]:
    """Notifications of an alert of churn that fires on."""
    return [line(at, "alertmanager", {"version": "4", "alerts": [alert("churn", timedelta(0))]}) for at in after]


def policy(more: str = "", after: timedelta = timedelta(0)) -> str:
    return line(after, "gateway.policy", {"text": POLICY % more})


def checked(lines: list[str], until: timedelta | None = None) -> Checked:
    return check(read(lines), None, NOW + until if until is not None else None, REORDER)


def test_fires_at_the_same_moment_for_the_same_reason_are_alike() -> None:
    lines = [policy(), *firing(timedelta(0)), fired(timedelta(0)), fired(HOUR + SECOND, "still_firing")]
    assert checked(lines).as_text().startswith("2 of 2 alike\n")


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([], "accuracy churn 2026-11-23T12:00:00Z: only the replay fires (new_alert)"),
        ([fired(timedelta(0), "forced")], "live fired with forced, the replay with new_alert"),
        ([fired(timedelta(0)), fired(30 * MINUTE)], "accuracy churn 2026-11-23T12:30:00Z: only live fired (new_alert)"),
        ([fired(2 * MINUTE)], "only live fired"),
    ],
)
def test_a_difference_is_named(runs: list[str], words: str) -> None:
    found = checked([policy(), *firing(timedelta(0)), *runs], 40 * MINUTE)
    assert words in found.as_text()
    assert found.as_json()["fires"] - found.as_json()["alike"] == len(found.differences) > 0


@pytest.mark.parametrize("mode", ["live", "shadow"])
def test_a_live_gateway_that_is_always_a_little_late_is_alike_for_ever(mode: str) -> None:
    late = [number * (HOUR + 3 * SECOND) for number in range(100)]
    runs = [fired(after, "still_firing" if after else "new_alert", mode=mode) for after in late]
    if mode == "live":  # The cooldown counts from the acceptance, a second later.
        runs = [fired(number * (HOUR + 4 * SECOND), "still_firing" if number else "new_alert") for number in range(100)]
    found = checked([policy(f"mode: {mode}, stale_after: 30d,"), *firing(timedelta(0)), *runs])
    assert found.as_text().startswith("100 of 100 alike\n")


def test_a_gateway_that_starts_asks_prometheus_early_and_the_replay_does_too() -> None:
    def answered(after: timedelta, *, confirmed: bool) -> str:
        body = {"route": "accuracy", "group": {"model": "churn"}, "confirmed": confirmed}
        return line(after, "gateway.confirm", body)

    confirm = "confirm: {prometheus: 'http://prometheus.test', query: up},"
    answers = [answered(timedelta(0), confirmed=False), answered(2 * MINUTE, confirmed=True)]
    found = checked([policy(confirm), *firing(timedelta(0)), *answers, fired(2 * MINUTE)], 40 * MINUTE)
    assert found.as_text().startswith("1 of 1 alike\n")
    assert found.pairs[0].replayed is not None
    assert found.pairs[0].replayed.at == NOW + 2 * MINUTE


def test_a_run_from_before_the_first_known_policy_still_cools_down() -> None:
    lines = [policy(after=30 * MINUTE), fired(timedelta(0)), *firing(31 * MINUTE), fired(HOUR + SECOND)]
    found = checked(lines)
    assert found.as_text().startswith("1 of 1 alike\n")
    assert found.since == NOW + 30 * MINUTE


def test_nothing_is_decided_while_no_gateway_runs_and_a_hold_is_longer_by_that_time() -> None:
    out = line(5 * MINUTE, "gateway.outage", {"until": (NOW + 3 * HOUR).isoformat()})
    lines = [policy("debounce: 10m,"), *firing(timedelta(0)), out, fired(3 * HOUR + 5 * MINUTE)]
    assert checked(lines).as_text().startswith("1 of 1 alike\n")
    out = line(30 * MINUTE, "gateway.outage", {"until": (NOW + 3 * HOUR).isoformat()})
    lines = [policy(), *firing(timedelta(0)), fired(timedelta(0)), out, fired(3 * HOUR + SECOND, "still_firing")]
    assert checked(lines).as_text().startswith("2 of 2 alike\n")


@pytest.mark.parametrize("then", ["hold", "tell"])
def test_a_group_that_retraining_did_not_help_is_held_as_live_held_it(then: str) -> None:
    def ineffective(after: timedelta, *, holds: bool) -> str:
        return line(after, "gateway.ineffective", {"route": "accuracy", "group": {"model": "churn"}, "holds": holds})

    known = [ineffective(30 * MINUTE, holds=True), ineffective(5 * HOUR, holds=False)]
    later = [fired(5 * HOUR, "still_firing")] if then == "hold" else []
    later += [fired(number * (HOUR + SECOND), "still_firing") for number in range(1, 6)] if then == "tell" else []
    rule = f"on_no_effect: {{after: 1, then: {then}}},"
    found = checked([policy(rule), *firing(timedelta(0)), fired(timedelta(0)), *known, *later], 5 * HOUR + MINUTE)
    assert (len(found.pairs), found.differences) == (1 + len(later), []), found.as_text()
