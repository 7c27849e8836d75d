"""Retrain one model: data retrieval -> validation -> training -> evaluation -> registration -> promotion.

The gateway starts this DAG with `conf["gateway"]`: the trigger, its group (which model) and the alerts behind it. Started by
hand, without a conf, it retrains the model named `default`.

The steps are in retrain_steps.py and run in a Python of their own, `RETRAIN_PYTHON`, which has MLflow, mlflow-spool and
scikit-learn: these and Airflow hold each other's dependencies back, and training code changes more often than Airflow does.
It is a plain process and not `@task.external_python`, which copies each function without the module around it: so a step
can be run by hand, a test can import it, and MLflow sees from which git commit it comes. `MLFLOW_TRACKING_URI` and
`MLFLOW_SPOOL_DIR` say where it reports, `RETRAIN_STORE` where the data is kept, `RETRAIN_GIT_COMMIT` the commit of a
DAGs folder that is no git checkout. `GATEWAY_URL` and `GATEWAY_TOKEN` (scope `promote`) lead to the gateway whose gate
decides whether the new version is promoted (to the mark `RETRAIN_PROMOTE_TO`, needed when the policy has several for the
model); without them nobody is asked.
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
    """Run one step to its end; what it says to people is in this task's log."""
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
        """The only task that reads the conf."""
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

    # The gate answers 503 while it cannot read MLflow and 409 while it promotes another version of the model, and nobody can
    # be asked while the version waits in the spool.
    @task(retries=40, retry_delay=timedelta(seconds=30))
    def promotion(work: dict[str, Any]) -> dict[str, Any]:
        return run_step("promotion", work)

    promotion(registration(evaluation(training(validation(data_retrieval())))))


retrain_model()
