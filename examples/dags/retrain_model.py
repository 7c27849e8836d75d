"""Retrain one model: data retrieval -> validation -> training -> evaluation -> registration -> promotion.

The gateway starts this DAG with `conf["gateway"]`: the trigger, its group (which model) and the alerts behind it. A
person may start it without a conf. Then it retrains the model named `default`.

The steps are in retrain_steps.py. They run in a Python of their own, which has MLflow, mlflow-spool and scikit-learn.
These packages and Airflow hold each other's dependencies back, and training code changes more often than Airflow does.
Each step is a plain process and not `@task.external_python`, which copies a function without the module around it. So a
person can run a step by hand, a test can import it, and MLflow sees its git commit.

Variables of the environment:

- `RETRAIN_PYTHON`: the Python of the steps.
- `MLFLOW_TRACKING_URI`, `MLFLOW_SPOOL_DIR`: where the steps report to.
- `RETRAIN_STORE`: where the data is kept.
- `RETRAIN_GIT_COMMIT`: the commit, when the DAGs folder is no git checkout.
- `GATEWAY_URL`, `GATEWAY_TOKEN` (scope `promote`): the gateway that decides whether to promote the new version. Without them
  the new version is only registered.
- `RETRAIN_PROMOTE_TO`: the alias, when the policy has several for the model.
"""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, get_current_context, task

PYTHON = os.environ.get("RETRAIN_PYTHON") or sys.executable
STEPS = Path(__file__).with_name("retrain_steps.py")


def run_step(step: str, work: dict[str, Any]) -> dict[str, Any]:
    """Run one step to its end. Its messages are in this task's log."""
    done = subprocess.run([PYTHON, STEPS, step], input=json.dumps(work), stdout=subprocess.PIPE, text=True, check=True)
    handed_on: dict[str, Any] = json.loads(done.stdout)
    return handed_on


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 0},
    tags=["trigger-gateway"],
    doc_md=__doc__,
)
def retrain_model() -> None:
    @task
    def data_retrieval() -> dict[str, Any]:
        """Read the conf. No other task does."""
        run = get_current_context()["dag_run"]
        gateway = (run.conf or {}).get("gateway", {})
        work = {
            "model": gateway.get("group", {}).get("model") or "default",
            "trigger_id": gateway.get("trigger_id"),
            "dag_id": run.dag_id,
            "dag_run_id": run.run_id,
            "git_commit": os.environ.get("RETRAIN_GIT_COMMIT"),
        }
        return run_step("data_retrieval", work)

    @task
    def validation(work: dict[str, Any]) -> dict[str, Any]:
        return run_step("validation", work)

    @task
    def training(work: dict[str, Any]) -> dict[str, Any]:
        return run_step("training", work)

    @task
    def evaluation(work: dict[str, Any]) -> dict[str, Any]:
        return run_step("evaluation", work)

    @task
    def registration(work: dict[str, Any]) -> dict[str, Any]:
        return run_step("registration", work)

    # The gate answers 503 while it cannot read MLflow, and 409 while it promotes another version of the model. While the
    # version waits in the spool, the task cannot ask at all.
    @task(retries=40, retry_delay=timedelta(seconds=30))
    def promotion(work: dict[str, Any]) -> dict[str, Any]:
        return run_step("promotion", work)

    promotion(registration(evaluation(training(validation(data_retrieval())))))


retrain_model()
