"""The main path on real components: a metric drops, Prometheus and Alertmanager tell, Airflow retrains, once."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from demo.airflow import Airflow, SeenRun
from tests.e2e.gateway import Gateway
from tests.e2e.processes import Model, Prometheus, eventually

pytestmark = pytest.mark.slow

GOOD, BAD = 0.95, 0.70  # the shipped rule fires below 0.85


def runs(airflow: Airflow, dag_id: str, route: str, **group: str) -> list[SeenRun]:
    """What Airflow itself has of a route's triggers, whatever the gateway believes."""
    seen = asyncio.run(airflow.runs(dag_id))
    ours = [run for run in seen if run.conf.get("gateway", {}).get("route") == route]
    return [run for run in ours if not group or run.conf["gateway"]["group"] == group]


def alert(alert_id: str) -> dict[str, str]:
    """Exactly what the contract asks of a native alert."""
    now = datetime.now(UTC)
    return {"alert_id": alert_id, "severity": "critical", "timestamp": now.isoformat()}


def test_a_drop_is_retrained_once_and_a_second_drop_in_the_cooldown_is_not(
    prometheus: Prometheus, model: Model, gateway: Gateway, real_airflow: Airflow
) -> None:
    model.set("churn", BAD)
    trigger = gateway.settled("accuracy", model="churn")
    assert (trigger["state"], trigger["dag_run_state"]) == ("succeeded", "success")
    assert [behind["labels"]["model"] for behind in trigger["alerts"]] == ["churn"]
    (run,) = runs(real_airflow, "quick_dag", "accuracy", model="churn")
    assert (run.dag_run_id, run.state) == (trigger["dag_run_id"], "success")
    assert run.conf["gateway"]["trigger_id"] == trigger["id"]

    model.set("churn", GOOD)
    eventually("the recovery to be told", lambda: [a for a in churn(gateway) if a["status"] == "resolved"])
    model.set("churn", BAD)
    second = eventually("the second drop to be told", lambda: next(iter(churn(gateway)[:-1]), None))
    assert [(d["action"], d["reason"]) for d in second["decisions"]] == [("suppress", "cooldown")]
    explained = gateway.get(f"/explain/{second['id']}")
    assert (explained["now"]["action"], explained["now"]["reason"]) == ("suppress", "cooldown")
    assert "cools down until" in explained["summary"]
    assert len(gateway.triggers("accuracy", model="churn")) == 1
    assert len(runs(real_airflow, "quick_dag", "accuracy", model="churn")) == 1
    model.set("churn", GOOD)


def churn(gateway: Gateway) -> list[dict[str, Any]]:
    """The episodes of churn, newest first."""
    return gateway.alerts(model="churn", alertname="ModelAccuracyLow")


def test_a_flap_through_alertmanager_starts_nothing(
    prometheus: Prometheus, model: Model, gateway: Gateway, real_airflow: Airflow
) -> None:
    model.set("flappy", BAD)
    held = eventually("a trigger to be held", lambda: gateway.triggers("accuracy", model="flappy"))
    assert [trigger["state"] for trigger in held] == ["held"]
    model.set("flappy", GOOD)
    trigger = gateway.settled("accuracy", model="flappy")
    assert (trigger["state"], trigger["fired_at"]) == ("cancelled", None)
    (episode,) = gateway.alerts(model="flappy")
    assert episode["status"] == "resolved"
    assert ("cancel", "resolved_while_held") in [(d["action"], d["reason"]) for d in episode["decisions"]]
    assert runs(real_airflow, "quick_dag", "accuracy", model="flappy") == []


def test_a_native_alert_of_three_fields_and_a_route_of_three_lines_start_one_run(
    gateway: Gateway, real_airflow: Airflow
) -> None:
    (decision,) = gateway.post("/alerts", alert("plain"))["decisions"]
    assert (decision["route"], decision["action"], decision["reason"]) == ("plain", "fire", "new_alert")
    trigger = gateway.settled("plain")
    assert (trigger["id"], trigger["state"]) == (decision["trigger_id"], "succeeded")
    (run,) = runs(real_airflow, "quick_dag", "plain")
    assert (run.dag_run_id, run.state) == (trigger["dag_run_id"], "success")


def test_nothing_is_posted_to_a_paused_dag_and_one_run_follows_when_it_is_unpaused(
    gateway: Gateway, real_airflow: Airflow
) -> None:
    (decision,) = gateway.post("/alerts", alert("paused"))["decisions"]
    eventually("the trigger to say so", lambda: gateway.triggers("paused")[0]["blocked"] == "dag_paused")
    assert gateway.triggers("paused")[0]["state"] == "pending"
    assert runs(real_airflow, "unpaused_later", "paused") == []
    asyncio.run(real_airflow.unpause("unpaused_later"))
    trigger = gateway.settled("paused")
    assert (trigger["id"], trigger["state"]) == (decision["trigger_id"], "succeeded")
    assert [run.dag_run_id for run in runs(real_airflow, "unpaused_later", "paused")] == [trigger["dag_run_id"]]


@pytest.mark.parametrize(
    ("route", "dag_id", "states"),
    [
        pytest.param("crash", "quick_dag", {"pending", "submitted", "running"}, id="when-the-alert-is-acknowledged"),
        pytest.param("slow", "slow_dag", {"running"}, id="while-the-dag-runs"),
    ],
)
def test_killed_with_9_the_gateway_goes_on_and_there_is_one_run(
    gateway: Gateway, real_airflow: Airflow, route: str, dag_id: str, states: set[str]
) -> None:
    (decision,) = gateway.post("/alerts", alert(route))["decisions"]
    eventually(f"the trigger to be one of {states}", lambda: gateway.triggers(route)[0]["state"] in states)
    gateway.kill()
    gateway.start()
    trigger = gateway.settled(route)
    assert (trigger["id"], trigger["state"]) == (decision["trigger_id"], "succeeded")
    (run,) = runs(real_airflow, dag_id, route)
    assert (run.dag_run_id, run.state) == (trigger["dag_run_id"], "success")
    (episode,) = gateway.alerts(alertname=route)
    assert episode["count"] == 1
