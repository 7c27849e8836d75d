"""The shapes of the API's answers, for the OpenAPI document and the clients generated from it."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.decide.state import Action, Reason, TriggerState
from app.explain import examples

Item = TypeVar("Item")


class DecisionOut(BaseModel):
    """The decision on one alert of the body. Decisions have the order of the body."""

    model_config = ConfigDict(json_schema_extra={"example": examples.DECISION})

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
    """An alert of the body that could not be read. The other alerts were decided."""

    index: int
    id: str | None
    error: str


class Accepted(BaseModel):
    """Everything in the body is durable."""

    model_config = ConfigDict(json_schema_extra={"example": examples.ACCEPTED})

    decisions: list[DecisionOut]
    quarantined: list[QuarantinedOut] = []


class TakenDecision(BaseModel):
    """A decision, and how often it was taken in a row."""

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
    """One episode of an alert. `count` is how many of its notifications were committed."""

    model_config = ConfigDict(json_schema_extra={"example": examples.ALERT})

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
    """The result of an attempt to deliver the trigger to Airflow. Equal results in a row are one item with a count."""

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


class VersionMade(BaseModel):
    model: str
    version: str


class RunMade(BaseModel):
    """A run in MLflow that names the trigger, and the model versions registered from it, at the last look."""

    run_id: str
    name: str
    status: str
    versions: list[VersionMade]
    seen_at: datetime


class TriggerOut(BaseModel):
    """Our decision to start one DAG run, and how that run went."""

    model_config = ConfigDict(json_schema_extra={"example": examples.TRIGGER})

    id: UUID
    route: str
    group: dict[str, str]
    mode: str = Field(
        description="`live` or `shadow`. A shadow trigger starts nothing; with `fired_at`, live it would have fired."
    )
    reason: Reason
    state: TriggerState
    outcome: str | None
    detail: str
    blocked: str | None = Field(description="While the trigger is open: what blocks it, such as dag_paused.")
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
    runs: list[RunMade] = Field(description="What MLflow held at the last look; `GET /lineage` asks MLflow now.")


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


class PauseOut(BaseModel):
    """A pause of a route, or of every route (`-`). `by` is the name of the token that asked for it."""

    model_config = ConfigDict(json_schema_extra={"example": examples.PAUSE})

    route: str
    until: datetime | None = Field(description="null: until somebody lifts the pause.")
    reason: str
    by: str
    at: datetime


class MutedOut(BaseModel):
    """What mutes a route at this moment, and until when. `until` is null when no end is known."""

    by: str
    until: datetime | None


class RouteOut(BaseModel):
    """A route of the policy in force, with the live state of its groups."""

    model_config = ConfigDict(json_schema_extra={"example": examples.ROUTE}, extra="allow")

    name: str
    match: list[str]
    group_by: list[str]
    pause: PauseOut | None
    muted: MutedOut | None
    groups: list[GroupOut]
    more_groups: bool


class QuarantineOut(BaseModel):
    """Bytes that could not be read, and why."""

    model_config = ConfigDict(json_schema_extra={"example": examples.QUARANTINED})

    sha256: str
    source: str
    error: str
    size: int
    count: int
    first_at: datetime
    last_at: datetime
    body: str = Field(description="For people: what is not UTF-8 is replaced.")
    body_base64: str = Field(description="The bytes as they came.")


class ListOf(BaseModel, Generic[Item]):
    """One page. Send `next` as `?cursor=` to get the page after it; it is null on the last page."""

    items: list[Item]
    next: str | None


class RecordOut(BaseModel):
    """Something that happened, for a replay. Its other members are those of its kind."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["policy", "outage", "request", "run", "confirm", "ineffective", "alert", "heard"]


class NowOut(BaseModel):
    action: Action
    reason: Reason
    until: datetime | None
    trigger_id: UUID | None
    detail: str


class Explanation(BaseModel):
    """Why, and why not."""

    model_config = ConfigDict(json_schema_extra={"example": examples.EXPLANATION}, extra="allow")

    subject: str = Field(description="alert or trigger")
    summary: str
    decisions: list[dict[str, Any]]
    now: NowOut | None = Field(None, description="For an alert: the decision at this moment.")
    next_step: str | None = Field(None, description="What a person should do about the trigger.")
    would_fire: str | None = Field(None, description="For an alert: what would start a DAG run.")
