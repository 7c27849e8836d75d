"""The shapes of a backtest over HTTP: what is asked, what is kept of it, and the answer."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from app.decide.alert import Labels, no_nul
from app.policy.language.durations import parse_duration
from app.policy.values import ROUTE_NAME
from app.replay.asked import moment_of
from app.web.members import RequestBody

_POLICY = """version: 1
airflow:
  - {name: default, url: "http://airflow:8080"}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    cooldown: 12h
    dag: {id: retrain_model}
"""
Time = Annotated[str, StringConstraints(max_length=64)]


class BacktestBody(RequestBody):
    """What a policy would have done: the options of `trigger-gateway backtest` that mean something here."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"policy": _POLICY, "compare": "live", "since": "90d"}}
    )

    policy: Annotated[str, StringConstraints(min_length=1)] = Field(description="The text of the policy to try.")
    compare: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None,
        description="`live`: the policies that were in force. Or the hash of one of these, or the text of a policy.",
    )
    since: Time | None = Field(None, description="How long ago, such as 90d, or RFC 3339.")
    until: Time | None = Field(None, description="The same, for the end.")
    route: Annotated[str, StringConstraints(pattern=f"^{ROUTE_NAME.pattern}$")] | None = Field(
        None, description="Count this route only."
    )
    group: Labels = Field({}, description="Count groups with these labels only.")
    run: Time | None = Field(None, description="How long a run takes that live did not start, such as 40m.")

    @field_validator("since", "until")
    @classmethod
    def _time(cls, value: str) -> str:
        moment_of(value)
        return value

    @field_validator("run")
    @classmethod
    def _duration(cls, value: str) -> str:
        parse_duration(value)
        return value

    @field_validator("group")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        return no_nul(value)


class Text(BaseModel):
    """A policy without its secrets, and the hash that it has with them."""

    text: str
    hash: str


class Asked(BaseModel):
    """A question as it is kept: `compare` is the text of a policy, `live`, or a hash."""

    policy: Text
    compare: Text | str | None = None
    since: datetime | None = None
    until: datetime | None = None
    route: str | None = None
    group: dict[str, str] = {}
    run: timedelta | None = None


class Progress(BaseModel):
    """What is done now, and how much of it. `total` null: nobody knows yet."""

    step: str
    done: int
    total: int | None


class ReportOut(BaseModel):
    """The report, as `trigger-gateway backtest --format json` writes it."""

    model_config = ConfigDict(extra="allow")

    coverage: dict[str, Any]
    assumptions: list[dict[str, Any]]
    now: dict[str, Any] | None = Field(description="The figures of the policy to compare with.")
    proposed: dict[str, Any]
    routes: dict[str, Any]
    changed: list[dict[str, Any]]


class BacktestOut(BaseModel):
    """A backtest: how far it is, and then its report."""

    id: str
    state: Literal["pending", "running", "succeeded", "failed", "cancelled"]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None = Field(description="When it is deleted.")
    progress: Progress | None
    error: str | None = Field(description="Why it failed, in a sentence.")
    result: ReportOut | None


ASKED: dict[str, Any] = {
    "id": "019ab0c4-6f1e-7d35-9c1a-3f0e4a5b6c7d",
    "state": "pending",
    "created_at": "2026-11-30T09:00:00Z",
    "started_at": None,
    "ended_at": None,
    "expires_at": None,
    "progress": None,
    "error": None,
    "result": None,
}
_FIGURES = {"retrains": 3, "run_hours": 2.0, "missed_episodes": 0, "undetected_hours": 0.3}
ENDED: dict[str, Any] = ASKED | {
    "state": "succeeded",
    "started_at": "2026-11-30T09:00:01Z",
    "ended_at": "2026-11-30T09:00:09Z",
    "expires_at": "2026-12-01T09:00:09Z",
    "progress": {"step": "proposed", "done": 1480, "total": 1480},
    "result": {
        "coverage": {"from": "2026-11-01T00:00:00Z", "to": "2026-11-30T09:00:00Z", "events": 1480, "live_runs": 3},
        "assumptions": [
            {"name": "alerts_end", "text": "An alert ends when it ended, whatever ...", "triggers": 4},
        ],
        "now": _FIGURES,
        "proposed": _FIGURES | {"retrains": 4, "run_hours": 2.7},
        "routes": {"accuracy": {"now": _FIGURES, "proposed": _FIGURES | {"retrains": 4, "run_hours": 2.7}}},
        "changed": [],
    },
}
