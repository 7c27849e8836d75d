"""The canary of the trigger gateway (docs/how-to/canary.md): a DAG that does nothing, so that whatever goes wrong is the way to it.

On Airflow 2 the import is `from airflow.decorators import dag, task`.
"""

# Airflow lives in an environment of its own, so the type checker of this one cannot see it.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False, tags=["trigger-gateway"], default_args={"retries": 0})
def canary() -> None:
    """Started by the gateway, and by nobody else."""

    @task
    def sing() -> None:
        """A worker took it."""

    sing()


canary()
