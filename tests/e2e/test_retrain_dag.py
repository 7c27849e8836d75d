"""The example DAG in a real Airflow and a real MLflow: from the gateway's conf to a version that says who asked for it."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from app.demo.airflow import Airflow
from app.demo.mlflow import Mlflow, SeenVersion
from tests.e2e.conftest import GIT_COMMIT
from tests.e2e.processes import eventually

pytestmark = pytest.mark.slow

TASKS = ("data_retrieval", "validation", "training", "evaluation", "registration", "promotion")
GATEWAY = {
    "trigger_id": "01a2",
    "route": "accuracy",
    "reason": "new_alert",
    "group": {"model": "churn"},
    "alerts": [{"alert_id": "ModelAccuracyLow", "severity": "critical", "timestamp": "2026-11-24T03:00:00Z"}],
    "schema": 1,
}


class Api:
    """Airflow's REST API, as the gateway's user."""

    def __init__(self, airflow: Airflow) -> None:
        who = {"username": airflow.username, "password": airflow.password}
        token = httpx.post(f"{airflow.url}/auth/token", json=who).json()["access_token"]
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
            return run if run["state"] in ("success", "failed") else None

        return eventually(f"the end of {dag_run_id}", over, within=240)

    def run(self, dag_run_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        """Start a run and wait for its end."""
        self.start(dag_run_id, conf)
        return self.ended(dag_run_id)

    def tasks(self, dag_run_id: str) -> dict[str, str]:
        """The state of each task."""
        instances = self._client.get(f"/dagRuns/{dag_run_id}/taskInstances").json()["task_instances"]
        return {instance["task_id"]: instance["state"] for instance in instances}

    def result(self, dag_run_id: str, task: str) -> Any:
        """What a task handed on."""
        path = f"/dagRuns/{dag_run_id}/taskInstances/{task}/xcomEntries/return_value"
        value = self._client.get(path).json()["value"]
        return json.loads(value) if isinstance(value, str) else value


def version_of(mlflow: Mlflow, dag_run_id: str) -> SeenVersion:
    """What MLflow has of a DAG run: one version, of one run that ended well."""
    seen = asyncio.run(mlflow.versions())
    (version,) = [one for one in seen if one.tags.get("airflow.dag_run_id") == dag_run_id]
    assert version.run_status == "FINISHED"
    assert version.tags["mlflow.source.git.commit"] == GIT_COMMIT
    assert version.metrics["accuracy"] > 0.85
    assert {"f1", "auc", "data_rows"} <= version.metrics.keys()
    return version


def test_a_run_of_the_gateway_registers_a_version_that_says_who_asked_for_it(
    real_airflow: Airflow, real_mlflow: Mlflow
) -> None:
    with Api(real_airflow) as api:
        assert api.run("by_gateway", {"gateway": GATEWAY})["state"] == "success"
        assert api.tasks("by_gateway") == dict.fromkeys(TASKS, "success")
        carried = [len(json.dumps(api.result("by_gateway", task))) for task in TASKS]
        dataset = api.result("by_gateway", "data_retrieval")["dataset"]
    version = version_of(real_mlflow, "by_gateway")
    assert (version.model, version.trigger_id) == ("churn", "01a2")
    assert version.tags["dataset.sha256"] == dataset["sha256"]
    assert max(carried) < 2048  # References and digests travel between tasks, never the data.


def test_mlflow_goes_away_during_a_run_by_hand_and_nothing_is_missing_afterwards(
    real_airflow: Airflow, real_mlflow: Mlflow
) -> None:
    with Api(real_airflow) as api:
        api.start("by_hand", {})
        eventually("the data", lambda: api.tasks("by_hand")["data_retrieval"] == "success", within=120)
        asyncio.run(real_mlflow.stop())
        assert api.ended("by_hand")["state"] == "success"
        result = api.result("by_hand", "registration")
    real_mlflow.launch()
    asyncio.run(real_mlflow.wait_ready(print))
    asyncio.run(real_mlflow.deliver())
    version = version_of(real_mlflow, "by_hand")
    assert (version.model, version.trigger_id, version.run_id) == ("default", None, result["run_id"])
