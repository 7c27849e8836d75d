"""The pure engine: a whole gateway in plain memory, from the first alert to the end of a run."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.decide.engine import PureEngine
from app.decide.rules import EVERY_ROUTE, Pause
from app.decide.state import (
    DEAD,
    FAILED,
    SUCCESS,
    Action,
    Confirmation,
    Decision,
    HeardAnswer,
    Reason,
    RunRequest,
    TriggerState,
)
from app.policy.file.load import parse_policy
from app.policy.schema import Policy
from tests.sizes import seed, size
from tests.unit.builders import DAY, HOUR, MINUTE, NOW, REORDER, decided, firing, ids, policy, resolved

ALERTS = """
  - {name: accuracy, match: ['alertname="ModelAccuracyLow"'], group_by: [model], cooldown: 1d, dag: {id: retrain}}
"""
DAILY = "- {name: daily, cron: '0 14 * * *', route: accuracy, group: {model: churn}}"
CHURN, FRAUD = {"model": "churn"}, {"model": "fraud"}
ANA = RunRequest(Reason.MANUAL, "ana", "new labels", {})


def engine(**options: Any) -> PureEngine:
    return PureEngine(policy(**options), NOW, REORDER, ids())


def scheduled(*schedules: str) -> Policy:
    text = f"version: 1\nairflow: [{{name: default, url: 'http://airflow.test'}}]\nroutes:{ALERTS}schedules:\n"
    return parse_policy(text + "\n".join(f"  {line}" for line in schedules), "policy.yaml", {})


def take(known: PureEngine, now: datetime, *fingerprints: str, model: str = "churn") -> list[tuple[Action, Reason]]:
    return decided(answer.decision for answer in known.take([firing(f, model=model) for f in fingerprints], now))


def fire(known: PureEngine, now: datetime, model: str = "churn", fingerprint: str = "") -> Any:
    """A new alert of the model; the newest trigger."""
    take(known, now, fingerprint or f"{model}-{now}", model=model)
    return list(known.triggers.values())[-1]


def states(known: PureEngine) -> list[TriggerState]:
    return [trigger.state for trigger in known.triggers.values()]


def test_a_replay_jumps_from_one_moment_to_the_next_at_which_something_is_due() -> None:
    known = engine(debounce=10 * MINUTE, cooldown=DAY, stale_after=2 * DAY)
    assert known.next_at() is None
    assert take(known, NOW, "a") == [(Action.HOLD, Reason.DEBOUNCING)]
    moments = []
    for _ in range(3):
        now = known.next_at()
        assert now is not None
        moments.append(now - NOW)
        known.wake(now)
        for trigger in known.triggers.values():
            if trigger.state is TriggerState.PENDING:
                known.accept(trigger.id, now + MINUTE)
                known.end(trigger.id, SUCCESS, now + HOUR)
        known.take([firing("a")], now + 2 * HOUR)
    fired = [trigger.fired_at for trigger in known.triggers.values()]
    assert moments == [10 * MINUTE, 10 * MINUTE + MINUTE + DAY, 10 * MINUTE + 2 * MINUTE + 2 * DAY]
    assert fired == [NOW + moment for moment in moments]


def test_the_same_events_lead_to_the_same_rows() -> None:
    def story() -> PureEngine:
        known = engine(cooldown=HOUR, refire=True)
        for minute in range(0, 300, 7):
            now = NOW + minute * MINUTE
            alerts = [firing(f, model=model) for f, model in (("a", "churn"), ("b", "churn"), ("d", "fraud"))]
            known.take([*alerts, resolved("b", now, NOW)] if minute % 2 else alerts, now)
            known.wake(now)
            for trigger in list(known.triggers.values()):
                if trigger.state is TriggerState.PENDING:
                    known.accept(trigger.id, now)
                    known.end(trigger.id, FAILED if minute % 3 else SUCCESS, now)
        return known

    first, second = story(), story()
    assert len(first.triggers) > 4
    for rows in ("groups", "episodes", "triggers", "decisions"):
        assert getattr(first, rows) == getattr(second, rows)


@pytest.mark.parametrize(
    ("ask", "after", "expected"),
    [
        (ANA, timedelta(0), (Action.SUPPRESS, Reason.IN_FLIGHT)),
        (ANA, HOUR, (Action.SUPPRESS, Reason.COOLDOWN)),
        (ANA, 2 * DAY, (Action.FIRE, Reason.MANUAL)),
        (RunRequest(Reason.FORCED, "ana", "now", {}, force=True), HOUR, (Action.FIRE, Reason.FORCED)),
    ],
    ids=["beside a run", "in a cooldown", "after it", "forced"],
)
def test_a_request_obeys_what_the_engine_knows(
    ask: RunRequest, after: timedelta, expected: tuple[Action, Reason]
) -> None:
    known = engine(cooldown=DAY)
    trigger = fire(known, NOW)
    if after:
        known.end(trigger.id, SUCCESS, NOW)
    decision = known.request(known.policy.routes[0], CHURN, ask, NOW + after)
    assert decided([decision]) == [expected]
    assert known.decisions[-1].alert is None


def test_a_cancelled_hold_starts_nothing_and_only_once() -> None:
    known = engine(debounce=HOUR)
    trigger = fire(known, NOW)
    assert known.cancel(trigger.id, "ana", NOW + MINUTE)
    assert not known.cancel(trigger.id, "ana", NOW + MINUTE)
    known.wake(NOW + DAY)
    assert states(known) == [TriggerState.CANCELLED]
    assert known.decisions[-1].detail == "cancelled by ana"


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ((), None),
        (("reset", "newer"), Reason.IN_FLIGHT),
        (("reset", "newer", "success"), Reason.COOLDOWN),
        (("others",), Reason.LIMIT),
    ],
    ids=["its own death", "another one is open", "a newer success", "the limit is used up"],
)
def test_a_redrive_passes_its_group_and_its_limit(before: Sequence[str], expected: Reason | None) -> None:
    known = engine(cooldown=DAY, limit={"triggers": 2, "per": 7 * DAY})
    dead = fire(known, NOW)
    known.end(dead.id, DEAD, NOW)
    steps: dict[str, Callable[[], object]] = {
        "reset": lambda: known.reset(dead.key, NOW + MINUTE),
        "newer": lambda: fire(known, NOW + MINUTE),
        "success": lambda: known.end(list(known.triggers)[-1], SUCCESS, NOW + MINUTE),
        "others": lambda: [fire(known, NOW, model) for model in ("fraud", "price")],
    }
    for step in before:
        steps[step]()
    refused = known.redrive(dead.id, NOW + MINUTE)
    assert (refused.reason if refused else None) == expected
    assert dead.state == (TriggerState.PENDING if expected is None else TriggerState.DEAD)
    if expected is None:
        assert known.groups[dead.key].open_trigger == dead.id
        with pytest.raises(ValueError, match="only a dead trigger"):
            known.redrive(dead.id, NOW + MINUTE)


def test_a_dead_trigger_lets_the_next_group_in() -> None:
    known = engine(limit={"triggers": 1, "per": 7 * DAY})
    first = fire(known, NOW)
    assert take(known, NOW, "d", model="fraud") == [(Action.SUPPRESS, Reason.LIMIT)]
    assert known.next_at() == NOW + 7 * DAY
    known.end(first.id, DEAD, NOW + MINUTE)
    assert known.next_at() == NOW + MINUTE
    known.wake(NOW + MINUTE)
    assert states(known) == [TriggerState.DEAD, TriggerState.PENDING]


def test_a_lost_run_counts_once_and_stays_in_flight() -> None:
    known = engine(cooldown=DAY)
    trigger = fire(known, NOW)
    known.accept(trigger.id, NOW)
    assert known.lose(trigger.id, NOW + DAY)
    assert not known.lose(trigger.id, NOW + DAY)
    assert known.groups[trigger.key].open_trigger == trigger.id
    assert known.end(trigger.id, FAILED, NOW + DAY)
    assert not known.end(trigger.id, FAILED, NOW + DAY)
    assert (known.groups[trigger.key].failures, known.groups[trigger.key].open_trigger) == (1, None)


@pytest.mark.parametrize("route", ["accuracy", EVERY_ROUTE])
def test_what_a_pause_mutes_is_decided_when_it_is_lifted(route: str) -> None:
    known = engine()
    known.pause(Pause(route, None, "a freeze", "ana", NOW), NOW)
    assert take(known, NOW, "a") == [(Action.SUPPRESS, Reason.MUTED)]
    assert known.next_at() is None
    known.lift(route, NOW + HOUR)
    assert known.next_at() == NOW + HOUR
    known.wake(NOW + HOUR)
    assert states(known) == [TriggerState.PENDING]


@pytest.mark.parametrize(
    ("confirmed", "facts_changed", "expected"),
    [
        (True, False, [TriggerState.PENDING]),
        (False, False, [TriggerState.CANCELLED]),
        (True, True, [TriggerState.HELD]),
    ],
    ids=["yes", "no", "an answer about older facts"],
)
def test_prometheus_is_asked_before_a_fire(confirmed: bool, facts_changed: bool, expected: list[TriggerState]) -> None:
    known = engine(confirm={"prometheus": "http://prometheus.test", "query": "drift > 1"})
    take(known, NOW, "a")
    (group,) = known.questions(NOW)
    assert states(known) == [TriggerState.HELD]
    if facts_changed:
        known.reset(group.key, NOW)
    known.wake(NOW, {group.key: HeardAnswer(group.facts_version, Confirmation(confirmed, "by a test"))})
    assert states(known) == expected


def test_a_group_of_another_shape_counts_what_its_route_has_fired() -> None:
    known = engine(cooldown=DAY)
    known.end(fire(known, NOW).id, SUCCESS, NOW)
    known.reload(policy(cooldown=DAY, group_by=["model", "severity"]), NOW + HOUR)
    assert take(known, NOW + HOUR, "z") == [(Action.SUPPRESS, Reason.COOLDOWN)]


def test_a_change_of_mode_moves_what_fires_to_the_group_of_the_new_mode() -> None:
    known = engine(mode="shadow", cooldown=DAY)
    assert take(known, NOW, "a") == [(Action.SUPPRESS, Reason.SHADOW)]
    known.reload(policy(cooldown=DAY), NOW + HOUR)
    known.wake(NOW + HOUR)
    assert [(t.mode, t.state) for t in known.triggers.values()] == [
        ("shadow", TriggerState.CANCELLED),
        ("live", TriggerState.PENDING),
    ]


def decided_of(taken: list[tuple[str, Decision]]) -> list[tuple[str, Action, Reason]]:
    return [(name, decision.action, decision.reason) for name, decision in taken]


def test_a_schedule_is_due_at_its_occurrence_and_decided_once() -> None:
    known = PureEngine(scheduled(DAILY), NOW, REORDER, ids())
    due = NOW + 2 * HOUR
    assert known.next_at() == due
    assert known.take_schedules(due - MINUTE) == []
    assert decided_of(known.take_schedules(due)) == [("daily", Action.FIRE, Reason.SCHEDULED)]
    assert known.take_schedules(due) == []
    assert known.next_at() == due + DAY


@pytest.mark.parametrize(
    ("options", "expected"),
    [("", [("daily", Action.FIRE, Reason.SCHEDULED)]), (", catch_up: none", [])],
    ids=["the newest is made up for", "it is passed over"],
)
def test_a_missed_occurrence(options: str, expected: list[tuple[str, Action, Reason]]) -> None:
    known = PureEngine(scheduled(DAILY.replace("}}", "}" + options + "}")), NOW, REORDER, ids())
    assert decided_of(known.take_schedules(NOW + 3 * DAY)) == expected
    assert known.next_at() == NOW + 3 * DAY + 2 * HOUR


def test_a_schedule_that_changed_counts_from_then_on() -> None:
    known = PureEngine(scheduled(DAILY), NOW, REORDER, ids())
    late = NOW + 3 * HOUR
    known.reload(scheduled(DAILY.replace("0 14", "0 13")), late)
    assert known.take_schedules(late) == []
    assert known.next_at() == NOW + HOUR + DAY


def test_a_pass_that_names_a_trigger_of_another_state_is_a_bug() -> None:
    known = engine()
    trigger = fire(known, NOW)
    known.groups[trigger.key].held_since = NOW  # A group that says held beside a trigger that has fired.
    with pytest.raises(ValueError, match="only a held trigger"):
        known.take([resolved("churn-2026-11-23 12:00:00+00:00", NOW, NOW)], NOW)


def its_run_ends(known: PureEngine, now: datetime) -> None:
    known.end(list(known.triggers)[-1], SUCCESS, now)


def another_alert_fires(known: PureEngine, now: datetime) -> None:
    its_run_ends(known, now)
    assert take(known, now, "another") == [(Action.FIRE, Reason.NEW_ALERT)]


def a_person_asks(known: PureEngine, now: datetime) -> None:
    its_run_ends(known, now)
    assert known.request(known.policy.routes[0], CHURN, ANA, now).action is Action.FIRE


@pytest.mark.parametrize(
    ("then", "cooldown"), [(its_run_ends, DAY), (another_alert_fires, 0 * DAY), (a_person_asks, 0 * DAY)]
)
def test_an_alert_that_its_resolved_overtook_reopens_in_time_whatever_its_group_does(
    then: Callable[[PureEngine, datetime], None], cooldown: timedelta
) -> None:
    known = engine(cooldown=cooldown)
    fire(known, NOW, fingerprint="late")
    over = NOW + MINUTE
    known.take([resolved("late", over, NOW, model="churn"), firing("late", model="churn")], over)
    then(known, over + MINUTE / 2)
    [episode] = [each for each in known.episodes.values() if each.fingerprint == "late"]
    assert not episode.firing
    while (due := known.next_at()) is not None and due <= over + REORDER:
        known.wake(due)
    assert known.episodes[episode.id].firing


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "held": {"debounce": 10 * MINUTE},
    "muted": {"mute": ["night"]},
    "spent and limited": {"refire": False, "limit": {"triggers": 3, "per": 6 * HOUR}},
    "shadow": {"mode": "shadow"},
}


@pytest.mark.parametrize("native", [False, True], ids=["alertmanager", "native"])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_alert_that_is_the_same_object_again_is_decided_as_an_equal_one(name: str, native: bool) -> None:
    """A replay has the same object for each repeat, and then the engine remembers what it found. It decides as one that
    finds everything anew."""
    chance = random.Random(seed())
    options = {"cooldown": 2 * HOUR, "stale_after": 5 * HOUR, **OPTIONS[name]}
    known, anew, now = engine(**options), engine(**options), NOW
    alerts = [firing(f, NOW, native=native, model=m) for f, m in (("a", "churn"), ("b", "churn"), ("c", "fraud"))]
    from_memory = 0
    for step in range(size(150, 3000)):
        now += chance.choice([timedelta(seconds=1), MINUTE, 10 * MINUTE, HOUR, 9 * HOUR])
        batch = chance.choices(alerts, k=chance.choice([1, 1, 2]))
        if chance.random() < 0.15:
            batch = [resolved(batch[0].fingerprint, now, NOW, native=native, **batch[0].labels)]
        answers = []
        for each, sent in ((known, batch), (anew, [replace(alert) for alert in batch])):
            each.wake(now)
            for trigger in [*each.triggers.values()][-3:]:
                if trigger.state is TriggerState.PENDING:
                    each.accept(trigger.id, now)
                elif trigger.state is TriggerState.SUBMITTED:
                    each.end(trigger.id, SUCCESS if step % 3 else FAILED, now)
            if step % 40 == 39:
                each.pause(Pause("accuracy", now + HOUR, "a test", "ana", now), now)
            if step % 70 == 69:
                each.reload(policy(**options | {"cooldown": (step % 4 + 1) * HOUR}), now)
            found = each.repeat(sent, now)
            from_memory += found is not None
            answers.append([answer.decision for answer in (found if found is not None else each.take(sent, now))])
        assert answers[0] == answers[1]
        for rows in ("groups", "episodes", "triggers", "decisions"):
            assert getattr(known, rows) == getattr(anew, rows)
    assert from_memory > 0


def test_the_same_policy_again_has_nothing_decided_anew() -> None:
    known = engine(cooldown=DAY, stale_after=2 * DAY)
    trigger = fire(known, NOW)
    known.end(trigger.id, SUCCESS, NOW + HOUR)
    due = known.next_at()
    known.reload(policy(cooldown=DAY, stale_after=2 * DAY), NOW + 2 * HOUR)
    assert known.next_at() == due == NOW + DAY
    known.reload(policy(cooldown=DAY, stale_after=3 * DAY), NOW + 2 * HOUR)
    assert known.next_at() == NOW + 2 * HOUR
