"""The replay: time over the pure engine, and DAG runs that go on as live ones did or as is assumed."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from app.decide.rules import Pause
from app.decide.state import DEAD, FAILED, SUCCESS, Action, Reason, RunRequest
from app.kit.errors import UsageError
from app.policy.file.load import parse_policy
from app.replay.history import (
    Asked,
    Cancelled,
    Event,
    Heard,
    Ineffective,
    Lifted,
    LiveAnswer,
    LiveRun,
    Paused,
    Redriven,
    Reloaded,
    Reset,
)
from app.replay.replay import MOST_RUNS, Replay, Terms
from app.replay.runs import Run, Runs
from tests.unit.builders import DAY, HOUR, MINUTE, NOW, firing, policy, resolved

CHURN = {"model": "churn"}


def replay(length: timedelta = 40 * MINUTE, live: tuple[LiveRun, ...] = (), **options: Any) -> Replay:
    return Replay(policy(**options), NOW, Terms(runs=Runs(live, length)))


def begun(known: Replay) -> list[timedelta]:
    return [run.fired_at - NOW for run in known.runs]


def shown(run: Run) -> tuple[timedelta | None, timedelta | None, str | None]:
    def after(time: datetime | None) -> timedelta | None:
        return time - NOW if time is not None else None

    return after(run.accepted_at), after(run.ended_at), run.outcome


def test_each_thing_that_is_due_happens_at_its_moment() -> None:
    known = replay(debounce=10 * MINUTE, cooldown=DAY, stale_after=10 * DAY)
    known.take([firing("a")], NOW)
    known.run_to(NOW + 3 * DAY)
    # Each cooldown counts from the fire: the run is accepted at once.
    assert begun(known) == [10 * MINUTE, 10 * MINUTE + DAY, 10 * MINUTE + 2 * DAY]
    assert [run.reason for run in known.runs] == ["new_alert", "still_firing", "still_firing"]
    assert shown(known.runs[0]) == (10 * MINUTE, 50 * MINUTE, SUCCESS)


def test_an_alert_that_ends_while_it_is_held_starts_nothing() -> None:
    known = replay(debounce=10 * MINUTE)
    known.take([firing("a")], NOW)
    known.take([resolved("a", NOW + 9 * MINUTE, NOW)], NOW + 9 * MINUTE)
    known.run_to(NOW + DAY)
    assert known.runs == []


def test_what_is_due_in_the_moment_of_a_notification_happens_before_it() -> None:
    known = replay(debounce=10 * MINUTE)
    known.take([firing("a")], NOW)
    known.take([resolved("a", NOW + 10 * MINUTE, NOW)], NOW + 10 * MINUTE)
    assert begun(known) == [10 * MINUTE]


LIVE = {
    "its end": (LiveRun("accuracy", CHURN, NOW, NOW + MINUTE, NOW + HOUR, SUCCESS), (MINUTE, HOUR, SUCCESS)),
    "its failure": (LiveRun("accuracy", CHURN, NOW, NOW, NOW + HOUR, FAILED), (timedelta(0), HOUR, FAILED)),
    "its death": (LiveRun("accuracy", CHURN, NOW, None, NOW + HOUR, DEAD), (None, HOUR, DEAD)),
    "that it goes on": (LiveRun("accuracy", CHURN, NOW, NOW), (timedelta(0), None, None)),
    "that Airflow never took it": (LiveRun("accuracy", CHURN, NOW), (None, None, None)),
}


@pytest.mark.parametrize("name", LIVE)
def test_a_run_that_live_started_too_has(name: str) -> None:
    live, expected = LIVE[name]
    known = replay(live=(live,), cooldown=3 * DAY, failure_backoff=3 * DAY)
    known.take([firing("a")], NOW)
    known.run_to(NOW + DAY - MINUTE)
    assert shown(known.runs[0]) == expected
    assert known.runs[0].measured


def test_a_run_that_live_did_not_start_takes_the_median_of_its_routes_successes() -> None:
    ends = (30 * MINUTE, 40 * MINUTE, 3 * HOUR)
    live = [LiveRun("accuracy", {"model": m}, NOW, NOW, NOW + e, SUCCESS) for m, e in zip("abc", ends, strict=True)]
    live.append(LiveRun("accuracy", {"model": "d"}, NOW, NOW, NOW + MINUTE, FAILED))
    known = Replay(policy(), NOW, Terms(runs=Runs(live)))
    known.take([firing("a")], NOW)
    known.run_to(NOW + HOUR)
    assert shown(known.runs[0]) == (timedelta(0), 40 * MINUTE, SUCCESS)
    assert not known.runs[0].measured


def test_a_failed_run_releases_its_cooldown_and_each_failure_doubles_the_backoff() -> None:
    live = tuple(
        LiveRun("accuracy", CHURN, NOW + at, NOW + at, NOW + at + MINUTE, FAILED)
        for at in (timedelta(0), 31 * MINUTE, 92 * MINUTE)
    )
    known = replay(live=live, cooldown=DAY, failure_backoff=30 * MINUTE)
    known.take([firing("a")], NOW)
    known.run_to(NOW + 2 * HOUR)
    assert begun(known) == [timedelta(0), 31 * MINUTE, 92 * MINUTE]


def test_a_run_that_takes_longer_than_its_timeout_counts_as_lost_and_its_group_stays_in_flight() -> None:
    known = replay(length=5 * HOUR, run_timeout=HOUR, cooldown=2 * HOUR, failure_backoff=MINUTE)
    known.take([firing("a")], NOW)
    known.run_to(NOW + 4 * HOUR)
    assert (begun(known), known.runs[0].lost_at) == ([timedelta(0)], NOW + HOUR)
    known.run_to(NOW + 6 * HOUR)
    assert shown(known.runs[0])[2] == SUCCESS


CAPPED = """
version: 1
airflow: [{name: default, url: "http://airflow.test", max_parallel: 1}]
routes: [{name: accuracy, match: [], group_by: [model], dag: {id: retrain}}]
"""


def test_airflow_takes_no_more_runs_at_once_than_max_parallel_and_the_oldest_first() -> None:
    known = Replay(parse_policy(CAPPED, "policy.yaml", {}), NOW, Terms(runs=Runs((), 40 * MINUTE)))
    known.take([firing(m, model=m) for m in "abc"], NOW)
    known.run_to(NOW + 3 * HOUR)
    assert [run.accepted_at - NOW for run in known.runs if run.accepted_at] == [timedelta(0), 40 * MINUTE, 80 * MINUTE]


def test_a_pause_a_request_a_reset_and_a_cancel_of_people_do_what_they_do_live() -> None:
    known = replay(cooldown=DAY)
    known.pause(Pause("accuracy", None, "freeze", "ana", NOW), NOW)
    known.take([firing("a")], NOW + MINUTE)
    known.lift("accuracy", NOW + HOUR)
    assert begun(known) == [HOUR]
    known.play(Asked(NOW + 2 * HOUR, "accuracy", CHURN, "ana", "now"), follow_policies=False)
    assert begun(known) == [HOUR]  # It cools down.
    known.play(Asked(NOW + 3 * HOUR, "accuracy", CHURN, "ana", "now", force=True), follow_policies=False)
    known.play(Reset(NOW + 5 * HOUR, "accuracy", CHURN), follow_policies=False)
    assert begun(known) == [HOUR, 3 * HOUR, 5 * HOUR]
    assert [run.reason for run in known.runs] == ["new_alert", "forced", "still_firing"]


def test_a_person_cancels_what_is_held() -> None:
    known = replay(debounce=HOUR)
    known.take([firing("a")], NOW)
    known.play(Cancelled(NOW + MINUTE, "accuracy", CHURN, "ana"), follow_policies=False)
    known.run_to(NOW + DAY)
    assert known.runs == []


def test_a_redrive_fires_a_dead_trigger_again() -> None:
    live = (LiveRun("accuracy", CHURN, NOW, None, NOW + MINUTE, DEAD),)
    known = replay(live=live, failure_backoff=DAY)
    known.take([firing("a")], NOW)
    known.play(Redriven(NOW + HOUR, "accuracy", CHURN), follow_policies=False)
    known.run_to(NOW + 2 * HOUR)
    assert begun(known) == [timedelta(0), HOUR]


@pytest.mark.parametrize(
    "event", [Asked(NOW, "gone", CHURN, "ana", ""), Asked(NOW, "accuracy", {"team": "x"}, "ana", "")]
)
def test_a_request_for_what_the_policy_does_not_have_is_not_evaluable(event: Asked) -> None:
    known = replay()
    known.play(event, follow_policies=False)
    assert (known.runs, len(known.not_evaluable)) == ([], 1)


CONFIRM = {"prometheus": "http://prometheus.test", "query": "up"}


@pytest.mark.parametrize(
    ("answer", "on_error", "runs", "unknown"),
    [(True, "fire", 1, 0), (False, "fire", 0, 0), (None, "fire", 1, 1), (None, "suppress", 0, 1)],
)
def test_confirm_is_answered_as_prometheus_answered_then(
    answer: bool | None, on_error: str, runs: int, unknown: int
) -> None:
    answers = (
        () if answer is None else tuple(LiveAnswer(NOW + i * 5 * MINUTE, "accuracy", CHURN, answer) for i in range(4))
    )
    terms = Terms(runs=Runs((), HOUR), answers=answers)
    known = Replay(policy(confirm={**CONFIRM, "on_error": on_error}), NOW, terms)
    known.take([firing("a")], NOW)
    known.run_to(NOW + 14 * MINUTE)
    assert (len(known.runs), len(known.not_evaluable)) == (runs, unknown)


def asks(*answers: tuple[timedelta, bool], **options: Any) -> Replay:
    """A replay of a route that asks Prometheus, with what it answered then. Without an answer it fires."""
    known = tuple(LiveAnswer(NOW + after, "accuracy", CHURN, confirmed) for after, confirmed in answers)
    return Replay(policy(confirm=CONFIRM, **options), NOW, Terms(runs=Runs((), HOUR), answers=known))


def test_of_two_answers_of_prometheus_the_nearer_counts() -> None:
    known = asks((timedelta(0), False), (2 * MINUTE, True))
    known.take([firing("a")], NOW)
    assert (known.runs, known.not_evaluable) == ([], [])


HEARD = Heard(NOW, (firing("a"),))
QUIET: dict[str, tuple[Event, ...]] = {
    "a pause that is over is lifted": (
        Paused(NOW, Pause("accuracy", NOW + 4 * MINUTE, "freeze", "ana", NOW)),
        HEARD,
        Lifted(NOW + 7 * MINUTE, "accuracy"),
    ),
    "the same policy is read again": (HEARD, Reloaded(NOW + 7 * MINUTE, policy(confirm=CONFIRM))),
    "an effect is over that held nothing": (
        HEARD,
        Ineffective(NOW + MINUTE, "accuracy", CHURN, holds=True),
        Ineffective(NOW + 7 * MINUTE, "accuracy", CHURN, holds=False),
    ),
}


@pytest.mark.parametrize("name", QUIET)
def test_prometheus_is_not_asked_before_it_is_due_when(name: str) -> None:
    """As live: what changes nothing has no group decided again."""
    no, yes = ((timedelta(0), False), (5 * MINUTE, False), (10 * MINUTE, False)), (7 * MINUTE, True)
    known = asks(*no[:2], yes, no[2])
    for event in QUIET[name]:
        known.play(event, follow_policies=True)
    known.run_to(NOW + 11 * MINUTE)
    assert (known.runs, known.not_evaluable) == ([], [])


def test_what_a_schedule_asks_for_comes_before_the_end_of_a_run_in_the_same_moment() -> None:
    text = CAPPED.replace("dag:", "cooldown: 0s, dag:")
    text += "schedules: [{name: daily, cron: '0 14 * * *', route: accuracy, group: {model: churn}}]\n"
    known = Replay(parse_policy(text, "policy.yaml", {}), NOW, Terms(runs=Runs((), HOUR)))
    known.take([firing("a")], NOW + HOUR)
    known.take([resolved("a", NOW + 90 * MINUTE, NOW + HOUR)], NOW + 90 * MINUTE)
    known.run_to(NOW + 3 * HOUR)
    assert [run.reason for run in known.runs] == ["new_alert"]  # The loop of the schedules has its turn first.


def test_a_rehearsal_is_kept_and_starts_nothing() -> None:
    known = replay(mode="shadow", cooldown=DAY)
    known.take([firing("a")], NOW)
    known.run_to(NOW + HOUR)
    assert [(run.rehearsed, run.accepted_at) for run in known.runs] == [(True, None)]


def test_a_schedule_comes_due_by_itself() -> None:
    text = CAPPED + "schedules: [{name: daily, cron: '0 14 * * *', route: accuracy, group: {model: churn}}]\n"
    known = Replay(parse_policy(text, "policy.yaml", {}), NOW)
    known.run_to(NOW + 2 * DAY)
    assert [run.fired_at for run in known.runs] == [NOW + 2 * HOUR, NOW + 2 * HOUR + DAY]
    assert {run.reason for run in known.runs} == {"scheduled"}


def test_a_request_asked_for_directly_is_decided_like_any_other() -> None:
    known = replay()
    decision = known.request(known.engine.policy.routes[0], CHURN, RunRequest(Reason.MANUAL, "ana", "x", {}), NOW)
    assert (decision.action, len(known.runs)) == (Action.FIRE, 1)


def test_a_policy_without_a_cooldown_does_not_start_runs_without_end() -> None:
    known = replay(length=timedelta(seconds=1), cooldown=timedelta(0), stale_after=300 * DAY)
    known.take([firing("a")], NOW)
    known.runs = known.runs * MOST_RUNS
    with pytest.raises(UsageError, match="give its routes a cooldown"):
        known.run_to(NOW + DAY)
