"""A DAG that runs for `conf["seconds"]` (default 20): long enough to pull the gateway down in the middle of it."""

# Airflow lives in an environment of its own, so the type checker of this one cannot see it.
# mypy: disable-error-code="import-not-found, untyped-decorator"

import time

from airflow.sdk import dag, get_current_context, task


@dag(schedule=None, catchup=False, default_args={"retries": 0})
def slow_dag() -> None:
    @task
    def training() -> None:
        conf = get_current_context()["dag_run"].conf or {}
        time.sleep(float(conf.get("seconds", 20)))

    training()


slow_dag()
