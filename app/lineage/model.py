"""A run, a model version and an alias of MLflow, as far as lineage needs them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record goes, and as whom: MLflow's workspace, and the name in the login with which it was logged. Empty: the
    default workspace, and the login of the policy."""

    login: str = ""
    workspace: str = ""


HERE = Place()

TRIGGER_TAG = "gateway.trigger_id"
DAG_RUN_TAG = "airflow.dag_run_id"
COMMIT_TAG = "mlflow.source.git.commit"
PARENT_TAG = "mlflow.parentRunId"

_LONGEST = 500  # characters; a longer text is cut
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SeenRun:
    """One run. `trigger_id` is None when the tag is missing or is not a UUID."""

    run_id: str
    experiment_id: str
    name: str
    status: str  # RUNNING, SCHEDULED, FINISHED, FAILED, KILLED
    deleted: bool
    trigger_id: UUID | None
    dag_run_id: str | None  # of the tag airflow.dag_run_id, with or without a trigger
    git_commit: str | None
    parent: str | None  # the run that it is nested in; lineage judges that run alone
    metrics: int  # how many it has
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class SeenVersion:
    """One version of a registered model, and the run that it names as its source."""

    model: str
    version: str
    run_id: str | None
    status: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class SeenAlias:
    """An alias of a registered model, and the version that it names. That version may be gone."""

    model: str
    alias: str
    version: str


def read_run(item: Json, tags: Mapping[str, str]) -> SeenRun:
    """Read a run of MLflow's API, with its tags."""
    info, data = item.get("info") or {}, item.get("data") or {}
    return SeenRun(
        run_id=_text(info.get("run_id")),
        experiment_id=_text(info.get("experiment_id")),
        name=_text(info.get("run_name") or tags.get("mlflow.runName")),
        status=_text(info.get("status")),
        deleted=info.get("lifecycle_stage") == "deleted",
        trigger_id=_ident(tags.get(TRIGGER_TAG)),
        dag_run_id=_text(tags.get(DAG_RUN_TAG)) or None,
        git_commit=_text(tags.get(COMMIT_TAG)) or None,
        parent=_text(tags.get(PARENT_TAG)) or None,
        metrics=len(data.get("metrics") or []),
        started_at=_time(info.get("start_time")),
        ended_at=_time(info.get("end_time")),
    )


def read_version(item: Json) -> SeenVersion:
    """Read a model version of MLflow's API."""
    return SeenVersion(
        model=_text(item.get("name")),
        version=_text(item.get("version")),
        run_id=_text(item.get("run_id")) or None,
        status=_text(item.get("status")),
        created_at=_time(item.get("creation_timestamp")),
    )


def read_aliases(item: Json) -> list[SeenAlias]:
    """Read the aliases of a registered model of MLflow's API."""
    model = _text(item.get("name"))
    found = [alias for alias in item.get("aliases") or [] if isinstance(alias, dict)]
    return [SeenAlias(model, _text(alias.get("alias")), _text(alias.get("version"))) for alias in found]


def _text(value: object) -> str:
    # Postgres cannot store NUL, and a name of kilobytes helps nobody.
    return str(value if value is not None else "").replace("\x00", "")[:_LONGEST]


def _ident(value: str | None) -> UUID | None:
    try:
        return UUID(value) if value else None
    except ValueError:
        return None


def _time(value: object) -> datetime | None:
    """Milliseconds since 1970, as a number or, in some answers, as text."""
    try:
        return _EPOCH + timedelta(milliseconds=int(str(value))) if value else None
    except (ValueError, OverflowError):
        return None
