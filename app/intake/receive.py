"""The endpoints that monitors post alerts to. The answer is 202 only after everything in the body is durable."""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from app.decide.alert import Alert, Bad, Parsed, Unreadable
from app.decide.books import MATES
from app.explain import examples, schemas
from app.intake.intake import Job
from app.intake.service import Admitted, DirectRoute, IntakeServices, admit, body_of, services_of, spending
from app.intake.sources import alertmanager, cloudevents, grafana, mapped, native
from app.kit.clock import monotonic
from app.kit.errors import NotDurable, Problem
from app.policy.schema import Policy
from app.policy.sources import TAKEN
from app.web.heavy import Late, aside, gone, is_heavy, while_there
from app.web.manners import allow
from app.web.problems import BAD_SIGNATURE, responses
from app.web.security import authorize

log = logging.getLogger(__name__)

#: Groups that one request may name: whoever sends alerts invents their labels, and each group has a row. Firing alerts of
#: further groups are quarantined, each alone. A sender with more groups sends several requests.
MOST_GROUPS: Final = 1000

_Group = tuple[str, ...] | None  # a route and the values of its group; None: no route

#: Alerts that are decided at once. A larger body is decided in parts, so that the bodies of others go between them.
MOST_AT_ONCE: Final = 500

router = APIRouter(prefix="/api/v1", tags=["intake"], route_class=DirectRoute)

_TAKEN: dict[int | str, dict[str, Any]] = {
    202: {"model": schemas.Accepted, "content": {"application/json": {"example": examples.ACCEPTED}}}
}


def _accepts(*bodies: tuple[str, dict[str, Any], Any], **more: Any) -> dict[str, Any]:
    """For the OpenAPI document: the bodies (media type, schema, example) and the scope. The endpoints read the raw bytes
    themselves, because one bad alert must not fail the others."""
    content = {media_type: {"schema": schema, "example": example} for media_type, schema, example in bodies}
    return {"requestBody": {"required": True, "content": content}, "security": [{"bearer": ["ingest"]}], **more}


