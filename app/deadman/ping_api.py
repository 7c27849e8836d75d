"""Pings: heartbeats by request. They stand outside of /api/v1, at the same address as in Healthchecks."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.routing import APIRoute

from app.deadman.api import Name
from app.deadman.pings import RUN_ID, Kind, Ping
from app.deadman.service import DeadmanServices, Services
from app.kit.errors import Problem
from app.web.problems import UNAVAILABLE, responses
from app.web.problems import Kind as ProblemKind
from app.web.security import require
from app.web.tokens import Caller


class _PingRoute(APIRoute):
    """A job may send its whole log: a ping that is refused for its length would be a false alarm."""

    takes_large = True


router = APIRouter(prefix="/ping", tags=["intake"], responses=responses(UNAVAILABLE), route_class=_PingRoute)

Pinger = Annotated[Caller, Depends(require("ping", key_parameter=True))]
_SIGNAL = r"^(start|fail|[0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])$"
Signal = Annotated[str, Path(pattern=_SIGNAL, description="start, fail, or the exit code of the job: 0 is a success.")]
Run = Annotated[
    str | None,
    Query(pattern=f"^{RUN_ID.pattern}$", description="An id of the run, for runs that go on at the same time."),
]
Key = Annotated[str | None, Query(description="The token, for callers that cannot send a header.")]
_NO_PING = ProblemKind("not_found", 404, "The policy has no switch 'nightly' that expects a ping.")
_OK: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": "OK"}}},
    **responses(_NO_PING, "invalid", "rate_limited"),
}


@router.get("/{switch}", summary="Report a success to a switch", response_class=Response, responses=_OK)
@router.post("/{switch}", summary="Report a success to a switch, with a body", response_class=Response, responses=_OK)
async def ping(
    services: Services, caller: Pinger, request: Request, switch: Name, rid: Run = None, key: Key = None
) -> Response:
    """A heartbeat, as in Healthchecks. The answer is `OK` when the ping is durable. The gateway keeps the beginning of the
    body."""
    del key  # `require` has read the token.
    return await _take(services, caller, request, switch, "success", rid, None)


@router.get(
    "/{switch}/{signal}",
    summary="Report how a run goes to a switch",
    response_class=Response,
    responses=_OK,
)
@router.post(
    "/{switch}/{signal}",
    summary="Report how a run goes to a switch, with a body",
    response_class=Response,
    responses=_OK,
)
async def ping_signal(
    services: Services, caller: Pinger, request: Request, switch: Name, signal: Signal, rid: Run = None, key: Key = None
) -> Response:
    """After `start` the run must end within the grace, or the switch goes down. After `fail`, or an exit code other than 0,
    the switch is down until the next success."""
    del key
    code = int(signal) if signal.isdecimal() else None
    kinds: dict[str, Kind] = {"start": "start", "fail": "fail", "0": "success"}
    return await _take(services, caller, request, switch, kinds.get(signal, "fail"), rid, code)


async def _take(
    services: DeadmanServices,
    caller: Caller,
    request: Request,
    switch: str,
    kind: Kind,
    run: str | None,
    code: int | None,
) -> Response:
    await services.limiter.check(caller)
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise Problem(403, "cross_site", "A page of another site may not ping a switch.")
    await services.pings.take(Ping(switch, kind, run, code, await request.body()))
    return Response("OK", media_type="text/plain")
