"""A DAG whose only task fails at once: what a broken training looks like from outside."""

# Airflow lives in an environment of its own, so the type checker of this one cannot see it.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False, default_args={"retries": 0})
def always_fails() -> None:
    @task
    def training() -> None:
        raise RuntimeError("this training always fails")

    training()


always_fails()
