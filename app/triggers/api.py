"""The API of the trigger side: alerts in, history and explanations out, and what a person may ask for."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime
from pydantic_core import to_json

from app.alerts import alertmanager, native
from app.alerts.model import Bad, Parsed, Unreadable
from app.errors import NotDurable, Problem
from app.problems import Kind, responses
from app.security import require
from app.tokens import Caller
from app.triggers import history, schemas
from app.triggers.batcher import Job
from app.triggers.explain import explain
from app.triggers.intake import Answer
from app.triggers.service import TriggerServices
from app.triggers.state import Reason, TriggerState

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/v1")

ALERTMANAGER_EXAMPLE = {
    "version": "4",
    "groupKey": '{}:{alertname="ModelAccuracyLow", model="churn"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "trigger-gateway",
    "groupLabels": {"alertname": "ModelAccuracyLow", "model": "churn"},
    "commonLabels": {"alertname": "ModelAccuracyLow", "model": "churn", "severity": "critical"},
    "commonAnnotations": {"summary": "Accuracy of churn is 0.7"},
    "externalURL": "http://alertmanager.example:9093",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "ModelAccuracyLow", "model": "churn", "severity": "critical"},
            "annotations": {"summary": "Accuracy of churn is 0.7"},
            "startsAt": "2026-11-23T02:59:30.892Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus.example:9090/graph",
            "fingerprint": "e5883e505f90221a",
        }
    ],
}
NATIVE_EXAMPLE = {"alert_id": "churn-accuracy", "severity": "critical", "timestamp": "2026-11-23T03:00:00Z"}


def _services(request: Request) -> TriggerServices:
    services: TriggerServices = request.app.state.services.triggers
    return services


Services = Annotated[TriggerServices, Depends(_services)]


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


_TAKEN: dict[int | str, dict[str, Any]] = {202: {"model": schemas.Accepted}}


def _accepts(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """The body in the document: it is read from the raw bytes, so that one bad alert does not cost the others."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


# -- alerts in ----------------------------------------------------------------------------------------------------------


@router.post(
    "/webhooks/alertmanager",
    status_code=202,
    tags=["intake"],
    summary="Take a notification of Alertmanager",
    responses=_TAKEN | responses("bad_request", "too_large", "invalid", "not_durable"),
    openapi_extra=_accepts(alertmanager.Webhook.model_json_schema(), ALERTMANAGER_EXAMPLE),
)
async def take_alertmanager(
    request: Request, services: Services, _: Annotated[Caller, Depends(require("ingest"))]
) -> Response:
    """Answers 202 only after every alert of the body is durable, each with its decision. Alertmanager comes again after
    503, and gives a notification up after any 4xx: so a body is refused only when none of its alerts can be read."""
    return await _take(await request.body(), alertmanager.read, "alertmanager", services)


@router.post(
    "/alerts",
    status_code=202,
    tags=["intake"],
    summary="Take alerts from anybody",
    responses=_TAKEN | responses("bad_request", "too_large", "invalid", "rate_limited", "not_durable"),
    openapi_extra=_accepts(
        {
            "oneOf": [
                native.NativeAlert.model_json_schema(),
                {"type": "array", "minItems": 1, "items": native.NativeAlert.model_json_schema()},
            ]
        },
        NATIVE_EXAMPLE,
    ),
)
async def take_native(
    request: Request, services: Services, caller: Annotated[Caller, Depends(require("ingest"))]
) -> Response:
    """One alert or a list of them. `alert_id`, `severity` and `timestamp` are enough."""
    await services.limit(caller)
    return await _take(await request.body(), native.read, "native", services)


async def _take(raw: bytes, read: Callable[[bytes, int], Parsed], source: str, services: TriggerServices) -> Response:
    try:
        parsed = read(raw, services.max_alerts)
    except Unreadable as error:
        services.metrics.bodies_refused.labels(source, error.status).inc()
        await _keep_refused(raw, source, error, services)
        code = {400: "bad_request", 413: "too_large"}.get(error.status, "invalid")
        raise Problem(error.status, code, f"{error}.", errors=error.errors) from error
    try:
        answers: list[Answer] = await services.batcher.submit(Job(parsed.alerts, parsed.bad, source), services.timeout)
    except NotDurable:
        services.metrics.not_durable.inc()
        raise
    services.metrics.alerts.labels(source).inc(len(answers))
    body: dict[str, Any] = {"decisions": [answer.as_dict() for answer in answers]}
    if parsed.bad:
        services.metrics.alerts_bad.labels(source).inc(len(parsed.bad))
        body["quarantined"] = [{"index": b.index, "id": b.alert_id, "error": b.error} for b in parsed.bad]
    return _json(body, 202)


async def _keep_refused(raw: bytes, source: str, error: Unreadable, services: TriggerServices) -> None:
    """A refused body is kept for people to see; that it could not be kept does not change the answer."""
    try:
        await services.batcher.submit(Job([], [Bad(0, None, str(error), raw)], source), services.timeout)
    except NotDurable:
        log.warning("a refused body could not be kept", extra={"source": source})


# -- history out --------------------------------------------------------------------------------------------------------

Reader = Annotated[Caller, Depends(require("read"))]
Limit = Annotated[int, Query(ge=1, le=1000, description="Items on a page.")]


