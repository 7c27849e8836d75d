"""The example DAG in a real Airflow: from the gateway's conf to the card of a model that says who asked for it."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.demo.airflow import Airflow
from tests.e2e.processes import eventually

pytestmark = pytest.mark.slow

TASKS = ("data_retrieval", "validation", "training", "evaluation", "registration")
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

    def run(self, dag_run_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        """Start a run and wait for its end."""
        body = {"dag_run_id": dag_run_id, "logical_date": None, "conf": conf}
        assert self._client.post("/dagRuns", json=body).status_code == 200

        def ended() -> dict[str, Any] | None:
            run: dict[str, Any] = self._client.get(f"/dagRuns/{dag_run_id}").json()
            return run if run["state"] in ("success", "failed") else None

        return eventually(f"the end of {dag_run_id}", ended, within=60)

    def tasks(self, dag_run_id: str) -> dict[str, str]:
        """The state of each task."""
        instances = self._client.get(f"/dagRuns/{dag_run_id}/taskInstances").json()["task_instances"]
        return {instance["task_id"]: instance["state"] for instance in instances}

    def result(self, dag_run_id: str, task: str) -> Any:
        """What a task handed on."""
        path = f"/dagRuns/{dag_run_id}/taskInstances/{task}/xcomEntries/return_value"
        value = self._client.get(path).json()["value"]
        return json.loads(value) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("dag_run_id", "conf", "model", "trigger_id", "alerts"),
    [
        pytest.param("by_gateway", {"gateway": GATEWAY}, "churn", "01a2", ["ModelAccuracyLow"], id="by-the-gateway"),
        pytest.param("by_hand", {}, "default", None, [], id="by-hand"),
    ],
)
def test_the_example_dag_registers_a_model_that_says_who_asked_for_it(
    real_airflow: Airflow, dag_run_id: str, conf: dict[str, Any], model: str, trigger_id: str | None, alerts: list[str]
) -> None:
    with Api(real_airflow) as api:
        assert api.run(dag_run_id, conf)["state"] == "success"
        assert api.tasks(dag_run_id) == dict.fromkeys(TASKS, "success")
        result = api.result(dag_run_id, "registration")
        carried = [len(json.dumps(api.result(dag_run_id, task))) for task in TASKS]
    card = json.loads(Path(result["card"]["uri"]).read_text())
    assert (card["model"], card["trigger_id"], card["alerts"]) == (model, trigger_id, alerts)
    assert card["metrics"]["accuracy"] > 0.85
    assert max(carried) < 2048  # References and digests travel between tasks, never the data.
