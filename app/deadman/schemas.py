"""The JSON of the switches, with the examples that OpenAPI shows: one model, one week without a retrain."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.web.members import RequestBody

SWITCH: dict[str, Any] = {
    "name": "retrained-churn",
    "kind": "retrain",
    "expects": "a successful run of route accuracy for model=churn",
    "group": {"model": "churn"},
    "state": "down",
    "since": "2026-11-23T15:00:02.118Z",
    "every": "7d",
    "timezone": "UTC",
    "grace": "12h",
    "receivers": ["oncall"],
    "counts_from": "2026-10-01T09:00:00Z",
    "last_at": "2026-11-16T03:00:00Z",
    "last_event": "DAG run gateway__accuracy__0198c2f0-5b7f-7d02-8c44-aa0f51c09b7e ended with success",
    "due_at": "2026-11-23T03:00:00Z",
    "down_at": "2026-11-23T15:00:00Z",
    "paused_until": None,
    "note": "",
}
FLIP: dict[str, Any] = {
    "at": "2026-11-23T15:00:02.118Z",
    "before": "grace",
    "after": "down",
    "detail": "no successful run of route accuracy for model=churn for 7d12h: due at 2026-11-23T03:00:00Z, down after a "
    "grace of 12h",
}
DETAIL: dict[str, Any] = SWITCH | {
    "dag": {"airflow": "default", "id": "retrain_model", "read_at": "2026-11-24T12:00:00Z", "error": ""},
    "flips": [FLIP],
    "pings": [],
    "explanation": "No successful run of route accuracy for model=churn for 8d9h: due at 2026-11-23T03:00:00Z, down "
    "after a grace of 12h. 41 alerts arrived since 2026-11-16T03:00:00Z: 40 in cooldown, 1 fired.",
}


FORGOTTEN: dict[str, Any] = {"name": "retrained-churn", "begins_anew": True}


class SwitchOut(BaseModel):
    """One switch: what is expected, what has arrived, and its state."""

    model_config = ConfigDict(json_schema_extra={"example": SWITCH})

    name: str
    kind: str = Field(description="retrain, alert or ping; gone when it is no longer in the policy.")
    expects: str = Field(description="What is expected, in words.")
    group: dict[str, str]
    state: str = Field(description="new, up, grace, down or paused.")
    since: datetime = Field(description="When that state began.")
    every: str = Field(description="A duration, or a cron expression in `timezone`.")
    timezone: str
    grace: str
    receivers: list[str]
    counts_from: datetime = Field(description="When it was first loaded, or last resumed.")
    last_at: datetime | None = Field(description="The newest good sign.")
    last_event: str
    due_at: datetime | None
    down_at: datetime | None
    paused_until: datetime | None
    note: str = Field(description="Who paused it, and why.")


class FlipOut(BaseModel):
    """One change of state."""

    at: datetime
    before: str
    after: str
    detail: str


class PingOut(BaseModel):
    """One ping. `body` is cut at GATEWAY_PING_BODY bytes."""

    at: datetime
    kind: str = Field(description="success, start or fail.")
    run: str | None
    code: int | None
    body: str


class DagOut(BaseModel):
    """The DAG whose runs count, when it was last read, and why the newest read failed."""

    airflow: str
    id: str
    read_at: datetime | None
    error: str


class SwitchDetail(SwitchOut):
    """A switch with its newest hundred flips and pings, and why it is in its state."""

    model_config = ConfigDict(json_schema_extra={"example": DETAIL})

    dag: DagOut | None = None
    flips: list[FlipOut]
    pings: list[PingOut]
    explanation: str


class SwitchPage(BaseModel):
    """Switches by name, and where the next page begins."""

    items: list[SwitchOut]
    next: str | None


class Forgotten(BaseModel):
    """The switch forgot what it had received. `begins_anew`: the policy names it, so it is new now; otherwise it is gone."""

    name: str
    begins_anew: bool


class PauseBody(RequestBody):
    """Until when nothing is expected (left out: until a person resumes it), and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"until": "2026-12-01T00:00:00Z", "reason": "data freeze"}}
    )

    until: AwareDatetime | None = None
    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")] = ""
