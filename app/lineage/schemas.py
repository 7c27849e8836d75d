"""The shapes of lineage's answers, with their examples."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.decide.state import Action, Reason
from app.explain import examples
from app.explain.schemas import AlertBehind
from app.lineage.rules import Kind, Link

_RUN = examples.TRIGGER["runs"][0]
VERSION: dict[str, Any] = {
    "model": "churn",
    "version": "12",
    "run_id": _RUN["run_id"],
    "status": "READY",
    "created_at": "2026-11-23T03:21:38.102Z",
    "aliases": ["champion"],
    "promotions": [
        {
            "to": "champion",
            "id": "019ab2c4-8d1e-7c3a-9f00-3c5b7d9e1f22",
            "kind": "promote",
            "state": "promoted",
            "previous": "11",
            "requested_by": "ci",
            "detail": "version 12 holds champion",
            "created_at": "2026-11-23T03:25:11.204Z",
            "ended_at": "2026-11-23T03:25:11.390Z",
        }
    ],
}
LINEAGE: dict[str, Any] = {
    "subject": {"model": "churn", "version": "12"},
    "chains": [
        {
            "alerts": examples.TRIGGER["alerts"],
            "decisions": [
                {
                    "alert": examples.TRIGGER["alerts"][0]["id"],
                    "action": "fire",
                    "reason": "new_alert",
                    "until": None,
                    "detail": "a new alert fires",
                    "count": 1,
                    "first_at": "2026-11-23T03:00:01.204Z",
                    "last_at": "2026-11-23T03:00:01.204Z",
                    "policy": "5f0c2ab91d3e",
                }
            ],
            "trigger": {
                name: value for name, value in examples.TRIGGER.items() if name not in ("alerts", "runs", "attempts")
            },
            "dag_run": {
                "airflow": "default",
                "dag_id": "retrain_model",
                "dag_run_id": examples.TRIGGER["dag_run_id"],
                "state": "success",
            },
            "runs": [
                {
                    "run_id": _RUN["run_id"],
                    "experiment_id": "1",
                    "name": _RUN["name"],
                    "status": "FINISHED",
                    "deleted": False,
                    "git_commit": "3fe19b6312176b561a2a916a44d595233dd41141",
                    "metrics": 5,
                    "started_at": "2026-11-23T03:00:04.711Z",
                    "ended_at": "2026-11-23T03:21:39.204Z",
                    "trigger_id": examples.TRIGGER["id"],
                    "versions": [VERSION],
                }
            ],
            "versions": [],
        }
    ],
    "missing": [],
    "mlflow": {"state": "asked", "detail": ""},
}
ORPHAN: dict[str, Any] = {
    "key": f"run_without_git_commit:{_RUN['run_id']}",
    "kind": "run_without_git_commit",
    "missing": "git_commit",
    "detail": f"run {_RUN['run_id']} does not say from which git commit its code came",
    "about": {"run_id": _RUN["run_id"]},
    "first_at": "2026-11-23T04:30:00.120Z",
    "last_at": "2026-11-23T04:45:00.118Z",
}


class DecisionOfChain(BaseModel):
    """One decision that led to the trigger. `alert` is null when a person or a schedule asked for it."""

    alert: UUID | None
    action: Action
    reason: Reason
    until: datetime | None
    detail: str
    count: int
    first_at: datetime
    last_at: datetime
    policy: str


class DagRunOfChain(BaseModel):
    """Airflow's DAG run. Only the id is known of a DAG run that the gateway did not start."""

    airflow: str | None
    dag_id: str | None
    dag_run_id: str
    state: str | None


class PromotionOfChain(BaseModel):
    """One promotion of the version to an alias, or one rollback."""

    to: str
    id: UUID
    kind: str
    state: str
    previous: str | None
    requested_by: str
    detail: str
    created_at: datetime
    ended_at: datetime | None


class VersionOfChain(BaseModel):
    """One version of a registered model."""

    model: str
    version: str
    run_id: str | None
    status: str
    created_at: datetime | None
    aliases: list[str]
    promotions: list[PromotionOfChain]


class RunOfChain(BaseModel):
    """One run in MLflow, and the versions that come from it."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    deleted: bool
    git_commit: str | None
    metrics: int = Field(description="How many metrics it has.")
    started_at: datetime | None
    ended_at: datetime | None
    trigger_id: UUID | None
    versions: list[VersionOfChain]


class Chain(BaseModel):
    """One trigger with its causes and its results. `trigger` is null when the gateway did not start the run."""

    alerts: list[AlertBehind]
    decisions: list[DecisionOfChain]
    trigger: dict[str, Any] | None = Field(description="As in `GET /triggers/{id}`.")
    dag_run: DagRunOfChain | None
    runs: list[RunOfChain]
    versions: list[VersionOfChain] = Field(description="Versions whose run MLflow does not have.")


class Gap(BaseModel):
    """A link that is missing: which, of what, and a sentence."""

    link: str = Field(description="dag_run, run, trigger, git_commit or metrics; mlflow: MLflow was not asked.")
    of: str
    detail: str


class MlflowAsked(BaseModel):
    """Whether MLflow's side is fresh. `state` is `asked`, `away` (the side is as last seen) or `not_configured`."""

    state: str
    detail: str


class LineageOut(BaseModel):
    """The chains that contain the subject, the newest trigger first."""

    model_config = ConfigDict(json_schema_extra={"example": LINEAGE})

    subject: dict[str, str]
    chains: list[Chain]
    missing: list[Gap]
    mlflow: MlflowAsked


class OrphanOut(BaseModel):
    """One thing that lacks a link of its lineage."""

    model_config = ConfigDict(json_schema_extra={"example": ORPHAN})

    key: str
    kind: Kind
    missing: Link
    detail: str
    ids: dict[str, str] = Field(alias="about", description="The ids of the thing: run_id, model, version, alias, ...")
    first_at: datetime
    last_at: datetime
