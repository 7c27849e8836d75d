"""The shapes of the answers about effects, for the OpenAPI document, with an example of each."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.decide.state import Reason, TriggerState
from app.effects.rules import Effect, Why
from app.explain import examples
from app.promotion.model import Standing

_TRIGGER = examples.TRIGGER
_EFFECT: dict[str, Any] = {
    "trigger_id": _TRIGGER["id"],
    "route": "accuracy",
    "group": {"model": "churn"},
    "model": "churn",
    "version": "12",
    "fired_for": "new_alert",
    "state": "succeeded",
    "outcome": "success",
    "fired_at": _TRIGGER["fired_at"],
    "ended_at": _TRIGGER["ended_at"],
    "run_hours": 0.3607,
    "effect": "recurred",
    "reason": "again",
    "detail": "ModelAccuracyLow began again 1d2h after the new model",
    "until": None,
    "judged_at": "2026-11-24T05:40:02.118Z",
    "counts_from": "2026-11-23T03:30:12.730Z",
    "promotion": "0198c2f6-13aa-7c11-8f00-5d1b6a0a7e02",
    "former": [],
    "probation": {
        "state": "rolled_back",
        "until": "2026-11-25T03:30:12.730Z",
        "detail": "its probation failed: ModelAccuracyLow began 1d2h after the promotion, and lasted 10m; "
        "version 11 holds champion again",
    },
}
_SUMS: dict[str, Any] = {
    "retrains": 8,
    "fixed": 1,
    "recurred": 4,
    "not_promoted": 1,
    "no_model": 0,
    "failed": 1,
    "unknown": 0,
    "waiting": 1,
    "rolled_back": 2,
    "run_hours": 3.2,
    "run_hours_per_fix": 3.2,
    "newest_at": _TRIGGER["fired_at"],
    "summary": "churn: 8 retrains, 1 fixed, 2 rolled back: retraining does not help; look at the data",
}
EFFECTS: dict[str, Any] = {
    "items": [_EFFECT],
    "next": None,
    "since": "2026-08-25T03:00:00Z",
    "groups": [{"route": "accuracy", "group": {"model": "churn"}, "model": "churn"} | _SUMS],
    "models": [{"model": "churn"} | _SUMS],
    "groups_left_out": 0,
}

EPISODE: dict[str, Any] = {
    "id": examples.ALERT["id"],
    "route": "accuracy",
    "group": {"model": "churn"},
    "begin": examples.ALERT["first_seen_at"],
    "end": None,
    "severity": "critical",
    "alerts": 1,
    "newest_alerts": [
        {
            "id": examples.ALERT["id"],
            "alert_id": "ModelAccuracyLow",
            "severity": "critical",
            "begin": examples.ALERT["first_seen_at"],
            "end": None,
            "last_seen_at": examples.ALERT["last_seen_at"],
        }
    ],
    "retrains": [{"trigger_id": _TRIGGER["id"], "fired_at": _TRIGGER["fired_at"], "effect": None}],
    "effect": None,
}


class AlertOfEpisode(BaseModel):
    """An alert of an episode. `end` null: it fires, or its end never arrived."""

    id: UUID
    alert_id: str
    severity: str
    begin: datetime
    end: datetime | None
    last_seen_at: datetime


class RetrainOfEpisode(BaseModel):
    """A trigger that fired within an episode, and its effect (null: not known yet)."""

    trigger_id: UUID
    fired_at: datetime
    effect: Effect | None


class EpisodeOut(BaseModel):
    """A drift episode: the alerts of one group that overlap, or follow each other within `effect.watch`."""

    model_config = ConfigDict(json_schema_extra={"example": EPISODE})

    id: UUID = Field(description="Of its first alert.")
    route: str
    group: dict[str, str]
    begin: datetime
    end: datetime | None = Field(description="null: it goes on.")
    severity: str = Field(description="The worst of its alerts.")
    alerts: int
    newest_alerts: list[AlertOfEpisode] = Field(description="At most 100.")
    retrains: list[RetrainOfEpisode]
    effect: Effect | None = Field(description="Of its newest retrain. null: there was none, or it is not known yet.")


class FormerEffect(BaseModel):
    """An effect that a later fact replaced."""

    effect: Effect
    reason: Why
    detail: str
    at: datetime


class ProbationOfEffect(BaseModel):
    """What the probation of the version has come to."""

    state: Standing
    until: datetime
    detail: str


class EffectOut(BaseModel):
    """A fired trigger, and whether it helped."""

    trigger_id: UUID
    route: str
    group: dict[str, str]
    model: str | None = Field(description="The model of which its DAG run registered a version.")
    version: str | None
    fired_for: Reason
    state: TriggerState
    outcome: str | None
    fired_at: datetime
    ended_at: datetime | None
    run_hours: float
    effect: Effect | None = Field(description="null: not known yet; `reason` says what it waits for.")
    reason: Why
    detail: str = Field(description="One sentence for a person.")
    until: datetime | None = Field(description="When it may change without a new fact.")
    judged_at: datetime | None
    counts_from: datetime | None = Field(description="Since when `settle` and `watch` count.")
    promotion: UUID | None
    former: list[FormerEffect] = Field(description="Effects that a later fact replaced, the oldest first.")
    probation: ProbationOfEffect | None = Field(description="Of the version; null: there was none.")


class SumsOut(BaseModel):
    """Sums over every trigger that the filters take, whatever its effect and on whichever page."""

    retrains: int
    fixed: int
    recurred: int
    not_promoted: int
    no_model: int
    failed: int
    unknown: int
    waiting: int = Field(description="Not known yet.")
    rolled_back: int = Field(description="Their versions failed the probation, and the alias was given back.")
    run_hours: float
    run_hours_per_fix: float | None = Field(description="null: nothing was fixed.")
    newest_at: datetime | None
    summary: str


class GroupSums(SumsOut):
    route: str
    group: dict[str, str]
    model: str


class ModelSums(SumsOut):
    model: str


class EffectsOut(BaseModel):
    """A page of triggers with their effects, and the sums of each group and each model."""

    model_config = ConfigDict(json_schema_extra={"example": EFFECTS})

    items: list[EffectOut]
    next: str | None
    since: datetime | None
    groups: list[GroupSums]
    models: list[ModelSums]
    groups_left_out: int = Field(description="Groups that are in no sum, because too many others fired after them.")
