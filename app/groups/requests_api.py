"""The requests of people and scripts over HTTP: a DAG run, a redrive, a cancel, a reset."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app.explain import examples, history, schemas
from app.groups import bodies, live
from app.groups.requests import Wanted
from app.groups.service import Services
from app.kit.errors import Problem
from app.policy.values import ROUTE_NAME
from app.web.answers import json_answer, shows
from app.web.problems import UNAVAILABLE, Kind, responses
from app.web.security import ANONYMOUS, require
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1", tags=["operate"], responses=responses(UNAVAILABLE))

Operator = Annotated[Caller, Depends(require("trigger"))]
Ident = Annotated[UUID, Path(description="The id, a UUID.")]
_NOT_DEAD = Kind("wrong_state", 409, "Only a dead trigger can be redriven; this one is running.", {"state": "running"})
_NOT_HELD = Kind("wrong_state", 409, "Only a held trigger can be cancelled; this one is running.", {"state": "running"})
_WRONG_GROUP = Kind("wrong_group", 422, "The group of the route accuracy has exactly these labels: model.")
_PENDING = {"outcome": None, "started_at": None, "accepted_at": None, "ended_at": None, "dag_run_state": None}
_REDRIVEN = examples.TRIGGER | _PENDING | {"state": "pending", "detail": "redriven by ops"}
_CANCELLED = examples.TRIGGER | _PENDING | {"state": "cancelled", "detail": "cancelled by ops", "attempts": []}
_COOLING = Kind(
    "cooldown",
    409,
    "The group has fired and cools down until 2026-11-24T03:00:01Z.",
    {"reason": "cooldown", "until": "2026-11-24T03:00:01Z", "trigger_id": examples.TRIGGER["id"]},
)
_FLYING = Kind(
    "in_flight",
    409,
    "Another trigger of this group is under way.",
    {"reason": "in_flight", "until": None, "trigger_id": examples.TRIGGER["id"]},
)
_FULL = Kind(
    "limit",
    409,
    "The route has fired 3 times in 7d, its limit: next not before 2026-11-27T03:00:01Z.",
    {"reason": "limit", "until": "2026-11-27T03:00:01Z", "trigger_id": None},
)
_HOPELESS = Kind(
    "ineffective",
    409,
    "Retraining does not help: 2 retrains since 3 Nov did not end it: look at the data.",
    {"reason": "ineffective", "until": None, "trigger_id": examples.TRIGGER["id"]},
)
_WOULD = {"reason": "shadow", "until": None, "trigger_id": examples.TRIGGER["id"]}
_SHADOWED = Kind("shadow", 409, "In shadow mode; live it would fire: asked for by ana: new labels.", _WOULD)
_MISMATCH = Kind("idempotency_mismatch", 422, "This Idempotency-Key was used with another request.")
_REFUSALS = (_COOLING, _FLYING, _HOPELESS, _FULL, _SHADOWED, "invalid", _WRONG_GROUP, _MISMATCH, "rate_limited")
_ASKED = {"state": "pending", "reason": "manual", "requested_by": "ana", "detail": "asked for by ana: new labels"}


@router.post(
    "/triggers",
    summary="Ask for one DAG run",
    status_code=201,
    response_model=schemas.TriggerOut,
    responses=shows(examples.TRIGGER | _PENDING | _ASKED, "not_found", *_REFUSALS, status=201),
)
async def ask(
    services: Services,
    caller: Operator,
    body: bodies.TriggerBody,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern="^[\\x21-\\x7e]{1,255}$",
            description="Within a day, a request with the same key gets the first answer again.",
        ),
    ] = None,
) -> Response:
    """Starts a DAG run of a group now, or fires its held trigger, without debounce. A cooldown, a limit or a run in flight
    refuses it with 409; that is recorded like any decision. `force` overrides cooldown and limit."""
    await services.limiter.check(caller)
    wanted = Wanted(body.route, body.group, body.reason, _asker(body.requested_by, caller), body.force, body.conf)
    return json_answer(await services.requests.trigger(wanted, caller.name, idempotency_key), 201)


@router.post(
    "/triggers/{id}/redrive",
    summary="Deliver a dead trigger again",
    response_model=schemas.TriggerOut,
    responses=shows(_REDRIVEN, "not_found", _NOT_DEAD, "rate_limited"),
)
async def redrive(services: Services, caller: Operator, id: Ident) -> Response:
    """Sets a dead trigger to pending. The gateway first looks for its run in Airflow, so that it starts none twice."""
    await services.limiter.check(caller)
    await services.requests.redrive(id, caller.name)
    async with services.core.engine.connect() as conn:
        return await _shown(conn, id)


@router.post(
    "/triggers/{id}/cancel",
    summary="Cancel a held trigger",
    response_model=schemas.TriggerOut,
    responses=shows(_CANCELLED, "not_found", _NOT_HELD, "rate_limited"),
)
async def cancel(services: Services, caller: Operator, id: Ident) -> Response:
    """Sets a held trigger to cancelled. Once it has fired, only Airflow can stop its run."""
    await services.limiter.check(caller)
    await services.requests.cancel(id, caller.name)
    async with services.core.engine.connect() as conn:
        return await _shown(conn, id)


RouteName = Annotated[str, Path(pattern=f"^{ROUTE_NAME.pattern}$", description="Name of a route.")]


@router.post(
    "/routes/{name}/reset",
    summary="Clear the cooldown of a group",
    response_model=schemas.GroupOut,
    responses=shows(examples.GROUP, "not_found", "invalid", _WRONG_GROUP, "rate_limited"),
)
async def reset(services: Services, caller: Operator, name: RouteName, body: bodies.ResetBody) -> Response:
    """The alerts that still fire are decided again at once. A run in flight never gets a second run beside it."""
    await services.limiter.check(caller)
    group = await services.requests.reset(name, body.group, caller.name)
    route = services.core.policy.route(name)
    if route is None:
        raise Problem(404, "not_found", f"The policy has no route named {name}.")
    return json_answer(live.group_state(group, route, services.core.clock.now()))


async def _shown(conn: AsyncConnection, id: UUID) -> Response:
    found = await history.get_trigger(conn, id)
    if found is None:
        raise Problem(404, "not_found", f"There is no trigger {id}.")
    return json_answer(found)


def _asker(text: str, caller: Caller) -> str:
    """Who asked: the text of the request, and beside it the token, which nobody can make up."""
    if caller is ANONYMOUS:
        return text or caller.name
    return f"{text} (token {caller.name})" if text and text != caller.name else caller.name
