"""A DAG that a real Airflow always answers 500 for holds up no other DAG, and its trigger dies with the reason."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.kit.embedded.processes import free_ports
from demo.airflow import Airflow
from tests import plain
from tests.e2e.gateway import Gateway
from tests.e2e.processes import eventually

pytestmark = pytest.mark.slow

POLICY = """\
version: 1
airflow:
  - name: default
    url: __AIRFLOW__
    auth: {username: "${AIRFLOW_USERNAME}", password: "${AIRFLOW_PASSWORD}"}
    max_parallel: 1
routes:
  - {name: poisoned, match: ['alertname="poisoned"'], dag: {id: poisoned_dag}}
  - {name: beside, match: ['alertname="beside"'], group_by: [model], dag: {id: quick_dag}}
"""


@pytest.fixture
def strict(real_airflow: Airflow, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway of its own: what waits here must not show in the health of the others' gateway."""
    server = Gateway(
        folder=tmp_path / "gateway",
        port=free_ports(1)[0],
        policy=POLICY.replace("__AIRFLOW__", real_airflow.url),
        variables={
            "AIRFLOW_USERNAME": real_airflow.username,
            "AIRFLOW_PASSWORD": real_airflow.password,
            "GATEWAY_DELIVERY_DEADLINE": "60",
            "GATEWAY_RETRY_MAX": "5",
        },
    )
    server.start()
    yield server
    server.stop()


def alert(alert_id: str, **labels: str) -> dict[str, Any]:
    return {"alert_id": alert_id, "severity": "critical", "timestamp": datetime.now(UTC).isoformat(), "labels": labels}


def test_another_dag_starts_within_seconds_and_the_poisoned_trigger_dies_named(strict: Gateway) -> None:
    strict.post("/alerts", alert("poisoned"))

    def failed() -> bool:
        (trigger,) = strict.triggers("poisoned")
        return bool(sum(attempt["count"] for attempt in trigger["attempts"]) >= 3)

    eventually("three attempts to fail", failed)
    (trigger,) = strict.triggers("poisoned")
    assert (trigger["state"], trigger["blocked"]) == ("pending", "server_error")
    probe = plain.get(f"{strict.url}/health/orchestrator")
    assert probe.status_code == 503
    assert trigger["id"] in probe.json()["checks"]["default triggers"]
    for model in ("churn", "fraud"):
        strict.post("/alerts", alert("beside", model=model))
        assert strict.settled("beside", within=30, model=model)["state"] == "succeeded"
    dead = strict.settled("poisoned", within=120)
    assert dead["state"] == "dead"
    assert "Airflow answered 500 to the trigger of DAG 'poisoned_dag'" in dead["detail"]
