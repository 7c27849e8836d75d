"""Where the parts of a chain are to be looked at: Airflow's and MLflow's own pages."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from app.policy.schema import Policy

Row = Mapping[str, Any]


def links_of(policy: Policy, trigger: Row) -> dict[str, Any]:
    """The address of the trigger's DAG run in Airflow, and those in MLflow of its runs by their id and of its model versions
    by (model, version). None: the policy no longer names the server."""
    airflow = policy.airflow_named(trigger["airflow"])
    run = None
    if airflow is not None and trigger["fired_at"] is not None:
        dag, run_id = quote(trigger["dag_id"], safe=""), quote(trigger["dag_run_id"], safe="")
        page = f"dags/{dag}/runs/{run_id}" if airflow.api == "v2" else f"dags/{dag}/grid?dag_run_id={run_id}"
        run = f"{str(airflow.url).rstrip('/')}/{page}"
    versions, runs = {}, {}
    if policy.mlflow is not None:
        base = str(policy.mlflow.tracking_uri).rstrip("/")
        runs = {each["run_id"]: f"{base}/#/runs/{quote(each['run_id'], safe='')}" for each in trigger["runs"]}
        for made in (version for each in trigger["runs"] for version in each["versions"]):
            model, number = quote(made["model"], safe=""), quote(made["version"], safe="")
            versions[made["model"], made["version"]] = f"{base}/#/models/{model}/versions/{number}"
    return {"run": run, "runs": runs, "versions": versions}
