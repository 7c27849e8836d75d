"""GET /api/v1/schedules: the next occurrence of each schedule, and the decision on its newest one."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from app.decide.state import Action, Reason
from app.explain import examples, schemas
from app.groups.schedules import list_schedules
from app.groups.service import Services
from app.web.problems import UNAVAILABLE, responses
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1", tags=["history"])

_SCHEDULE: dict[str, Any] = {
    "name": "weekly",
    "cron": "0 3 * * 1",
    "timezone": "Europe/Madrid",
    "route": "accuracy",
    "group": {"model": "churn"},
    "catch_up": "one",
    "next_at": "2026-11-30T02:00:00Z",
    "last": {
        "at": "2026-11-23T02:00:00Z",
        "decided_at": "2026-11-23T02:00:00.412Z",
        "action": "fire",
        "reason": "scheduled",
        "trigger_id": examples.TRIGGER["id"],
        "detail": "asked for by the schedule weekly: due at 2026-11-23T02:00:00Z",
    },
}
_LISTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"items": [_SCHEDULE], "next": None}}}}
}


class OccurrenceOut(BaseModel):
    """The newest occurrence and the decision on it. Without an `action` it was passed over (`catch_up: none`)."""

    at: datetime = Field(description="When it was due.")
    decided_at: datetime
    action: Action | None
    reason: Reason | None
    trigger_id: str | None
    detail: str


class ScheduleOut(BaseModel):
    """One schedule of the policy in force."""

    model_config = ConfigDict(json_schema_extra={"example": _SCHEDULE})

    name: str
    cron: str
    timezone: str
    route: str
    group: dict[str, str]
    catch_up: str
    next_at: datetime
    last: OccurrenceOut | None


@router.get(
    "/schedules",
    summary="List the schedules with their next occurrence",
    response_model=schemas.ListOf[ScheduleOut],
    responses=_LISTED | responses(UNAVAILABLE),
)
async def get_schedules(services: Services, _: Annotated[Caller, Depends(require("read"))]) -> Response:
    """Each schedule of the policy: when it is due next, and the decision on its newest occurrence."""
    schedules, now = services.core.policy.schedules, services.core.clock.now()
    items = await services.reader.read(lambda conn: list_schedules(conn, schedules, now))
    return Response(to_json({"items": items, "next": None}), media_type="application/json")
