"""The API of the dead man's switches: their states, and what a person may ask: pause, resume, forget."""

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
    "explanation": "Nothing has arrived yet: a successful run of route accuracy for model=churn is due by "
    "2026-11-30T03:00:00Z.",
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
    """Switches by name: what each one expects, its last good sign, and when the next one is due."""
    policy = services.core.policy
    items, following = await services.reader.read(
        lambda conn: show.page(conn, policy, state=state, limit=limit, cursor=cursor)
    )
    return json_answer({"items": items, "next": following})


@router.get(
    "/{name:path}",
    tags=["history"],
    summary="Show one switch, and why it is in its state",
    response_model=schemas.SwitchDetail,
    responses=shows(schemas.DETAIL, _NO_SWITCH, "invalid"),
)
async def get_switch(services: Services, _: Reader, name: Name) -> Response:
    """With its flips, its pings, and an explanation from the history."""
    return await _answer(services, name)


@router.post(
    "/{name:path}/pause",
    tags=["operate"],
    summary="Expect nothing of a switch for a while",
    response_model=schemas.SwitchDetail,
    responses=shows(_PAUSED, _NO_SWITCH, "invalid", "rate_limited"),
)
async def pause(services: Services, caller: Operator, name: Name, body: schemas.PauseBody) -> Response:
    """A paused switch is never down. Its period starts again when the pause ends. Its open incident is resolved."""
    await services.limiter.check(caller)
    await services.requests.pause(name, body.until, body.reason, caller.name)
    return await _answer(services, name, fresh=True)


@router.post(
    "/{name:path}/resume",
    tags=["operate"],
    summary="End the pause of a switch",
    response_model=schemas.SwitchDetail,
    responses=shows(_RESUMED, _NO_SWITCH, "invalid", _NOT_PAUSED, "rate_limited"),
)
async def resume(services: Services, caller: Operator, name: Name) -> Response:
    """Its period starts again, as if it had just been loaded."""
    await services.limiter.check(caller)
    await services.requests.resume(name, caller.name)
    return await _answer(services, name, fresh=True)


@router.post(
    "/{name:path}/forget",
    tags=["operate"],
    summary="Forget what a switch has received",
    response_model=schemas.Forgotten,
    responses=shows(schemas.FORGOTTEN, _NO_SWITCH, "invalid", "rate_limited"),
)
async def forget(services: Services, caller: Operator, name: Name) -> Response:
    """A switch that the policy names becomes new. A switch that was made for a value from an alert is gone until an alert
    brings that value again."""
    await services.limiter.check(caller)
    return json_answer({"name": name, "begins_anew": await services.requests.forget(name, caller.name)})


async def _answer(services: DeadmanServices, name: str, *, fresh: bool = False) -> Response:
    policy, now = services.core.policy, services.core.clock.now()
    find = services.reader.fresh if fresh else services.reader.find
    found = await find(lambda conn: show.switch(conn, name, policy, now))
    if found is None:
        raise unknown(name)
    return json_answer(found)
