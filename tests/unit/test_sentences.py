"""What `explain` promises must come true by itself, or say what it needs."""

from datetime import timedelta
from typing import Any

import pytest

from app.decide.state import Action, Decision, Reason, TriggerState
from app.explain import examples, schemas, silence, why_api
from app.explain.sentences import NOTHING, UNBLOCK, missing, needs_person, next_step, of_alert, would_fire
from app.kit.times import at
from tests.unit.builders import NOW, episode, group, route


@pytest.mark.parametrize(("wake", "says"), [(None, "has no `wake_at`"), (NOW + timedelta(minutes=5), "or at 20")])
def test_a_wake_is_promised_only_when_one_is_booked(wake: object, says: str) -> None:
    assert says in would_fire(Decision(Action.FIRE, Reason.NEW_ALERT), group(wake_at=wake), episode(), route())


@pytest.mark.parametrize("state", TriggerState)
@pytest.mark.parametrize("blocked", [None, "unreachable", *UNBLOCK])
@pytest.mark.parametrize("lost_at", [None, NOW])
def test_a_trigger_needs_a_person_when_its_next_step_is_not_nothing(
    state: str, blocked: str | None, lost_at: object
) -> None:
    words = dict.fromkeys(("airflow", "dag_id", "dag_run_id", "route"), "x")
    step = next_step(words | {"state": state, "blocked": blocked, "lost_at": lost_at}, None)
    assert needs_person(state, blocked, lost=lost_at is not None) == (not step.startswith(NOTHING))


#: The reasons of a decision that starts a run.
_FIRES = {Reason.NEW_ALERT, Reason.STILL_FIRING, Reason.MANUAL, Reason.SCHEDULED, Reason.FORCED}


@pytest.mark.parametrize("reason", Reason)
def test_a_decision_that_starts_no_run_names_what_it_needed(reason: Reason) -> None:
    assert bool(missing({"reason": reason, "until": None})) == (reason not in _FIRES)


def test_what_was_missing_has_its_time_where_it_was_known() -> None:
    row = {"reason": "cooldown", "until": NOW}
    assert missing(row) == f"the end of the cooldown, at {at(NOW)}"
    assert missing(row | {"until": None}) == "the end of the cooldown"


def test_the_example_of_an_explanation_says_what_the_code_says() -> None:
    shown = examples.EXPLANATION
    alert = schemas.AlertOut.model_validate(shown["alert"]).model_dump()
    trigger = schemas.TriggerOut.model_validate(shown["trigger"]).model_dump()
    group_state = schemas.GroupOut.model_validate(shown["group"]).model_dump()
    now = schemas.NowOut.model_validate(shown["now"])
    assert shown["summary"] == of_alert(alert, trigger)
    assert shown["next_step"] == next_step(trigger, group_state)
    decision = Decision(now.action, now.reason, now.until, now.trigger_id, now.detail)
    idle = group(fired_at=alert["first_seen_at"], last_trigger=trigger["id"])
    assert shown["would_fire"] == would_fire(decision, idle, episode(), route(cooldown=timedelta(days=1)))


def test_the_example_of_a_silent_route_says_what_the_code_says() -> None:
    extra: Any = why_api.WhyOut.model_config["json_schema_extra"]
    shown = extra["example"]
    answer = why_api.WhyOut.model_validate(shown).model_dump()
    assert shown["summary"] == silence.summary(answer, None)
    assert shown["would_fire"] == silence.would_fire(answer, ["model"])
    assert shown["next_step"] == silence.next_step(answer)
