"""Alerts in: the routes that monitors post to. 202 only after everything in the body is durable."""

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from app.alerts import alertmanager, native
from app.alerts.model import Bad, Parsed, Unreadable
from app.errors import NotDurable, Problem
from app.problems import responses
from app.security import authorize
from app.triggers import examples, schemas
from app.triggers.batcher import Job
from app.triggers.direct import DirectRoute
from app.triggers.intake import Answer
from app.triggers.service import TriggerServices, services_of

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/v1", tags=["intake"], route_class=DirectRoute)

_TAKEN: dict[int | str, dict[str, Any]] = {
    202: {"model": schemas.Accepted, "content": {"application/json": {"example": examples.ACCEPTED}}}
}


def _accepts(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """Body and scope in the document. The body is read from the raw bytes, so that one bad alert does not cost the
    others."""
    body = {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    return {"requestBody": body, "security": [{"bearer": ["ingest"]}]}


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON Schema in one piece: a `$ref` to its own `$defs` would lead nowhere inside of the document."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def whole(node: Any) -> Any:
        if isinstance(node, list):
            return [whole(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return whole(parts[node["$ref"].rpartition("/")[2]])
        return {name: whole(value) for name, value in node.items()}

    resolved: dict[str, Any] = whole(schema)
    return resolved


@router.post(
    "/webhooks/alertmanager",
    status_code=202,
    summary="Take a notification of Alertmanager",
    responses=_TAKEN | responses("bad_request", "too_large", "invalid", "not_durable"),
    openapi_extra=_accepts(_schema_of(alertmanager.Webhook), examples.ALERTMANAGER),
)
async def take_alertmanager(request: Request) -> Response:
    """Answers 202 only after every alert of the body is durable, each with its decision. Alertmanager comes again after
    503, and gives a notification up after any 4xx: so a body is refused only when none of its alerts can be read."""
    authorize(request, "ingest")
    return await _take(await request.body(), alertmanager.read, "alertmanager", services_of(request))


@router.post(
    "/alerts",
    status_code=202,
    summary="Take alerts from anybody",
    responses=_TAKEN | responses("bad_request", "too_large", "invalid", "rate_limited", "not_durable"),
    openapi_extra=_accepts(
        {
            "oneOf": [
                _schema_of(native.NativeAlert),
                {"type": "array", "minItems": 1, "items": _schema_of(native.NativeAlert)},
            ]
        },
        examples.NATIVE,
    ),
)
async def take_native(request: Request) -> Response:
    """One alert or a list of them. `alert_id`, `severity` and `timestamp` are enough."""
    services = services_of(request)
    await services.limit(authorize(request, "ingest"))
    return await _take(await request.body(), native.read, "native", services)


async def _take(raw: bytes, read: Callable[[bytes, int], Parsed], source: str, services: TriggerServices) -> Response:
    try:
        parsed = read(raw, services.max_alerts)
    except Unreadable as error:
        services.metrics.bodies_refused.labels(source, error.status).inc()
        await _keep_refused(raw, source, error, services)
        code = {400: "bad_request", 413: "too_large"}.get(error.status, "invalid")
        raise Problem(error.status, code, str(error), errors=error.errors) from error
    try:
        answers: list[Answer] = await services.batcher.submit(Job(parsed.alerts, parsed.bad, source), services.timeout)
    except NotDurable:
        services.metrics.not_durable.inc()
        raise
    services.metrics.alerts.labels(source).inc(len(answers))
    body = b'{"decisions":[' + b",".join([answer.json for answer in answers]) + b"]"
    if parsed.bad:
        services.metrics.alerts_bad.labels(source).inc(len(parsed.bad))
        body += b',"quarantined":' + to_json(
            [{"index": b.index, "id": b.alert_id, "error": b.error} for b in parsed.bad]
        )
    return Response(body + b"}", 202, media_type="application/json")


async def _keep_refused(raw: bytes, source: str, error: Unreadable, services: TriggerServices) -> None:
    """A refused body is kept for people to see; that it could not be kept does not change the answer."""
    try:
        await services.batcher.submit(Job([], [Bad(0, None, str(error), raw)], source), services.timeout)
    except NotDurable:
        log.warning("a refused body could not be kept", extra={"source": source})
