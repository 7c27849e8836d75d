"""The JSON of notices, with the examples that OpenAPI shows."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.notices.model import Severity
from app.web.members import RequestBody


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SendOut(_Out):
    """The state of one notice on its way to a receiver."""

    state: Literal["pending", "delivered", "dead"]
    detail: str = Field(description="The newest answer of the receiver.")
    times: int = Field(description="How often it was sent. An open incident is repeated.")


class ReceiverOut(_Out):
    """One receiver of an incident."""

    receiver: str
    opened: SendOut | None
    resolved: SendOut | None
    next_at: datetime | None = Field(description="When the open incident is repeated.")


class NoticeOut(_Out):
    """An incident: what is wrong, or was wrong."""

    id: UUID
    key: str = Field(description="One incident of a key is open at a time.")
    event: str
    severity: Severity
    title: str
    detail: str
    labels: dict[str, str]
    link: str | None
    opened_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    receivers: list[ReceiverOut]


class NoticePage(_Out):
    items: list[NoticeOut]
    next: str | None


class ResolveBody(RequestBody):
    """Why the incident is over."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")] = ""


class TestedOut(_Out):
    """The result of a test."""

    receiver: str
    kind: str
    state: Literal["pending", "delivered", "dead"]
    detail: str = Field(description="What the receiver answered.")
    notice: UUID


NOTICE: Final[dict[str, Any]] = {
    "id": "019ab0c4-6f1e-7d35-9c1a-3f0e4a5b6c7d",
    "key": "run_failed:accuracy:5f2c8d90a1b3e477",
    "event": "run_failed",
    "severity": "warning",
    "title": "The retraining of accuracy, model=churn failed",
    "detail": "the DAG run failed",
    "labels": {"model": "churn", "route": "accuracy"},
    "link": "/ui/triggers/019ab0c4-1111-7d35-9c1a-3f0e4a5b6c7d",
    "opened_at": "2026-11-23T03:20:00Z",
    "resolved_at": None,
    "resolution": None,
    "receivers": [
        {
            "receiver": "oncall",
            "opened": {"state": "delivered", "detail": "pagerduty answered 202: ...", "times": 1},
            "resolved": None,
            "next_at": "2026-11-24T03:20:00Z",
        }
    ],
}
TESTED: Final[dict[str, Any]] = {
    "receiver": "oncall",
    "kind": "pagerduty",
    "state": "delivered",
    "detail": "pagerduty answered 202: {'status': 'success', 'message': 'Event processed', 'dedup_key': ...}",
    "notice": "019ab0c4-6f1e-7d35-9c1a-3f0e4a5b6c7d",
}