def _list_of(schema: dict[str, Any], least: int = 1) -> dict[str, Any]:
    return {"type": "array", "minItems": least, "items": schema}


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON Schema without references: a `$ref` to its own `$defs` would not resolve in the OpenAPI document."""
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


_JSON = "application/json"
_UNSIGNED = ("unauthorized", BAD_SIGNATURE)
_BUILT_IN = TAKEN - {"native"}  # Its path is /alerts.
_ORIGIN = re.compile(r"[A-Za-z0-9._:*-]{1,255}")
_ALERT, _EVENT = _schema_of(native.NativeAlert), _schema_of(cloudevents.CloudEvent)


@router.post(
    "/webhooks/alertmanager",
    status_code=202,
    summary="Take a notification of Alertmanager",
    responses=_TAKEN | responses("bad_request", "too_large", "invalid", "not_durable"),
    openapi_extra=_accepts((_JSON, _schema_of(alertmanager.Webhook), examples.ALERTMANAGER)),
)
async def take_alertmanager(request: Request) -> Response:
    """Answers 202 only after every alert of the body is durable, each with its decision. Alertmanager repeats a notification
    after 503 and drops it after any 4xx. So a body is refused only when none of its alerts can be read."""
    caller, services = authorize(request, "ingest"), services_of(request)
    admitted = Admitted(caller, await body_of(request, "alertmanager", services))
    return await _take(request, admitted, alertmanager.read, "alertmanager", services)


@router.post(
    "/webhooks/grafana",
    status_code=202,
    summary="Take a notification of Grafana",
    responses=_TAKEN | responses("bad_request", *_UNSIGNED, "too_large", "invalid", "not_durable"),
    openapi_extra=_accepts((_JSON, _schema_of(grafana.GrafanaWebhook), examples.GRAFANA)),
)
async def take_grafana(request: Request) -> Response:
    """Takes the body of a webhook contact point of Grafana. Decisions and answers are the same as for Alertmanager. If
    `GATEWAY_GRAFANA_SECRET` is set, the contact point must send its HMAC signature."""
    return await _take_signed(request, grafana.read, "grafana", limited=False)


@router.post(
    "/webhooks/cloudevents",
    status_code=202,
    summary="Take events in the form of CloudEvents",
    responses=_TAKEN | responses("bad_request", "too_large", "invalid", "not_durable"),
    openapi_extra=_accepts(
        ("application/cloudevents+json", _EVENT, examples.CLOUDEVENT),
        ("application/cloudevents-batch+json", _list_of(_EVENT, 0), [examples.CLOUDEVENT]),
        (_JSON, _schema_of(cloudevents.EventData), examples.CLOUDEVENT["data"]),
        parameters=[
            {
                "name": f"ce-{name}",
                "in": "header",
                "schema": {"type": "string", "minLength": 1},
                "description": description,
            }
            for name, description in examples.CLOUDEVENT_HEADERS.items()
        ],
    ),
)
async def take_cloudevents(request: Request) -> Response:
    """Takes one event in binary or structured mode, or a batch. Its `data` is an alert as in `POST /api/v1/alerts`.
    `alert_id`, `timestamp` and the labels `source`, `type` and `subject` default to those of the event."""
    caller, services = authorize(request, "ingest"), services_of(request)
    admitted = Admitted(caller, await body_of(request, "cloudevents", services))
    read = partial(cloudevents.read, headers=request.headers)
    return await _take(request, admitted, read, "cloudevents", services)


@router.post(
    "/alerts",
    status_code=202,
    summary="Take alerts in the gateway's own form",
    responses=_TAKEN | responses("bad_request", *_UNSIGNED, "too_large", "invalid", "rate_limited", "not_durable"),
    openapi_extra=_accepts((_JSON, {"oneOf": [_ALERT, _list_of(_ALERT)]}, examples.NATIVE)),
)
async def take_native(request: Request) -> Response:
    """Takes one alert or a list of alerts. `alert_id`, `severity` and `timestamp` are enough. If `GATEWAY_WEBHOOK_SECRET` is
    set, requests must be signed as Standard Webhooks describes."""
    return await _take_signed(request, native.read, "native", limited=True)


# It takes every name, so routes of other webhooks stand above it.
@router.post(
    "/webhooks/{source}",  # noqa: FAST003 (a DirectRoute gets the request alone)
    status_code=202,
    summary="Take a body that the policy maps",
    responses=_TAKEN | responses("bad_request", *_UNSIGNED, "not_found", "too_large", "invalid", "not_durable"),
    openapi_extra=_accepts(
        (_JSON, {"oneOf": [{"type": "object"}, {"type": "array", "minItems": 1}]}, examples.CLOUDWATCH),
        parameters=[
            {
                "name": "source",
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "description": "A name in `sources:` of the policy.",
            }
        ],
    ),
)
async def take_mapped(request: Request) -> Response:
    """Takes any JSON. `sources:` of the policy says where the parts of an alert are. The result is decided like an alert of
    `POST /api/v1/alerts`; an alert that lacks a part is quarantined alone. If the source has a `secret`, requests must be
    signed as Standard Webhooks describes."""
    source = services_of(request).core.policy.source(request.path_params["source"])
    if source is None:
        authorize(request, "ingest")
        raise Problem(404, "not_found", "The policy has no source of this name.")
    return await _take_signed(request, partial(mapped.read, source=source), source.name, limited=False)


@router.options("/webhooks/{source}", include_in_schema=False)  # noqa: FAST003 (as above)
async def permit(request: Request) -> Response:
    """The handshake of CloudEvents' web hooks, by which a sender such as Azure Event Grid asks whether it may deliver here.
    It needs no token: it opens nothing, and each delivery is judged by its own token or signature."""
    source = request.path_params["source"]
    if source not in _BUILT_IN and services_of(request).core.policy.source(source) is None:
        raise Problem(404, "not_found", "The policy has no source of this name.")
    headers = {"Allow": allow(request.scope)}
    origin = request.headers.get("webhook-request-origin")
    if origin is not None:
        if not _ORIGIN.fullmatch(origin):
            raise Problem(400, "bad_request", "The header WebHook-Request-Origin is not a domain name.")
        headers |= {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"}
    return Response(headers=headers)


async def _take_signed(
    request: Request, read: Callable[[bytes, int], Parsed], source: str, *, limited: bool
) -> Response:
    """Take a body of a source that may have a secret. `limited`: the caller's rate limit applies."""
    services = services_of(request)
    admitted = await admit(request, source, services)
    async with spending(admitted, services):
        if limited:
            await services.limiter.check(admitted.caller)
        return await _take(request, admitted, read, source, services)