def _query(
    limit: Limit = 100,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    route: Annotated[str | None, Query(max_length=63, description="Name of a route.")] = None,
    reason: Annotated[Reason | None, Query(description="Reason of the newest decision.")] = None,
    label: Annotated[list[str] | None, Query(description="`name=value`; all must hold.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="RFC 3339.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="RFC 3339, exclusive.")] = None,
) -> history.Query:
    pairs = [text.partition("=") for text in label or ()]
    if any(not separator or "\x00" in "".join((n, v)) for n, separator, v in pairs):
        raise Problem(422, "invalid", "A label filter has the form name=value.")
    if route is not None and "\x00" in route:
        raise Problem(422, "invalid", "A route's name holds no NUL.")
    return history.Query(
        limit=limit,
        cursor=cursor,
        route=route,
        reason=reason,
        labels={name: value for name, _, value in pairs},
        since=_storable(since),
        until=_storable(until),
    )


def _storable(time: datetime | None) -> datetime | None:
    try:
        return time.astimezone(UTC) if time else None
    except OverflowError as error:
        raise Problem(422, "invalid", "The time is out of range.") from error


Filters = Annotated[history.Query, Depends(_query)]


@router.get(
    "/alerts",
    tags=["history"],
    summary="List alerts, the newest first",
    response_model=schemas.ListOf[schemas.AlertOut],
    responses=responses("invalid"),
)
async def list_alerts(
    services: Services,
    _: Reader,
    query: Filters,
    status: Annotated[str | None, Query(pattern="^(firing|resolved)$", description="firing or resolved")] = None,
) -> Response:
    """An alert is one episode: from its first firing until it is resolved or begins anew."""
    async with services.engine.connect() as conn:
        page = await history.list_alerts(conn, replace(query, status=status))
    return _page(page)


@router.get(
    "/alerts/{id}",
    tags=["history"],
    summary="Show one alert with every decision",
    response_model=schemas.AlertOut,
    responses=responses("not_found"),
)
async def get_alert(services: Services, _: Reader, id: UUID) -> Response:
    async with services.engine.connect() as conn:
        return _found(await history.get_alert(conn, id), f"There is no alert {id}.")


@router.get(
    "/triggers",
    tags=["history"],
    summary="List triggers, the newest first",
    response_model=schemas.ListOf[schemas.TriggerOut],
    responses=responses("invalid"),
)
async def list_triggers(
    services: Services,
    _: Reader,
    query: Filters,
    status: Annotated[TriggerState | None, Query(description="The trigger's state.")] = None,
) -> Response:
    """A trigger is our decision to start one DAG run; it is followed until the run has ended."""
    async with services.engine.connect() as conn:
        page = await history.list_triggers(conn, replace(query, status=status))
    return _page(page)


@router.get(
    "/triggers/{id}",
    tags=["history"],
    summary="Show one trigger with its alerts and attempts",
    response_model=schemas.TriggerOut,
    responses=responses("not_found"),
)
async def get_trigger(services: Services, _: Reader, id: UUID) -> Response:
    async with services.engine.connect() as conn:
        return _found(await history.get_trigger(conn, id), f"There is no trigger {id}.")


@router.get(
    "/routes",
    tags=["history"],
    summary="Show the policy with the live state of each group",
    response_model=schemas.ListOf[schemas.RouteOut],
)
async def list_routes(
    services: Services,
    _: Reader,
    limit: Limit = 100,
    route: Annotated[str | None, Query(max_length=63, description="Only this route; pages through its groups.")] = None,
    cursor: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$", description="`next` of the page before.")] = None,
) -> Response:
    policy, now = services.policy(), services.clock.now()
    async with services.engine.connect() as conn:
        page = await history.list_routes(conn, policy, now, only=route, limit=limit, cursor=cursor)
    return _page(page)


@router.get(
    "/quarantine",
    tags=["history"],
    summary="List what could not be read, and why",
    response_model=schemas.ListOf[schemas.QuarantineOut],
)
async def list_quarantine(
    services: Services,
    _: Reader,
    limit: Limit = 100,
    cursor: Annotated[AwareDatetime | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    async with services.engine.connect() as conn:
        return _page(await history.list_quarantine(conn, limit, _storable(cursor)))


@router.get(
    "/explain/{subject}",
    tags=["history"],
    summary="Explain why, or why not",
    response_model=schemas.Explanation,
    responses=responses("not_found"),
)
async def get_explanation(services: Services, _: Reader, subject: str) -> Response:
    """Takes the id of an alert or trigger, an alert_id, or a fingerprint."""
    if "\x00" in subject:
        raise Problem(404, "not_found", "There is no such alert or trigger.")
    async with services.engine.connect() as conn:
        found = await explain(conn, subject, services.policy(), services.clock.now())
    return _found(found, f"There is no alert and no trigger {subject}.")


# -- what a person may ask for ------------------------------------------------------------------------------------------

Operator = Annotated[Caller, Depends(require("trigger"))]
_WRONG_STATE = Kind(
    "wrong_state", 409, "Only a dead trigger can be redriven; this one is running.", {"state": "running"}
)


@router.post(
    "/triggers/{id}/redrive",
    tags=["operate"],
    summary="Deliver a dead trigger again",
    response_model=schemas.TriggerOut,
    responses=responses("not_found", _WRONG_STATE, "rate_limited"),
)
async def redrive(services: Services, caller: Operator, id: UUID) -> Response:
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
    responses=responses("not_found", _WRONG_STATE, "rate_limited"),
)
async def cancel(services: Services, caller: Operator, id: UUID) -> Response:
    """held -> cancelled. What has fired is Airflow's to stop."""
    await services.limit(caller)
    await services.requests.cancel(id, caller.name)
    async with services.engine.connect() as conn:
        return _found(await history.get_trigger(conn, id), f"There is no trigger {id}.")


@router.post(
    "/routes/{name}/reset",
    tags=["operate"],
    summary="Clear the cooldown of a group",
    response_model=schemas.GroupOut,
    responses=responses("not_found", "rate_limited"),
)
async def reset(services: Services, caller: Operator, name: str, body: schemas.ResetBody) -> Response:
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
