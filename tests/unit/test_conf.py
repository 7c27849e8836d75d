"""What Airflow is given: frozen, deterministic, and never over 16 KB on our account."""

import json
from datetime import timedelta
from typing import Any

import pytest

from app.decide.conf import CONF_BYTES, dag_call
from app.decide.state import Episode, Group, Reason, TriggerChange, TriggerState
from tests.unit.builders import NOW, episode, group, route, uid

RUN = uid(7)


def trigger(*alerts: Episode) -> TriggerChange:
    return TriggerChange(RUN, group(), TriggerState.PENDING, Reason.NEW_ALERT, True, list(alerts))


def with_dag(**dag: Any) -> Any:
    return route(dag={"id": "retrain", **dag})


def numbered(count: int, **labels: str) -> list[Episode]:
    return [episode(id=uid(n), alert_id=f"alert-{n}", labels={"model": "churn", **labels}) for n in range(count)]


def test_the_conf_says_who_asks_and_why() -> None:
    alert = episode(starts_at=NOW + timedelta(milliseconds=892), labels={"model": "churn", "team": "risk"})
    call = dag_call(trigger(alert), with_dag(conf={"dataset": "s3://features/{{group.model}}", "epochs": 3}))
    assert (call.airflow, call.dag_id, call.dag_run_id) == ("default", "retrain", f"gateway__accuracy__{RUN}")
    assert call.conf == {
        "dataset": "s3://features/churn",
        "epochs": 3,
        "gateway": {
            "trigger_id": str(RUN),
            "route": "accuracy",
            "reason": "new_alert",
            "group": {"model": "churn"},
            "alerts": [
                {
                    "alert_id": "ModelAccuracyLow",
                    "severity": "critical",
                    "timestamp": "2026-11-23T12:00:00.892000Z",
                    "labels": {"model": "churn", "team": "risk"},
                }
            ],
            "schema": 1,
        },
    }
    assert list(call.conf)[-1] == "gateway"


def test_with_a_namespace_the_trigger_is_the_parent_in_openlineage_unless_the_user_names_another() -> None:
    named = route(dag={"id": "retrain"}, openlineage="gateways")
    assert dag_call(trigger(*numbered(1)), named).conf["openlineage"] == {
        "parentRunId": str(RUN),
        "parentJobNamespace": "gateways",
        "parentJobName": "accuracy",
        "rootParentRunId": str(RUN),
        "rootParentJobNamespace": "gateways",
        "rootParentJobName": "accuracy",
    }
    own = {"parentRunId": "mine"}
    by_hand = route(dag={"id": "retrain", "conf": {"openlineage": own}}, openlineage="gateways")
    assert dag_call(trigger(), by_hand).conf["openlineage"] == own
    assert "openlineage" not in dag_call(trigger(), with_dag()).conf


def test_the_same_trigger_always_asks_for_the_same_run() -> None:
    alerts = numbered(3)
    assert dag_call(trigger(*alerts), with_dag()) == dag_call(trigger(*alerts), with_dag())


def test_the_dag_may_be_named_by_the_group() -> None:
    assert dag_call(trigger(), with_dag(id="retrain_{{group.model}}")).dag_id == "retrain_churn"


@pytest.mark.parametrize(
    "label", ["x", "é" * 20, "\U0001f525" * 10, '"\\' * 20], ids=["short", "accents", "emoji", "escapes"]
)
@pytest.mark.parametrize("count", [1, 50, 199, 1000])
def test_alerts_that_would_make_it_too_large_are_counted_not_carried(count: int, label: str) -> None:
    gateway = dag_call(trigger(*numbered(count, note=label)), with_dag(conf={"dataset": "x"})).conf["gateway"]
    conf = {"dataset": "x", "gateway": gateway}
    assert len(json.dumps(conf)) <= CONF_BYTES
    assert len(gateway["alerts"]) + gateway.get("alerts_omitted", 0) == count
    assert [a["alert_id"] for a in gateway["alerts"]] == [f"alert-{n}" for n in range(len(gateway["alerts"]))]
    if "alerts_omitted" in gateway:
        one_more = len(json.dumps(gateway["alerts"][-1]))
        assert len(json.dumps(conf)) + one_more > CONF_BYTES - 100


@pytest.mark.parametrize("value", ["x" * 4096, "é" * 4096, "\U0001f525" * 4096, "x" * 1_000_000])
@pytest.mark.parametrize("paths", [0, 1, 4, 600])
def test_values_of_a_group_that_are_too_long_are_cut_and_named_and_short_ones_are_whole(value: str, paths: int) -> None:
    labels = {"model": value, "team": "risk", "other": value}
    wide = TriggerChange(RUN, Group("k", "accuracy", "live", labels), TriggerState.PENDING, Reason.NEW_ALERT, True)
    wide.alerts += [episode(id=uid(n), alert_id="a", labels={"note": value * 4}) for n in range(3)]
    conf = dag_call(wide, with_dag(conf={"paths": ["{{group.model}}"] * paths})).conf
    gateway = conf["gateway"]
    assert len(json.dumps(conf)) <= CONF_BYTES
    assert (gateway["alerts"], gateway["alerts_omitted"]) == ([], 3)
    assert set(conf["paths"]) <= {gateway["group"]["model"]}
    cut = {name: value for name, value in gateway["group"].items() if value != labels[name]}
    assert gateway.get("labels_cut", []) == list(cut)
    assert all(value.endswith("…") and labels[name].startswith(value[:-1]) for name, value in cut.items())
    assert "team" not in cut or paths == 600


def test_one_alert_too_large_to_carry_still_starts_the_run() -> None:
    gateway = dag_call(trigger(*numbered(1, note="x" * 4096 * 4)), with_dag()).conf["gateway"]
    assert (gateway["alerts"], gateway["alerts_omitted"]) == ([], 1)


def test_the_context_of_a_trace_is_there_when_there_is_a_trace() -> None:
    traceparent = "00-019ab0c46f1e7d359c1a3f0e4a5b6c7d-b7ad6b7169203331-01"
    assert dag_call(trigger(), with_dag(), traceparent=traceparent).conf["gateway"]["traceparent"] == traceparent
    assert "traceparent" not in dag_call(trigger(), with_dag()).conf["gateway"]