async def _take(
    request: Request,
    admitted: Admitted,
    read: Callable[[bytes, int], Parsed],
    source: str,
    services: IntakeServices,
) -> Response:
    raw, lane = admitted.body, admitted.caller.name
    parts: list[list[int]] = []
    try:
        parsed = None if is_heavy(raw) else _short(raw, read, services.max_alerts)
        if parsed is None:
            parsed, parts = await _parsed(request, admitted, read, services)
    except Unreadable as error:
        services.core.metrics.bodies_refused.labels(source, error.status).inc()
        bad = [Bad(0, None, str(error), raw)]
        job = Job([], bad, source, len(raw), lane=lane, gone=lambda: gone(request), arrived=admitted.arrived)
        await _keep_refused(job, services)
        code = {400: "bad_request", 413: "too_large"}.get(error.status, "invalid")
        raise Problem(error.status, code, str(error), errors=error.errors) from error
    if not (parsed.alerts or parsed.bad):  # An empty batch of events.
        return Response(b'{"decisions":[]}', 202, media_type=_JSON)
    job = Job(
        parsed.alerts,
        parsed.bad,
        source,
        len(raw),
        lambda at: parsed.sent(parsed.order[at]),
        lane,
        lambda: gone(request),
        arrived=admitted.arrived,
    )
    try:
        if parts:
            decisions = await while_there(request, _in_parts(job, parts, admitted, services))
        else:
            admitted.jobs.append(job)
            decisions = [answer.json for answer in await services.batcher.submit(job, services.timeout)]
    except NotDurable:
        services.core.metrics.not_durable.inc()
        raise
    services.core.metrics.alerts.labels(source).inc(len(decisions))
    body = b'{"decisions":[' + b",".join(decisions) + b"]"
    if parsed.bad:
        services.core.metrics.alerts_bad.labels(source).inc(len(parsed.bad))
        body += b',"quarantined":' + to_json(
            [{"index": b.index, "id": b.alert_id, "error": b.error} for b in parsed.bad]
        )
    return Response(body + b"}", 202, media_type=_JSON)


def _short(raw: bytes, read: Callable[[bytes, int], Parsed], max_alerts: int) -> Parsed | None:
    """What a short body holds. None: it has very many entries, such as numbers. Raises Unreadable."""
    try:
        return read(raw, min(max_alerts, MOST_AT_ONCE))
    except Unreadable as error:
        if error.status != 413 or max_alerts <= MOST_AT_ONCE:
            raise
        return None


async def _parsed(
    request: Request, admitted: Admitted, read: Callable[[bytes, int], Parsed], services: IntakeServices
) -> tuple[Parsed, list[list[int]]]:
    """What a heavy body holds, and its parts when it is large. Raises Unreadable. Raises NotDurable when other bodies take
    too long to read."""

    def parse() -> tuple[Parsed, list[list[int]]]:
        parsed = read(admitted.body, services.max_alerts)
        is_large = len(parsed.alerts) + len(parsed.bad) > MOST_AT_ONCE
        return cut(parsed, services.core.policy) if is_large else (parsed, [])

    left = admitted.arrived + services.timeout - monotonic()
    try:
        return await while_there(request, aside(admitted.caller.name, parse, within=left))
    except Late as late:
        services.core.metrics.not_durable.inc()
        raise NotDurable("the alerts were not read in time, because too many large bodies wait to be read") from late


