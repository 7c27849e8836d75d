"""A DAG that is paused until a test unpauses it, and then runs to success."""

# Airflow lives in an environment of its own, so the type checker of this one cannot see it.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False, is_paused_upon_creation=True, default_args={"retries": 0})
def unpaused_later() -> None:
    @task
    def training() -> str:
        return "trained"

    training()


unpaused_later()
