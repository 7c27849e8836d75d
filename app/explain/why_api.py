"""GET /api/v1/routes/{name}/explain: why did this route start nothing lately?"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.decide.state import Action, Reason
from app.explain import examples, schemas
from app.explain.queries import Ago, Label, labels_of, start_of
from app.explain.why import why
from app.groups.service import Services
from app.kit.errors import Problem
from app.policy.values import ROUTE_NAME
from app.web.answers import json_answer, shows
from app.web.problems import UNAVAILABLE
from app.web.security import require
from app.web.times import QueryTime
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1", tags=["history"])

_SINCE = "2026-11-16T12:00:00Z"
_WHY: dict[str, Any] = {
    "route": "accuracy",
    "group": {"model": "churn"},
    "since": _SINCE,
    "until": "2026-11-23T12:00:00Z",
    "alerts": 41,
    "decisions": [
        {"action": "suppress", "reason": "cooldown", "alerts": 40, "newest": "2026-11-23T11:58:10.204Z"},
        {"action": "fire", "reason": "new_alert", "alerts": 1, "newest": "2026-11-23T11:55:01.310Z"},
    ],
    "refused": [],
    "triggers": {"succeeded": 1},
    "trigger": examples.TRIGGER,
    "last_success_at": examples.TRIGGER["ended_at"],
    "groups": [examples.GROUP | {"now": examples.EXPLANATION["now"], "would_fire": examples.EXPLANATION["would_fire"]}],
    "schedules": [{"name": "weekly", "group": {"model": "churn"}, "next_at": "2026-11-30T02:00:00Z"}],
    "near": None,
    "match": examples.ROUTE["match"],
    "summary": f"The route accuracy has fired one trigger for model=churn since {_SINCE}. The newest is "
    f"{examples.TRIGGER['id']}, now succeeded: the DAG run succeeded (since 2026-11-23T03:21:40Z). 41 alerts arrived "
    f"since {_SINCE}: 40 in cooldown, 1 fired. At this moment: suppress, duplicate: its trigger has fired; the group "
    "cools down until 2026-11-24T03:00:01Z.",
    "would_fire": examples.EXPLANATION["would_fire"],
    "next_step": "Nothing.",
}


class AlertsDecided(BaseModel):
    """How many alerts had this decision. An alert counts once: a fire comes first, then the newest decision that is not a
    repeat."""

    action: Action
    reason: Reason
    alerts: int
    newest: datetime = Field(description="When the newest of them last arrived.")


class RefusedRequests(BaseModel):
    """How many requests and schedules the policy refused, by reason."""

    reason: Reason
    count: int
    newest: datetime


class GroupNow(schemas.GroupOut):
    """The live state of a group, and the decision at this moment on its firing alert."""

    now: schemas.NowOut | None
    would_fire: str | None


class Scheduled(BaseModel):
    """A schedule of the route."""

    name: str
    group: dict[str, str]
    next_at: datetime


class Near(BaseModel):
    """The alert that came nearest to this route: an earlier alert of this route, an alert of another route, or an alert
    without a route."""

    id: str
    alert_id: str
    labels: dict[str, str]
    route: str | None
    last_seen_at: datetime
    missed: list[str] = Field(description="The matchers that its labels do not satisfy.")


class WhyOut(BaseModel):
    """Why a route, or some of its groups, started no DAG run from `since` to `until`."""

    model_config = ConfigDict(json_schema_extra={"example": _WHY})

    route: str
    group: dict[str, str]
    since: datetime
    until: datetime
    alerts: int = Field(description="Alerts that arrived in that time; each counts once, the newest 10,000 at most.")
    decisions: list[AlertsDecided]
    refused: list[RefusedRequests]
    triggers: dict[str, int] = Field(description="Triggers that fired in that time, by state.")
    trigger: schemas.TriggerOut | None = Field(description="The newest trigger that ever fired.")
    last_success_at: datetime | None
    groups: list[GroupNow] = Field(description="At most 100, those with a firing alert first.")
    schedules: list[Scheduled] = Field(description="The schedules of the route or its groups, the next one first.")
    near: Near | None = Field(description="Only when no alert of the route arrived.")
    match: list[str]
    summary: str
    would_fire: str
    next_step: str


@router.get(
    "/routes/{name}/explain",
    summary="Explain why a route started nothing",
    response_model=WhyOut,
    responses=shows(_WHY, "not_found", "invalid", UNAVAILABLE),
)
async def explain_route(
    services: Services,
    _: Annotated[Caller, Depends(require("read"))],
    name: Annotated[str, Path(pattern=f"^{ROUTE_NAME.pattern}$", description="Name of a route.")],
    since: Annotated[Ago | QueryTime, Query(description="How long ago, such as 7d or 12h, or RFC 3339.")] = "7d",
    label: Annotated[
        list[Label] | None, Query(description="`name=value` of the group; may be repeated, all must hold.")
    ] = None,
) -> Response:
    """What arrived and was decided since then, what blocks each group at this moment, and what would fire. When no alert
    of the route arrived: the alert that came nearest."""
    route = services.core.policy.route(name)
    if route is None:
        raise Problem(404, "not_found", f"The policy has no route named {name}.")
    labels = labels_of(label)
    now = services.core.clock.now()
    start = start_of(since, now)
    found = await services.reader.read(lambda conn: why(conn, services.core.policy, route, labels, start, now))
    return json_answer(found)
