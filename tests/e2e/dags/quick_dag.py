"""A DAG that succeeds at once: for tests of what leads to a DAG run, and of what comes after it."""

# Airflow lives in an environment of its own, so the type checker of this one cannot see it.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False, default_args={"retries": 0})
def quick_dag() -> None:
    @task
    def training() -> None:
        """Nothing to do."""

    training()


quick_dag()
