"""The API of the switches: how they stand, what a person asks of them, and the heartbeats that come by request."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from app.deadman import schemas, show
from app.deadman.requests import unknown
from app.deadman.rules import State
from app.deadman.service import DeadmanServices, Services
from app.policy.deadman import LONGEST_NAME
from app.web.answers import json_answer, shows
from app.web.problems import UNAVAILABLE, responses
from app.web.problems import Kind as ProblemKind
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1/deadman", responses=responses(UNAVAILABLE))

_NAMED = {"min_length": 1, "max_length": LONGEST_NAME, "pattern": r"^[^\x00]+$"}
Name = Annotated[str, Path(**_NAMED, description="Name of a switch.")]
Reader = Annotated[Caller, Depends(require("read"))]
Operator = Annotated[Caller, Depends(require("trigger"))]

_NO_SWITCH = ProblemKind("not_found", 404, "There is no switch 'retrained-churn'.")
_NOT_PAUSED = ProblemKind("wrong_state", 409, "Only a paused switch can be resumed; this one is up.", {"state": "up"})
_RESUMED = schemas.DETAIL | {
    "state": "new",
    "last_at": None,
    "last_event": "",
    "explanation": "Nothing was heard of it.",
}
_PAUSED = schemas.DETAIL | {"state": "paused", "due_at": None, "down_at": None, "note": "paused by ana: data freeze"}


@router.get(
    "",
    tags=["history"],
    summary="List the dead man's switches",
    response_model=schemas.SwitchPage,
    responses=shows({"items": [schemas.SWITCH], "next": None}, "invalid"),
)
async def list_switches(
    services: Services,
    _: Reader,
    state: Annotated[State | None, Query(description="Only switches in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[
        str | None, Query(max_length=LONGEST_NAME, pattern=r"^[^\x00]*$", description="`next` of the page before.")
    ] = None,
) -> Response:
    """By name: what each expects, what was heard of it, and when it is due."""
    policy = services.core.policy
    items, following = await services.reader.read(
        lambda conn: show.page(conn, policy, state=state, limit=limit, cursor=cursor)
    )
    return json_answer({"items": items, "next": following})


@router.get(
    "/{name:path}",
    tags=["history"],
    summary="Show one switch, and why it is as it is",
    response_model=schemas.SwitchDetail,
    responses=shows(schemas.DETAIL, _NO_SWITCH, "invalid"),
)
async def get_switch(services: Services, _: Reader, name: Name) -> Response:
    """With its flips, the requests that it got, and an explanation that is built from the history."""
    return await _one(services, name)


@router.post(
    "/{name:path}/pause",
    tags=["operate"],
    summary="Await nothing of a switch for a while",
    response_model=schemas.SwitchDetail,
    responses=shows(_PAUSED, _NO_SWITCH, "invalid", "rate_limited"),
)
async def pause(services: Services, caller: Operator, name: Name, body: schemas.PauseBody) -> Response:
    """It is never down while it is paused, and counts anew afterwards. An incident of it that is open is resolved."""
    await services.limiter.check(caller)
    await services.requests.pause(name, body.until, body.reason, caller.name)
    return await _one(services, name, fresh=True)


@router.post(
    "/{name:path}/resume",
    tags=["operate"],
    summary="Await a paused switch again",
    response_model=schemas.SwitchDetail,
    responses=shows(_RESUMED, _NO_SWITCH, "invalid", _NOT_PAUSED, "rate_limited"),
)
async def resume(services: Services, caller: Operator, name: Name) -> Response:
    """It counts anew, like one that was just loaded."""
    await services.limiter.check(caller)
    await services.requests.resume(name, caller.name)
    return await _one(services, name, fresh=True)


@router.post(
    "/{name:path}/forget",
    tags=["operate"],
    summary="Forget what was heard of a switch",
    response_model=schemas.Forgotten,
    responses=shows(schemas.FORGOTTEN, _NO_SWITCH, "invalid", "rate_limited"),
)
async def forget(services: Services, caller: Operator, name: Name) -> Response:
    """One that the policy names begins anew. One that was made for a value that alerts brought is gone until they bring it
    again."""
    await services.limiter.check(caller)
    return json_answer({"name": name, "begins_anew": await services.requests.forget(name, caller.name)})


async def _one(services: DeadmanServices, name: str, *, fresh: bool = False) -> Response:
    policy, now = services.core.policy, services.core.clock.now()
    find = services.reader.fresh if fresh else services.reader.find
    found = await find(lambda conn: show.one(conn, name, policy, now))
    if found is None:
        raise unknown(name)
    return json_answer(found)
