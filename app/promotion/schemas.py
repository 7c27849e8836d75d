"""The shapes of the promotion routes, with the examples that the OpenAPI document shows."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from app.promotion.model import Standing
from app.web.members import RequestBody

#: Both registries number the versions of a model from 1, in 32 bits. They do not find another spelling of a number.
VERSION = r"^[1-9][0-9]{0,8}$"
Kind = Literal["promote", "rollback"]
State = Literal[
    "open", "moving", "promoted", "rolled_back", "unchanged", "passed", "blocked", "lost", "undone", "unreadable"
]

_ID = "01936f8e-52a1-7c3e-9d5a-1f0e6c2b7a44"
VERDICTS = [
    {"rule": "version", "passed": True, "detail": "version 4 is READY", "final": True},
    {"rule": "metric f1", "passed": True, "detail": "f1 is 0.87", "final": False},
    {"rule": "f1 >= champion.f1 + 0.005", "passed": True, "detail": "f1 is 0.87, champion.f1 is 0.85", "final": False},
]
FAILED = [
    VERDICTS[0],
    {"rule": "f1 >= champion.f1 + 0.005", "passed": False, "detail": "f1 is 0.84, champion.f1 is 0.87", "final": False},
]
PROMOTION: dict[str, Any] = {
    "id": _ID,
    "kind": "promote",
    "registry": "mlflow",
    "model": "churn",
    "version": "4",
    "to": "champion",
    "state": "promoted",
    "mode": "live",
    "dry_run": False,
    "override": False,
    "requested_by": "ci",
    "reason": None,
    "expected": None,
    "previous": "3",
    "target": "4",
    "rollback_of": None,
    "verdicts": VERDICTS,
    "tags": {"validation_status": "promoted", "gateway.promotion": _ID},
    "detail": "version 4 holds champion",
    "policy": "3f9c2a71b0de",
    "created_at": "2026-11-24T03:00:00Z",
    "ended_at": "2026-11-24T03:00:01Z",
    "trigger_id": "01936f8e-52a1-7c3e-9d5a-1f0e6c2b7a40",
    "metrics": {"f1": {"version": 0.87, "before": 0.85}},
    "probation": {
        "state": "watching",
        "until": "2026-11-26T03:00:01Z",
        "detail": "no alert has spoken against version 4",
        "alert": None,
    },
}
ROLLED_BACK = PROMOTION | {
    "kind": "rollback",
    "state": "rolled_back",
    "rollback_of": _ID,
    "previous": "4",
    "target": "3",
    "reason": "customers complain",
    "verdicts": [{"rule": "holds champion", "passed": True, "detail": "version 4 holds champion", "final": True}],
    "tags": {"validation_status": "rolled_back"},
    "detail": "version 3 holds champion",
    "trigger_id": None,
    "metrics": None,
    "probation": None,
}


class VerdictOut(BaseModel):
    """The result of one requirement."""

    rule: str
    passed: bool
    detail: str
    final: bool = Field(description="No override overcomes this verdict when it failed.")


class Beside(BaseModel):
    """One metric of the version, and of the version that held the alias before."""

    version: float
    before: float | None = Field(description="null: no version held it, it lacks the metric, or it was not read.")


class ProbationOut(BaseModel):
    """What the probation of a promotion has come to."""

    state: Standing
    until: datetime = Field(description="An alert that begins before then may speak against the version.")
    detail: str = Field(description="One sentence for a person.")
    alert: UUID | None = Field(description="The alert that speaks against the version.")


class PromotionOut(BaseModel):
    """One request to promote a version or to roll back, and its result."""

    model_config = ConfigDict(json_schema_extra={"example": PROMOTION})

    id: UUID
    kind: Kind
    registry: Literal["mlflow", "sagemaker"]
    model: str
    version: str
    to: str
    state: State
    mode: Literal["live", "shadow"]
    dry_run: bool
    override: bool
    requested_by: str
    reason: str | None
    expected: str | None
    previous: str | None = Field(description="The version that held the alias when the gate judged; null: none.")
    target: str | None = Field(description="The version that should hold the alias afterwards; null: none.")
    rollback_of: UUID | None
    verdicts: list[VerdictOut]
    tags: dict[str, str] = Field(description="The tags that the gate writes on the version.")
    detail: str
    policy: str
    created_at: datetime
    ended_at: datetime | None
    trigger_id: UUID | None = Field(description="The trigger whose DAG run made the version, if the run names it.")
    metrics: dict[str, Beside] | None = Field(description="The metrics of the version; null: it was not read.")
    probation: ProbationOut | None = Field(description="null: the policy had none when the promotion ended.")


class PromotionPage(BaseModel):
    """Promotions, the newest first."""

    items: list[PromotionOut]
    next: UUID | None


_Text = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")]
_Version = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) and not isinstance(value, bool) else value),
    StringConstraints(pattern=VERSION),
]


class PromotionBody(RequestBody):
    """The version to promote, and the alias to give it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"model": "churn", "version": "4", "to": "champion", "expected": "3"}},
    )

    model: _Text = Field(description="The registered model, or the model package group.")
    version: _Version = Field(description="The version's number in the registry, as text or as a number.")
    to: _Text | None = Field(
        None, description="The alias. You may leave it out when the policy has only one for the model."
    )
    expected: Annotated[str, StringConstraints(pattern=rf"{VERSION}|^$")] | None = Field(
        None, description="The version that must hold the alias now; an empty text: none. Left out: not compared."
    )
    dry_run: bool = Field(False, description="Judge and record, change nothing.")
    override: bool = Field(
        False, description="Promote in spite of rules and required metadata. Needs the scope `override` and a reason."
    )
    reason: _Text | None = Field(
        None, description="Why. It is kept, and with an override it is written on the version."
    )

    @model_validator(mode="after")
    def _explained(self) -> "PromotionBody":
        if self.override and self.reason is None:
            raise ValueError("an override needs a reason")
        return self


class NewVersion(BaseModel):
    """The part of `data` that the gateway reads of a new version. MLflow writes the version as text."""

    name: _Text
    version: _Version


class RegistryEvent(BaseModel):
    """An event of MLflow's registry. The gateway acts on `model_version`, `created` alone."""

    entity: str
    action: str
    data: dict[str, Any]


class Gated(BaseModel):
    """The promotions of a new version, one for each alias; empty when no entry has `on_new_version`."""

    promotions: list[PromotionOut]


EVENT: dict[str, Any] = {
    "entity": "model_version",
    "action": "created",
    "timestamp": "2026-11-23T09:14:32.631106+00:00",
    "data": {"name": "churn", "version": "4", "source": "models:/m-1", "run_id": "r1", "tags": {}, "description": None},
}


class RollbackBody(RequestBody):
    """Why the promotion is rolled back."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "customers complain"}})

    reason: _Text | None = Field(None, description="Why. It is kept.")
