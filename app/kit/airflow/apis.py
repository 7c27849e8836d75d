"""How Airflow's two REST APIs differ: v2 of Airflow 3, and v1 of Airflow 2. Pure.

Facts about v1 were measured with Airflow 2.11.2: a run is posted without a logical date (null is a 400), and has no
`queued_at`; the date that Airflow gives it is the moment of the post. A wrong login and a missing permission are the same
403 with a null detail; a body is judged by its types before the permission, and by its fields after it. PATCH takes no
`update_mask`. A DAG whose file is broken or gone is shown with `has_import_errors` or without `is_active`, and import errors
name files by their whole path. The DAG processor is part of the scheduler unless it runs alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from app.kit.airflow.answers import DagRun, Health, read_health, read_run


class ApiV2:
    """Airflow 3."""

    version: ClassVar[str] = "v2"
    root: ClassVar[str] = "/api/v2"
    health_path: ClassVar[str] = "/monitor/health"
    basic_auth: ClassVar[bool] = False  # a password is shown to the login, which gives a token for it
    update_mask: ClassVar[Mapping[str, str]] = {"update_mask": "state"}
    lists_unknown_dags: ClassVar[bool] = False  # as DAGs without runs, instead of a 404
    login_help: ClassVar[str] = "Airflow does not take the token, check airflow.auth in the policy file"
    #: A body that no Airflow takes, and what it is answered to who may post a better one.
    impossible: ClassVar[tuple[Mapping[str, Any], int]] = (
        {"dag_run_id": None, "logical_date": "never", "conf": None},
        422,
    )

    def run_body(self, dag_run_id: str, conf: Mapping[str, Any], note: str | None) -> dict[str, Any]:
        """What is posted for a run that stands for no date of a schedule."""
        return {"dag_run_id": dag_run_id, "logical_date": None, "conf": dict(conf), "note": note}

    def read_run(self, body: Any) -> DagRun | None:
        """A DAG run from its JSON, or None if it is none."""
        return read_run(body)

    def read_health(self, body: Any) -> Health | None:
        """The health of each component, or None if the body is something else."""
        return read_health(body)

    def file_of(self, dag: Mapping[str, Any]) -> Any:
        """The DAG's file as import errors name it."""
        return dag.get("relative_fileloc")

    def is_gone(self, dag: Mapping[str, Any]) -> bool:
        """Whether the DAG is only remembered: a run posted to it is refused."""
        return dag.get("has_import_errors") is True or dag.get("is_stale") is True


class ApiV1(ApiV2):
    """Airflow 2."""

    version = "v1"
    root = "/api/v1"
    health_path = "/health"
    basic_auth = True
    update_mask: ClassVar[Mapping[str, str]] = {}
    lists_unknown_dags = True
    login_help = (
        "Airflow 2 does not let this user in: check airflow.auth in the policy file, and that [api] auth_backends "
        "in Airflow has airflow.api.auth.backend.basic_auth"
    )
    impossible = ({"dag_run_id": None, "logical_date": None}, 400)

    def run_body(self, dag_run_id: str, conf: Mapping[str, Any], note: str | None) -> dict[str, Any]:
        return {"dag_run_id": dag_run_id, "conf": dict(conf), "note": note}

    def read_run(self, body: Any) -> DagRun | None:
        return read_run({"queued_at": body.get("logical_date"), **body}) if isinstance(body, dict) else None

    def read_health(self, body: Any) -> Health | None:
        health = read_health(body)
        if health is None or health.dag_processor is not None:
            return health
        return replace(health, dag_processor=health.scheduler)

    def file_of(self, dag: Mapping[str, Any]) -> Any:
        return dag.get("fileloc")

    def is_gone(self, dag: Mapping[str, Any]) -> bool:
        return dag.get("has_import_errors") is True or dag.get("is_active") is False


APIS: Final[Mapping[str, ApiV2]] = {"v2": ApiV2(), "v1": ApiV1()}
