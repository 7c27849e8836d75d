"""A DAG that Airflow cannot start: its cluster has a hook that raises for it (see conftest.py)."""

# Airflow lives in an environment of its own, so the type checker of this one cannot see it.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False, default_args={"retries": 0})
def poisoned_dag() -> None:
    @task
    def training() -> None:
        """Nobody comes here."""

    training()


poisoned_dag()
