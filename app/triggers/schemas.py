"""The shapes that the API answers with, and an example of each, for the OpenAPI document and for clients made from it."""

from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.triggers.state import Action, Reason, TriggerState

Item = TypeVar("Item")

_ALERT = "0198c2f0-5b7e-7c31-9a11-3f1f6f2d8a01"
_TRIGGER = "0198c2f0-5b7f-7d02-8c44-aa0f51c09b7e"
_RUN = f"gateway__accuracy__{_TRIGGER}"
_LABELS = {"alertname": "ModelAccuracyLow", "model": "churn", "severity": "critical"}

DECISION_EXAMPLE: dict[str, Any] = {
    "alert_id": "ModelAccuracyLow",
    "fingerprint": "e5883e505f90221a",
    "status": "firing",
    "route": "accuracy",
    "group": {"model": "churn"},
    "action": "fire",
    "reason": "new_alert",
    "trigger_id": _TRIGGER,
    "until": None,
    "detail": "a new alert fires",
}
_TAKEN = {
    "action": "fire",
    "reason": "new_alert",
    "trigger_id": _TRIGGER,
    "until": None,
    "detail": "a new alert fires",
    "count": 1,
    "first_at": "2026-11-23T03:00:01.204Z",
    "last_at": "2026-11-23T03:00:01.204Z",
    "policy": "3f9c2a71d0be",
}
ALERT_EXAMPLE: dict[str, Any] = {
    "id": _ALERT,
    "alert_id": "ModelAccuracyLow",
    "fingerprint": "e5883e505f90221a",
    "status": "firing",
    "severity": "critical",
    "starts_at": "2026-11-23T02:59:30Z",
    "ends_at": None,
    "labels": _LABELS,
    "annotations": {"summary": "Accuracy of churn is 0.7"},
    "source": "alertmanager",
    "route": "accuracy",
    "group": {"model": "churn"},
    "count": 12,
    "first_seen_at": "2026-11-23T03:00:01.204Z",
    "last_seen_at": "2026-11-23T03:55:01.310Z",
    "trigger_id": _TRIGGER,
    "decisions": [_TAKEN],
}
TRIGGER_EXAMPLE: dict[str, Any] = {
    "id": _TRIGGER,
    "route": "accuracy",
    "group": {"model": "churn"},
    "reason": "new_alert",
    "state": "succeeded",
    "outcome": "success",
    "detail": "the DAG run succeeded",
    "blocked": None,
    "created_at": "2026-11-23T03:00:01.204Z",
    "fired_at": "2026-11-23T03:00:01.204Z",
    "accepted_at": "2026-11-23T03:00:01.391Z",
    "started_at": "2026-11-23T03:00:02.010Z",
    "ended_at": "2026-11-23T03:21:40.551Z",
    "lost_at": None,
    "airflow": "default",
    "dag_id": "retrain_model",
    "dag_run_id": _RUN,
    "dag_run_state": "success",
    "requested_by": None,
    "alerts": [
        {
            "id": _ALERT,
            "alert_id": "ModelAccuracyLow",
            "severity": "critical",
            "status": "firing",
            "starts_at": "2026-11-23T02:59:30Z",
            "labels": _LABELS,
        }
    ],
    "attempts": [
        {
            "result": "delivered",
            "code": "ok",
            "detail": "delivered",
            "count": 1,
            "first_at": "2026-11-23T03:00:01.391Z",
            "last_at": "2026-11-23T03:00:01.391Z",
        }
    ],
}
_GROUP_EXAMPLE = {
    "group": {"model": "churn"},
    "state": "cooldown",
    "held_until": None,
    "cooldown_until": "2026-11-24T03:00:01.391Z",
    "in_flight": None,
    "last_trigger": _TRIGGER,
    "last_outcome": "success",
    "failures_in_a_row": 0,
    "fired_at": "2026-11-23T03:00:01.204Z",
    "wake_at": "2026-11-24T03:00:01.391Z",
}
ROUTE_EXAMPLE: dict[str, Any] = {
    "name": "accuracy",
    "match": ['alertname="ModelAccuracyLow"'],
    "group_by": ["model"],
    "debounce": "10m",
    "cooldown": "1d",
    "refire": True,
    "on_failure": "release",
    "failure_backoff": "30m",
    "run_timeout": "1d",
    "stale_after": "6h",
    "mode": "live",
    "dag": {"airflow": "default", "id": "retrain_model", "conf": {}},
    "groups": [_GROUP_EXAMPLE],
    "more_groups": False,
}
QUARANTINE_EXAMPLE: dict[str, Any] = {
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "source": "alertmanager",
    "error": "/3/startsAt: Input should be a valid datetime",
    "size": 412,
    "count": 2,
    "first_at": "2026-11-23T03:00:01.204Z",
    "last_at": "2026-11-23T03:05:01.198Z",
    "body": '{"status": "firing", "startsAt": "yesterday"}',
}
ACCEPTED_EXAMPLE: dict[str, Any] = {"decisions": [DECISION_EXAMPLE]}
EXPLANATION_EXAMPLE: dict[str, Any] = {
    "subject": "alert",
    "summary": "Heard 12 times; still firing. It started the DAG run "
    f"{_RUN} (succeeded: the DAG run succeeded). Newest decision: suppress, duplicate: its trigger has fired.",
    "would_fire": "To fire still when the cooldown ends (2026-11-24T03:00:01Z), or `reset` of the group before.",
    "now": {
        "action": "suppress",
        "reason": "duplicate",
        "until": "2026-11-24T03:00:01.391Z",
        "trigger_id": _TRIGGER,
        "detail": "its trigger has fired; the group cools down until 2026-11-24T03:00:01Z",
    },
    "alert": ALERT_EXAMPLE,
    "trigger": TRIGGER_EXAMPLE,
    "decisions": [_TAKEN],
    "group": _GROUP_EXAMPLE,
}


