"""A file that holds the airflow dag `broken_dag` and cannot be imported: Airflow lists it under its import errors."""

# mypy: disable-error-code="import-not-found, untyped-decorator"

from airflow.sdk import dag, task

raise ImportError("broken_dag needs a library that is not installed here")


@dag(schedule=None, catchup=False)
def broken_dag() -> None:
    @task
    def training() -> str:
        return "trained"

    training()


broken_dag()
