"""How Airflow's two REST APIs differ: v2 of Airflow 3, and v1 of Airflow 2. Pure.

Facts about v1 were measured with Airflow 2.11.2. A run is posted without a logical date (null is a 400). It has no
`queued_at`; its logical date is the moment of the post. A wrong login and a missing permission are the same 403 with a
null detail. Airflow checks the types of a body before the permission, and its fields after it. PATCH takes no
`update_mask`. A DAG whose file is broken or gone has `has_import_errors` or lacks `is_active`. Import errors name files
by their whole path. The DAG processor is a part of the scheduler unless it runs alone.
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
    basic_auth: ClassVar[bool] = False  # the password goes to the login, which gives a token
    update_mask: ClassVar[Mapping[str, str]] = {"update_mask": "state"}
    lists_unknown_dags: ClassVar[bool] = False  # as DAGs without runs, instead of a 404
    login_help: ClassVar[str] = "Airflow does not take the token, check airflow.auth in the policy file"
    #: Members of a run that not every release with this API knows. An unknown one is a 400.
    optional: ClassVar[frozenset[str]] = frozenset()
    #: A body that no Airflow takes, and the status that it answers to a user with the permission to start runs.
    impossible: ClassVar[tuple[Mapping[str, Any], int]] = (
        {"dag_run_id": None, "logical_date": "never", "conf": None},
        422,
    )

    def run_body(self, dag_run_id: str, conf: Mapping[str, Any], note: str | None) -> dict[str, Any]:
        """The body of a POST for a run that belongs to no date of a schedule."""
        return {"dag_run_id": dag_run_id, "logical_date": None, "conf": dict(conf), "note": note}

    def read_run(self, body: Any) -> DagRun | None:
        """A DAG run from its JSON, or None when the JSON is something else."""
        return read_run(body)

    def read_health(self, body: Any) -> Health | None:
        """The health of each component, or None if the body is something else."""
        return read_health(body)

    def file_of(self, dag: Mapping[str, Any]) -> Any:
        """The DAG's file as import errors name it."""
        return dag.get("relative_fileloc")

    def is_gone(self, dag: Mapping[str, Any]) -> bool:
        """Whether Airflow only remembers the DAG, and refuses a run of it."""
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
    optional = frozenset({"note"})  # Airflow 2.5 and older do not know it.
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
