"""Heartbeats by request, outside of /api/v1 where Healthchecks has them."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.deadman.api import Name
from app.deadman.pings import RUN_ID, Kind, Ping
from app.deadman.service import DeadmanServices, Services
from app.kit.errors import Problem
from app.web.problems import UNAVAILABLE, responses
from app.web.problems import Kind as ProblemKind
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter(prefix="/ping", tags=["intake"], responses=responses(UNAVAILABLE))

Pinger = Annotated[Caller, Depends(require("ping", key_parameter=True))]
_SAID = r"^(start|fail|[0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])$"
Said = Annotated[str, Path(pattern=_SAID, description="start, fail, or the exit code of what ran: 0 is a success.")]
Run = Annotated[
    str | None,
    Query(pattern=f"^{RUN_ID.pattern}$", description="Tells runs apart that are under way at the same time."),
]
Key = Annotated[str | None, Query(description="The token, for callers that cannot send a header.")]
_NO_PING = ProblemKind("not_found", 404, "The policy has no switch 'nightly' that expects a ping.")
_OK: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": "OK"}}},
    **responses(_NO_PING, "invalid", "rate_limited"),
}


@router.head("/{switch}", include_in_schema=False)
@router.get("/{switch}", summary="Tell a switch that all is well", response_class=Response, responses=_OK)
@router.post("/{switch}", summary="Tell a switch that all is well, with a body", response_class=Response, responses=_OK)
async def ping(
    services: Services, caller: Pinger, request: Request, switch: Name, rid: Run = None, key: Key = None
) -> Response:
    """A heartbeat, in the shape of Healthchecks: `OK` once it is durable. The beginning of a body is kept with it."""
    del key  # `require` has read it.
    return await _take(services, caller, request, switch, "success", rid, None)


@router.head("/{switch}/{said}", include_in_schema=False)
@router.get("/{switch}/{said}", summary="Tell a switch how a run goes", response_class=Response, responses=_OK)
@router.post(
    "/{switch}/{said}", summary="Tell a switch how a run goes, with a body", response_class=Response, responses=_OK
)
async def ping_said(
    services: Services, caller: Pinger, request: Request, switch: Name, said: Said, rid: Run = None, key: Key = None
) -> Response:
    """`start`: a run began, and is down when it does not end within the grace. `fail` and an exit code other than 0: down
    at once, until the next success."""
    del key
    code = int(said) if said.isdecimal() else None
    kinds: dict[str, Kind] = {"start": "start", "fail": "fail", "0": "success"}
    return await _take(services, caller, request, switch, kinds.get(said, "fail"), rid, code)


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
        raise Problem(403, "cross_site", "A page of another site may not speak for a switch.")
    await services.pings.take(Ping(switch, kind, run, code, await request.body()))
    return Response("OK", media_type="text/plain")
