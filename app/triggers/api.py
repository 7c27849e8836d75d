"""The API of the trigger side: history and explanations out, and what a person may ask for. Alerts in: receive.py."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from pydantic import AwareDatetime, StringConstraints
from pydantic_core import to_json

from app.errors import Problem
from app.policy.values import ROUTE_NAME
from app.problems import UNAVAILABLE, Kind, responses
from app.security import require
from app.tokens import Caller
from app.triggers import examples, history, schemas
from app.triggers.explain import explain
from app.triggers.requests import Wanted
from app.triggers.service import Services
from app.triggers.state import Reason, TriggerState

router = APIRouter(prefix="/api/v1", responses=responses(UNAVAILABLE))


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


def _shows(example: dict[str, Any], *problems: str | Kind, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """What a route answers when all is well, and which problems of its own it has."""
    return {status: {"content": {"application/json": {"example": example}}}} | responses(*problems)


def _page_of(example: dict[str, Any]) -> dict[str, Any]:
    return {"items": [example], "next": None}


# -- history out --------------------------------------------------------------------------------------------------------

Reader = Annotated[Caller, Depends(require("read"))]
_ROUTE = f"^{ROUTE_NAME.pattern}$"
_Label = Annotated[str, StringConstraints(pattern=r"^[^=\x00]+=[^\x00]*$")]
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
Ident = Annotated[UUID, Path(description="Its id, a UUID.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Items on a page.")]


def _query(
    limit: Limit = 100,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    route: Annotated[str | None, Query(pattern=_ROUTE, description="Name of a route.")] = None,
    reason: Annotated[
        Reason | None, Query(description="Of an alert: the newest decision's. Of a trigger: its own.")
    ] = None,
    label: Annotated[
        list[_Label] | None, Query(description="`name=value`, of the alert or of the group; all must hold.")
    ] = None,
    since: Annotated[AwareDatetime | None, Query(description="RFC 3339: seen at or after; made at or after.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="RFC 3339: first seen before; made before.")] = None,
) -> history.Query:
    return history.Query(
        limit=limit,
        cursor=cursor,
        route=route,
        reason=reason,
        labels={name: value for name, _, value in (text.partition("=") for text in label or ())},
        since=_utc(since),
        until=_utc(until),
    )


def _utc(time: datetime | None) -> datetime | None:
    """The time in UTC; one that only its offset carries beyond the years 1 and 9999 is as good as their end."""
    try:
        return time.astimezone(UTC) if time else None
    except OverflowError:
        return _FIRST if time is not None and time.year == 1 else _LAST


Filters = Annotated[history.Query, Depends(_query)]


@router.get(
    "/alerts",
    tags=["history"],
    summary="List alerts, the newest first",
    response_model=schemas.ListOf[schemas.AlertOut],
    responses=_shows(_page_of(examples.ALERT), "invalid"),
)
async def list_alerts(
    services: Services,
    _: Reader,
    query: Filters,
    status: Annotated[str | None, Query(pattern="^(firing|resolved)$", description="firing or resolved")] = None,
) -> Response:
    """An alert is one episode: from its first firing until it is resolved or begins anew."""
    wanted = replace(query, status=status)
    return _page(await services.reader.read(lambda conn: history.list_alerts(conn, wanted)))


@router.get(
    "/alerts/{id}",
    tags=["history"],
    summary="Show one alert with every decision",
    response_model=schemas.AlertOut,
    responses=_shows(examples.ALERT, "not_found"),
)
async def get_alert(services: Services, _: Reader, id: Ident) -> Response:
    """One episode of an alert: how often it was heard, and each change of mind about it, the oldest first."""
    found = await services.reader.find(lambda conn: history.get_alert(conn, id))
    return _found(found, f"There is no alert {id}.")


@router.get(
    "/triggers",
    tags=["history"],
    summary="List triggers, the newest first",
    response_model=schemas.ListOf[schemas.TriggerOut],
    responses=_shows(_page_of(examples.TRIGGER), "invalid"),
)
async def list_triggers(
    services: Services,
    _: Reader,
    query: Filters,
    status: Annotated[TriggerState | None, Query(description="The trigger's state.")] = None,
) -> Response:
    """A trigger is our decision to start one DAG run; it is followed until the run has ended."""
    wanted = replace(query, status=status)
    return _page(await services.reader.read(lambda conn: history.list_triggers(conn, wanted)))


@router.get(
    "/triggers/{id}",
    tags=["history"],
    summary="Show one trigger with its alerts and attempts",
    response_model=schemas.TriggerOut,
    responses=_shows(examples.TRIGGER, "not_found"),
)
async def get_trigger(services: Services, _: Reader, id: Ident) -> Response:
    """The alerts behind it, every attempt to deliver it, and the state of its DAG run."""
    found = await services.reader.find(lambda conn: history.get_trigger(conn, id))
    return _found(found, f"There is no trigger {id}.")


@router.get(
    "/routes",
    tags=["history"],
    summary="Show the policy with the live state of each group",
    response_model=schemas.ListOf[schemas.RouteOut],
    responses=_shows(_page_of(examples.ROUTE), "invalid"),
)
async def list_routes(
    services: Services,
    _: Reader,
    limit: Limit = 100,
    route: Annotated[
        str | None, Query(pattern=_ROUTE, description="Only this route; pages through its groups.")
    ] = None,
    cursor: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$", description="`next` of the page before.")] = None,
) -> Response:
    """Each route with its groups: held until when, cooling down until when, or in flight. Name a route to page through
    more groups than one answer holds."""
    policy, now = services.policy(), services.clock.now()
    wanted = partial(history.list_routes, policy=policy, now=now, only=route, limit=limit, cursor=cursor)
    return _page(await services.reader.read(wanted))


@router.get(
    "/quarantine",
    tags=["history"],
    summary="List what could not be read, and why",
    response_model=schemas.ListOf[schemas.QuarantineOut],
    responses=_shows(_page_of(examples.QUARANTINED), "invalid"),
)
async def list_quarantine(
    services: Services,
    _: Reader,
    limit: Limit = 100,
    cursor: Annotated[
        str | None, Query(pattern=history.QUARANTINE_CURSOR, description="`next` of the page before.")
    ] = None,
) -> Response:
    """What came newest first. Equal bytes are one item with a count; its place moves to the front when they come again."""
    before = history.read_quarantine_cursor(cursor) if cursor is not None else None
    return _page(await services.reader.read(lambda conn: history.list_quarantine(conn, limit, before)))


Subject = Annotated[str, Path(description="Id of an alert or trigger, an alert_id, or a fingerprint.")]


@router.get(
    "/explain/{subject:path}",  # an alert_id may hold a slash
    tags=["history"],
    summary="Explain why, or why not",
    response_model=schemas.Explanation,
    responses=_shows(examples.EXPLANATION, "not_found"),
)
async def get_explanation(services: Services, _: Reader, subject: Subject) -> Response:
    """Takes the id of an alert or trigger, an alert_id, or a fingerprint."""
    if "\x00" in subject:
        raise Problem(404, "not_found", "There is no such alert or trigger.")
    policy, now = services.policy(), services.clock.now()
    found = await services.reader.find(lambda conn: explain(conn, subject, policy, now))
    return _found(found, f"There is no alert and no trigger {subject}.")


# -- what a person may ask for ------------------------------------------------------------------------------------------

Operator = Annotated[Caller, Depends(require("trigger"))]
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
_WOULD = {"reason": "shadow", "until": None, "trigger_id": examples.TRIGGER["id"]}
_SHADOWED = Kind("shadow", 409, "In shadow mode; live it would fire: asked for by ana: new labels.", _WOULD)
_MISMATCH = Kind("idempotency_mismatch", 422, "This Idempotency-Key was used with another request.")
_REFUSALS = (_COOLING, _FLYING, _FULL, _SHADOWED, "invalid", _WRONG_GROUP, _MISMATCH, "rate_limited")
_ASKED = {"state": "pending", "reason": "manual", "requested_by": "ana", "detail": "asked for by ana: new labels"}


@router.post(
    "/triggers",
    tags=["operate"],
    summary="Ask for one DAG run",
    status_code=201,
    response_model=schemas.TriggerOut,
    responses=_shows(examples.TRIGGER | _PENDING | _ASKED, "not_found", *_REFUSALS, status=201),
)
async def ask(
    services: Services,
    caller: Operator,
    body: schemas.TriggerBody,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern="^[\\x21-\\x7e]{1,255}$", description="The same key within a day is answered as the first time."
        ),
    ] = None,
) -> Response:
    """Starts a DAG run of a group now, or fires the held trigger, without debounce. Cooldown, limit and a run in flight
    say no with 409, which is a decision like any other. `force` overrides cooldown and limit."""
    await services.limit(caller)
    wanted = Wanted(body.route, body.group, body.reason, body.requested_by or caller.name, body.force, body.conf)
    return _json(await services.requests.trigger(wanted, caller.name, idempotency_key), 201)


@router.post(
    "/triggers/{id}/redrive",
    tags=["operate"],
    summary="Deliver a dead trigger again",
    response_model=schemas.TriggerOut,
    responses=_shows(_REDRIVEN, "not_found", _NOT_DEAD, "rate_limited"),
)
async def redrive(services: Services, caller: Operator, id: Ident) -> Response:
    """dead -> pending. The run is read back first, so that one that did start is found and not started twice."""
    await services.limit(caller)
    await services.requests.redrive(id, caller.name)
    async with services.engine.connect() as conn:
        return _found(await history.get_trigger(conn, id), f"There is no trigger {id}.")


@router.post(
    "/triggers/{id}/cancel",
    tags=["operate"],
    summary="Cancel a held trigger",
    response_model=schemas.TriggerOut,
    responses=_shows(_CANCELLED, "not_found", _NOT_HELD, "rate_limited"),
)
async def cancel(services: Services, caller: Operator, id: Ident) -> Response:
    """held -> cancelled. What has fired is Airflow's to stop."""
    await services.limit(caller)
    await services.requests.cancel(id, caller.name)
    async with services.engine.connect() as conn:
        return _found(await history.get_trigger(conn, id), f"There is no trigger {id}.")


RouteName = Annotated[str, Path(pattern=_ROUTE, description="Name of a route.")]


@router.post(
    "/routes/{name}/reset",
    tags=["operate"],
    summary="Clear the cooldown of a group",
    response_model=schemas.GroupOut,
    responses=_shows(examples.GROUP, "not_found", "invalid", _WRONG_GROUP, "rate_limited"),
)
async def reset(services: Services, caller: Operator, name: RouteName, body: schemas.ResetBody) -> Response:
    """What still fires is decided again at once. A run in flight is never doubled."""
    await services.limit(caller)
    group = await services.requests.reset(name, body.group, caller.name)
    route = services.policy().route(name)
    if route is None:
        raise Problem(404, "not_found", f"The policy has no route named {name}.")
    return _json(history.group_state(group, route, services.clock.now()))


def _page(page: history.Page) -> Response:
    return _json({"items": page.items, "next": page.next})


def _found(item: dict[str, Any] | None, otherwise: str) -> Response:
    if item is None:
        raise Problem(404, "not_found", otherwise)
    return _json(item)
