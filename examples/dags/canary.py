"""The canary of the trigger gateway (docs/how-to/canary.md). It does nothing: if it fails, the fault is on the way to it.

On Airflow 2 the import is `from airflow.decorators import dag, task`.
"""

# Airflow has its own environment, which our type checker cannot see.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False, tags=["trigger-gateway"], default_args={"retries": 0})
def canary() -> None:
    """Only the gateway starts it."""

    @task
    def sing() -> None:
        """Show that a worker took the task."""

    sing()


canary()
