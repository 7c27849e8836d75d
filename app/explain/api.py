"""The API that reads: alerts, triggers, routes, quarantine and explanations.

Alerts come in by app/intake/receive.py, requests by app/groups/requests_api.py.
"""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import StringConstraints

from app.decide.state import Reason, TriggerState
from app.explain import examples, history, recorded, schemas
from app.explain.explain import explain
from app.groups import live
from app.groups.service import Services
from app.kit.errors import Problem
from app.policy.values import ROUTE_NAME
from app.web.answers import json_answer, page_of, shows
from app.web.problems import UNAVAILABLE, responses
from app.web.security import require
from app.web.times import QueryTime
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1", tags=["history"], responses=responses(UNAVAILABLE))

Reader = Annotated[Caller, Depends(require("read"))]
_ROUTE = f"^{ROUTE_NAME.pattern}$"
_Label = Annotated[str, StringConstraints(pattern=r"^[^=\x00]+=[^\x00]*$")]
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
Ident = Annotated[UUID, Path(description="The id, a UUID.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Items on a page.")]


def _query(
    limit: Limit = 100,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    route: Annotated[str | None, Query(pattern=_ROUTE, description="Name of a route.")] = None,
    reason: Annotated[
        Reason | None,
        Query(description="For alerts: the reason of the newest decision. For triggers: their own reason."),
    ] = None,
    label: Annotated[
        list[_Label] | None,
        Query(description="`name=value`, a label of the alert or of the trigger's group. If repeated, all must hold."),
    ] = None,
    since: Annotated[
        QueryTime | None,
        Query(description="RFC 3339. Alerts last seen, or triggers created, at or after this time."),
    ] = None,
    until: Annotated[
        QueryTime | None, Query(description="RFC 3339. Alerts first seen, or triggers created, before this time.")
    ] = None,
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
    """The time in UTC. Where the offset carries it out of the years 1 to 9999: the first or the last moment of them."""
    try:
        return time.astimezone(UTC) if time else None
    except OverflowError:
        return _FIRST if time is not None and time.year == 1 else _LAST


Filters = Annotated[history.Query, Depends(_query)]


@router.get(
    "/alerts",
    summary="List alerts, the newest first",
    response_model=schemas.ListOf[schemas.AlertOut],
    responses=shows(page_of(examples.ALERT), "invalid"),
)
async def list_alerts(
    services: Services,
    _: Reader,
    query: Filters,
    status: Annotated[str | None, Query(pattern="^(firing|resolved)$", description="firing or resolved")] = None,
) -> Response:
    """An alert is one episode: from its first firing until it is resolved or a new episode begins."""
    wanted = replace(query, status=status)
    return _page(await services.reader.read(lambda conn: history.list_alerts(conn, wanted)))


@router.get(
    "/alerts/{id}",
    summary="Show one alert with every decision",
    response_model=schemas.AlertOut,
    responses=shows(examples.ALERT, "not_found"),
)
async def get_alert(services: Services, _: Reader, id: Ident) -> Response:
    """One episode of an alert: how often it arrived, and the decisions on it, the oldest first."""
    found = await services.reader.find(lambda conn: history.get_alert(conn, id))
    return _found(found, f"There is no alert {id}.")


@router.get(
    "/triggers",
    summary="List triggers, the newest first",
    response_model=schemas.ListOf[schemas.TriggerOut],
    responses=shows(page_of(examples.TRIGGER), "invalid"),
)
async def list_triggers(
    services: Services,
    _: Reader,
    query: Filters,
    status: Annotated[TriggerState | None, Query(description="The trigger's state.")] = None,
) -> Response:
    """A trigger is our decision to start one DAG run. The gateway follows it until the run has ended."""
    wanted = replace(query, status=status)
    return _page(await services.reader.read(lambda conn: history.list_triggers(conn, wanted)))


@router.get(
    "/triggers/{id}",
    summary="Show one trigger with its alerts and attempts",
    response_model=schemas.TriggerOut,
    responses=shows(examples.TRIGGER, "not_found"),
)
async def get_trigger(services: Services, _: Reader, id: Ident) -> Response:
    """The alerts behind it, every attempt to deliver it, and the state of its DAG run."""
    found = await services.reader.find(lambda conn: history.get_trigger(conn, id))
    return _found(found, f"There is no trigger {id}.")


@router.get(
    "/routes",
    summary="Show the policy with the live state of each group",
    response_model=schemas.ListOf[schemas.RouteOut],
    responses=shows(page_of(examples.ROUTE), "invalid"),
)
async def list_routes(
    services: Services,
    _: Reader,
    limit: Limit = 100,
    route: Annotated[
        str | None, Query(pattern=_ROUTE, description="Only this route. Needed to page through its groups.")
    ] = None,
    cursor: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$", description="`next` of the page before.")] = None,
) -> Response:
    """Each route with the live state of its groups: held or cooling down and until when, or in flight. Name a route to
    page through more groups than one answer holds."""
    if cursor is not None and route is None:
        raise Problem(422, "invalid", "A `cursor` pages through the groups of one route: name that route in `route`.")
    policy, now = services.core.policy, services.core.clock.now()
    wanted = partial(live.list_routes, policy=policy, now=now, only=route, limit=limit, cursor=cursor)
    return _page(await services.reader.read(wanted))


@router.get(
    "/quarantine",
    summary="List what could not be read, and why",
    response_model=schemas.ListOf[schemas.QuarantineOut],
    responses=shows(page_of(examples.QUARANTINED), "invalid"),
)
async def list_quarantine(
    services: Services,
    _: Reader,
    limit: Limit = 100,
    cursor: Annotated[
        str | None, Query(pattern=history.QUARANTINE_CURSOR, description="`next` of the page before.")
    ] = None,
) -> Response:
    """The newest first. Equal bytes are one item with a count, which moves to the front when they arrive again."""
    before = history.read_quarantine_cursor(cursor) if cursor is not None else None
    return _page(await services.reader.read(lambda conn: history.list_quarantine(conn, limit, before)))


@router.get(
    "/history",
    summary="Read what happened, for a replay",
    response_model=schemas.ListOf[schemas.RecordOut],
    responses=shows(page_of(examples.RECORD), "invalid"),
)
async def read_history(
    services: Services,
    _: Reader,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=recorded.CURSOR, description="`next` of the page before.")] = None,
    since: Annotated[QueryTime | None, Query(description="RFC 3339. What happened at or after this time.")] = None,
    until: Annotated[QueryTime | None, Query(description="RFC 3339. What happened before this time.")] = None,
) -> Response:
    """Policies, requests, runs, answers of Prometheus, alerts, and when each alert was heard, one kind after the other.
    `trigger-gateway export` makes a file of it. A page may be empty although another follows."""
    begin, end = _utc(since), _utc(until)
    page = await services.reader.read(lambda conn: recorded.page(conn, cursor, limit, begin, end))
    return json_answer({"items": page.items, "next": page.next})


Subject = Annotated[str, Path(description="Id of an alert or trigger, an alert_id, or a fingerprint.")]


@router.get(
    "/explain/{subject:path}",  # an alert_id may hold a slash
    summary="Explain why, or why not",
    response_model=schemas.Explanation,
    responses=shows(examples.EXPLANATION, "not_found"),
)
async def get_explanation(services: Services, _: Reader, subject: Subject) -> Response:
    """Takes the id of an alert or trigger, an alert_id, or a fingerprint."""
    if "\x00" in subject:
        raise Problem(404, "not_found", "There is no such alert or trigger.")
    policy, now = services.core.policy, services.core.clock.now()
    found = await services.reader.find(lambda conn: explain(conn, subject, policy, now))
    return _found(found, f"There is no alert and no trigger {subject}.")


def _page(page: history.Page) -> Response:
    return json_answer({"items": page.items, "next": page.next})


def _found(item: dict[str, Any] | None, otherwise: str) -> Response:
    if item is None:
        raise Problem(404, "not_found", otherwise)
    return json_answer(item)
