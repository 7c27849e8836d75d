"""The example DAG in a real Airflow and a real MLflow: from an alert to a version that says who asked for it."""

import asyncio
import json
import re
from datetime import datetime
from typing import Any

import httpx
import pytest

from demo.airflow import Airflow
from demo.mlflow import Mlflow, SeenVersion
from tests import plain
from tests.e2e.conftest import GIT_COMMIT
from tests.e2e.gateway import Gateway
from tests.e2e.processes import eventually
from tests.e2e.test_full_chain import runs

pytestmark = pytest.mark.slow

TASKS = ("data_retrieval", "validation", "training", "evaluation", "registration", "promotion")
ALERT = {
    "alert_id": "trained",
    "severity": "critical",
    "timestamp": "2026-11-24T03:00:00Z",
    "labels": {"model": "churn"},
}


class Api:
    """Airflow's REST API, as the gateway's user."""

    def __init__(self, airflow: Airflow) -> None:
        who = {"username": airflow.username, "password": airflow.password}
        token = plain.post(f"{airflow.url}/auth/token", json=who).json()["access_token"]
        self._client = httpx.Client(
            base_url=f"{airflow.url}/api/v2/dags/retrain_model",
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def start(self, dag_run_id: str, conf: dict[str, Any]) -> None:
        body = {"dag_run_id": dag_run_id, "logical_date": None, "conf": conf}
        assert self._client.post("/dagRuns", json=body).status_code == 200

    def ended(self, dag_run_id: str) -> dict[str, Any]:
        """The run, once it is over."""

        def over() -> dict[str, Any] | None:
            run: dict[str, Any] = self._client.get(f"/dagRuns/{dag_run_id}").json()
            return run if run.get("state") in ("success", "failed") else None

        return eventually(f"the end of {dag_run_id}", over, within=240)

    def run(self, dag_run_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        """Start a run and wait for its end."""
        self.start(dag_run_id, conf)
        return self.ended(dag_run_id)

    def tasks(self, dag_run_id: str) -> dict[str, str]:
        """The state of each task. Empty until Airflow has the run: the gateway starts it after its answer."""
        instances = self._client.get(f"/dagRuns/{dag_run_id}/taskInstances").json().get("task_instances", [])
        return {instance["task_id"]: instance["state"] for instance in instances}

    def result(self, dag_run_id: str, task: str) -> Any:
        """What a task handed on."""
        path = f"/dagRuns/{dag_run_id}/taskInstances/{task}/xcomEntries/return_value"
        value = self._client.get(path).json()["value"]
        return json.loads(value) if isinstance(value, str) else value


def version_of(mlflow: Mlflow, dag_run_id: str) -> SeenVersion:
    """What MLflow has of a DAG run: one version, of one run that ended well."""
    seen = asyncio.run(mlflow.versions())
    (version,) = [candidate for candidate in seen if candidate.tags.get("airflow.dag_run_id") == dag_run_id]
    assert version.run_status == "FINISHED"
    assert version.tags["mlflow.source.git.commit"] == GIT_COMMIT
    assert version.metrics["accuracy"] > 0.85
    assert {"f1", "auc", "data_rows"} <= version.metrics.keys()
    return version


def test_a_run_by_hand_registers_a_version_of_the_model_named_default(
    real_airflow: Airflow, real_mlflow: Mlflow
) -> None:
    with Api(real_airflow) as api:
        assert api.run("by_hand", {})["state"] == "success"
        assert api.tasks("by_hand") == dict.fromkeys(TASKS, "success")
        carried = [len(json.dumps(api.result("by_hand", task))) for task in TASKS]
        dataset = api.result("by_hand", "data_retrieval")["dataset"]
    version = version_of(real_mlflow, "by_hand")
    assert (version.model, version.trigger_id) == ("default", None)
    assert version.tags["dataset.sha256"] == dataset["sha256"]
    assert max(carried) < 2048  # References and digests travel between tasks, never the data.


def test_mlflow_is_away_during_a_retraining_and_its_lineage_is_whole_afterwards(
    real_airflow: Airflow, real_mlflow: Mlflow, gateway: Gateway
) -> None:
    (decision,) = gateway.post("/alerts", ALERT)["decisions"]
    trigger = gateway.get(f"/triggers/{decision['trigger_id']}")
    dag_run_id = trigger["dag_run_id"]
    with Api(real_airflow) as api:
        eventually("the data", lambda: api.tasks(dag_run_id).get("data_retrieval") == "success", within=120)
        asyncio.run(real_mlflow.stop())
        away = gateway.get("/lineage", trigger=trigger["id"])
        assert (away["mlflow"]["state"], away["chains"][0]["dag_run"]["dag_run_id"]) == ("away", dag_run_id)
        assert gateway.settled("trained", within=240, model="churn")["state"] == "succeeded"
        run_id = api.result(dag_run_id, "registration")["run_id"]
    real_mlflow.launch()
    asyncio.run(real_mlflow.wait_ready(print))
    asyncio.run(real_mlflow.deliver())

    found = gateway.get("/lineage", trigger=trigger["id"])
    assert (found["missing"], found["mlflow"]["state"]) == ([], "asked")
    (chain,) = found["chains"]
    (run,) = chain["runs"]
    (version,) = run["versions"]
    assert [alert["alert_id"] for alert in chain["alerts"]] == ["trained"]
    assert (run["run_id"], run["git_commit"]) == (run_id, GIT_COMMIT)
    assert gateway.get("/lineage", model="churn", version=version["version"])["chains"] == found["chains"]
    assert version_of(real_mlflow, dag_run_id).trigger_id == trigger["id"]
    assert [seen.dag_run_id for seen in runs(real_airflow, "retrain_model", "trained")] == [dag_run_id]
    eventually("a walk over MLflow", lambda: surveyed(gateway) > seconds(chain["trigger"]["ended_at"]) + 2, within=120)
    assert [
        orphan
        for orphan in gateway.get("/lineage/orphans")["items"]
        if trigger["id"] in str(orphan) or run_id in str(orphan)
    ] == []


def surveyed(gateway: Gateway) -> float:
    """When the newest walk over MLflow ended, in seconds since 1970."""
    text = plain.get(f"{gateway.url}/metrics").text
    found = re.search(r"^gateway_survey_last_end_timestamp_seconds (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
