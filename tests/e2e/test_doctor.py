"""The doctor before real servers: Airflow, Alertmanager and a gateway that runs, of whose database it reads."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.kit.airflow.client import AirflowClient, PasswordAuth
from app.kit.clock import SystemClock
from app.kit.http import open_http
from demo.airflow import Airflow
from tests.e2e.gateway import Gateway
from tests.e2e.processes import Alertmanager

pytestmark = pytest.mark.slow

POLICY = """\
version: 1
airflow:
  - name: default
    url: __AIRFLOW__
    auth: {username: "${AIRFLOW_USERNAME}", password: "${AIRFLOW_PASSWORD}"}
routes:
  - {name: accuracy, match: ['alertname="ModelAccuracyLow"'], debounce: 6s, dag: {id: retrain_model}}
  - {name: hasty, match: ['alertname="Hasty"'], debounce: 1s, dag: {id: retrain_model}}
  - {name: forgetful, match: ['alertname="Forgetful"'], stale_after: 1m, dag: {id: paused_dag}}
  - {name: lost, match: ['alertname="Lost"'], dag: {id: no_such_dag}}
  - {name: broken, match: ['alertname="Broken"'], dag: {id: broken_dag}}
"""


def examined(
    gateway: Gateway, folder: Path, airflow: str, *options: str, **variables: str
) -> tuple[int, dict[str, Any]]:
    """The exit code, and what was found by what was looked at."""
    policy = folder / "policy.yaml"
    policy.write_text(POLICY.replace("__AIRFLOW__", airflow))
    environment = gateway.environment() | {"GATEWAY_POLICY_FILE": str(policy), "GATEWAY_URL": gateway.url} | variables
    program = Path(sys.executable).with_name("trigger-gateway")
    done = subprocess.run([program, "doctor", "--json", *options], env=environment, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return done.returncode, {check["check"]: check for check in json.loads(done.stdout)["checks"]}


def test_each_fault_of_real_servers_is_named_and_what_is_well_is_well(
    gateway: Gateway, real_airflow: Airflow, alertmanager: Alertmanager, tmp_path: Path
) -> None:
    code, found = examined(gateway, tmp_path, real_airflow.url, "--alertmanager", alertmanager.url)
    assert code == 1
    levels = {check: finding["level"] for check, finding in found.items() if finding["level"] != "ok"}
    assert levels.pop("policy") == "warn", "a debounce below five minutes"
    assert levels == {
        "airflow default DAG paused_dag": "fail",
        "airflow default DAG no_such_dag": "fail",
        "airflow default DAG broken_dag": "fail",
        "alertmanager route hasty": "fail",
        "alertmanager route forgetful": "fail",
    }
    assert "paused" in found["airflow default DAG paused_dag"]["detail"]
    assert "no DAG 'no_such_dag'" in found["airflow default DAG no_such_dag"]["detail"]
    assert "broken_dag.py" in found["airflow default DAG broken_dag"]["detail"]
    assert gateway.webhook in found["alertmanager receiver"]["detail"]
    assert found["gateway"]["level"] == found["airflow default clock"]["level"] == "ok"


def test_a_wrong_password_of_a_real_airflow_is_named(gateway: Gateway, real_airflow: Airflow, tmp_path: Path) -> None:
    code, found = examined(gateway, tmp_path, real_airflow.url, AIRFLOW_PASSWORD="wrong")
    assert (code, found["airflow default login"]["level"]) == (1, "fail")
    assert "Correct `auth`" in found["airflow default login"]["next_step"]


async def test_a_real_airflow_tells_who_may_start_runs_and_starts_none(real_airflow: Airflow) -> None:
    before = await real_airflow.runs("paused_dag")
    async with open_http() as http:
        auth = PasswordAuth(real_airflow.username, real_airflow.password)
        assert await AirflowClient(http, real_airflow.url, auth, SystemClock()).may_trigger("paused_dag") is True
    assert await real_airflow.runs("paused_dag") == before