class DecisionOut(BaseModel):
    """What was concluded of one alert of the body, in body order."""

    model_config = ConfigDict(json_schema_extra={"example": DECISION_EXAMPLE})

    alert_id: str
    fingerprint: str
    status: str
    route: str | None
    group: dict[str, str]
    action: Action
    reason: Reason
    trigger_id: UUID | None
    until: datetime | None
    detail: str = Field(description="One sentence for a person.")


class QuarantinedOut(BaseModel):
    """One alert of the body that could not be read; the others were decided."""

    index: int
    id: str | None
    error: str


class Accepted(BaseModel):
    """Everything in the body is durable."""

    model_config = ConfigDict(json_schema_extra={"example": ACCEPTED_EXAMPLE})

    decisions: list[DecisionOut]
    quarantined: list[QuarantinedOut] = []


class TakenDecision(BaseModel):
    """One conclusion, and how often it was drawn in a row."""

    action: Action
    reason: Reason
    trigger_id: UUID | None
    until: datetime | None
    detail: str
    count: int
    first_at: datetime
    last_at: datetime
    policy: str


class AlertOut(BaseModel):
    """One episode of an alert. `count` is the notifications of it that were committed."""

    model_config = ConfigDict(json_schema_extra={"example": ALERT_EXAMPLE})

    id: UUID
    alert_id: str
    fingerprint: str
    status: str
    severity: str
    starts_at: datetime
    ends_at: datetime | None
    labels: dict[str, str]
    annotations: dict[str, str]
    source: str
    route: str | None
    group: dict[str, str]
    count: int
    first_seen_at: datetime
    last_seen_at: datetime
    trigger_id: UUID | None
    decisions: list[TakenDecision]


class AttemptOut(BaseModel):
    """One result on the way to Airflow; equal ones in a row are counted."""

    result: str
    code: str
    detail: str
    count: int
    first_at: datetime
    last_at: datetime


class AlertBehind(BaseModel):
    id: UUID
    alert_id: str
    severity: str
    status: str
    starts_at: datetime
    labels: dict[str, str]


class TriggerOut(BaseModel):
    """Our decision to start one DAG run, and what became of it."""

    model_config = ConfigDict(json_schema_extra={"example": TRIGGER_EXAMPLE})

    id: UUID
    route: str
    group: dict[str, str]
    reason: Reason
    state: TriggerState
    outcome: str | None
    detail: str
    blocked: str | None = Field(description="While pending: what stands in the way, such as dag_paused.")
    created_at: datetime
    fired_at: datetime | None
    accepted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    lost_at: datetime | None
    airflow: str
    dag_id: str
    dag_run_id: str
    dag_run_state: str | None
    requested_by: str | None
    alerts: list[AlertBehind]
    attempts: list[AttemptOut]


class GroupOut(BaseModel):
    """The live state of one group."""

    group: dict[str, str]
    state: str = Field(description="idle, held, in_flight or cooldown.")
    held_until: datetime | None
    cooldown_until: datetime | None
    in_flight: UUID | None
    last_trigger: UUID | None
    last_outcome: str | None
    failures_in_a_row: int
    fired_at: datetime | None
    wake_at: datetime | None


class RouteOut(BaseModel):
    """One route of the policy in force with the live state of its groups."""

    model_config = ConfigDict(json_schema_extra={"example": ROUTE_EXAMPLE}, extra="allow")

    name: str
    match: list[str]
    group_by: list[str]
    groups: list[GroupOut]
    more_groups: bool


class QuarantineOut(BaseModel):
    """Bytes that could not be read, and why."""

    model_config = ConfigDict(json_schema_extra={"example": QUARANTINE_EXAMPLE})

    sha256: str
    source: str
    error: str
    size: int
    count: int
    first_at: datetime
    last_at: datetime
    body: str


class ListOf(BaseModel, Generic[Item]):
    """One page. `next` goes into `?cursor=` for the page after it; null on the last."""

    items: list[Item]
    next: str | None


class NowOut(BaseModel):
    action: Action
    reason: Reason
    until: datetime | None
    trigger_id: UUID | None
    detail: str


class Explanation(BaseModel):
    """Why, and why not."""

    model_config = ConfigDict(json_schema_extra={"example": EXPLANATION_EXAMPLE}, extra="allow")

    subject: str = Field(description="alert or trigger")
    summary: str
    decisions: list[dict[str, Any]]
    now: NowOut | None = Field(None, description="Of an alert: what the rules say at this moment.")
    would_fire: str | None = Field(None, description="Of an alert: what would start a DAG run.")


class ResetBody(BaseModel):
    """Which group: exactly the labels of the route's `group_by`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"group": {"model": "churn"}}})

    group: dict[str, str] = {}