async def _in_parts(whole: Job, parts: list[list[int]], admitted: Admitted, services: IntakeServices) -> list[bytes]:
    """The decisions on a large body, in its order, when all of them are durable. One part waits at a time, in a lane beside
    the one of the sender's other bodies, so they go between the parts. Unreadable entries fill the parts up, and those that
    are left have parts of their own."""
    due = whole.arrived + services.timeout
    decisions, bad = [b""] * len(whole.alerts), whole.bad
    while parts or bad:
        part = parts.pop(0) if parts else []
        room = max(MOST_AT_ONCE - len(part), 0)
        alerts, some, bad = [whole.alerts[at] for at in part], bad[:room], bad[room:]
        job = Job(alerts, some, whole.source, whole.size, partial(_sent, whole, part), whole.lane, large=True)
        admitted.jobs.append(job)
        for at, answer in zip(part, await services.batcher.submit(job, due - monotonic()), strict=True):
            decisions[at] = answer.json
    return decisions


def _sent(whole: Job, part: list[int], at: int) -> bytes:
    return whole.sent(part[at])


async def _keep_refused(job: Job, services: IntakeServices) -> None:
    """Keep a refused body in the quarantine. If that fails, the answer is the same."""
    try:
        await services.batcher.submit(job, services.timeout)
    except NotDurable as failure:
        log.warning("a refused body could not be kept", extra={"source": job.source, "error": str(failure)})


def cut(parsed: Parsed, policy: Policy, most: int = MOST_GROUPS) -> tuple[Parsed, list[list[int]]]:
    """The same body, without the firing alerts of groups after the first `most`; and its parts, as places among its alerts.
    A group stands in one part, because its alerts fire together. So do groups that share an alert, because its notifications
    have an order. Those of more than MATES alerts do not: no decision looks at more."""
    named: set[tuple[str, ...]] = set()
    groups: list[_Group] = []  # of those kept
    first: dict[str, _Group] = {}  # of each alert
    joined: dict[_Group, _Group] = {}  # a group: another that shares an alert with it
    kept: list[tuple[Alert, int]] = []
    left: list[Bad] = []
    for alert, place in zip(parsed.alerts, parsed.order, strict=True):
        route = policy.route_for(alert.labels)
        group = (route.name, *route.group(alert.labels).values()) if route is not None else None
        if alert.firing and group is not None and group not in named:
            if len(named) >= most:
                error = f"this request names more than {most} groups of alerts: send fewer at a time"
                left.append(Bad(place, alert.alert_id, error, parsed.sent(place)))
                continue
            named.add(group)
        here, other = _root(joined, group), _root(joined, first.setdefault(alert.fingerprint, group))
        if here != other:
            joined[here] = other
        groups.append(group)
        kept.append((alert, place))
    bad = sorted([*parsed.bad, *left], key=lambda each: each.index)
    whole = replace(parsed, alerts=[alert for alert, _ in kept], order=[place for _, place in kept], bad=bad)
    places: dict[_Group, list[int]] = {}
    for at, group in enumerate(groups):
        places.setdefault(_root(joined, group), []).append(at)
    parts: list[list[int]] = [[]]
    for together in places.values():
        for begin in range(0, len(together), MATES):
            some = together[begin : begin + MATES]
            if parts[-1] and len(parts[-1]) + len(some) > MOST_AT_ONCE:
                parts.append([])
            parts[-1] += some
    return whole, parts


def _root(joined: dict[_Group, _Group], group: _Group) -> _Group:
    """The group that stands for all that are joined with this one."""
    while (above := joined.get(group, group)) != group:
        joined[group] = joined.get(above, above)  # The next look has a shorter way.
        group = above
    return group
