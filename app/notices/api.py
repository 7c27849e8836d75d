"""The API of notices: list incidents, end one by hand, send again what failed, and test a receiver."""

from dataclasses import asdict
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response

from app.kit.errors import Problem
from app.notices import schemas, show
from app.notices.service import NoticeServices, Services
from app.policy.values import ROUTE_NAME
from app.web.answers import json_answer, shows
from app.web.problems import UNAVAILABLE, Kind, responses
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1", responses=responses(UNAVAILABLE))

Reader = Annotated[Caller, Depends(require("read"))]
Operator = Annotated[Caller, Depends(require("trigger"))]
Ident = Annotated[UUID, Path(description="The id of an incident, a UUID.")]
Name = Annotated[str, Path(pattern=f"^{ROUTE_NAME.pattern}$", description="Name of a receiver.")]

_NO_NOTICE = Kind("not_found", 404, "There is no notice 019ab0c4-6f1e-7d35-9c1a-3f0e4a5b6c7d.")
_NO_RECEIVER = Kind("not_found", 404, "The policy has no receiver named 'oncall'.")
_OVER = Kind("wrong_state", 409, "Only an open notice can be resolved.", {"state": "resolved"})
_NOT_DEAD = Kind("wrong_state", 409, "No notice of this incident is dead.", {"state": "open"})
_WAITING = {"opened": {"state": "pending", "detail": "", "times": 1}}
_REDRIVEN = schemas.NOTICE | {"receivers": [schemas.NOTICE["receivers"][0] | _WAITING]}
_RESOLVED = schemas.NOTICE | {"resolved_at": "2026-11-23T04:00:00Z", "resolution": "resolved by ana: retrained by hand"}


@router.get(
    "/notices",
    tags=["history"],
    summary="List incidents, the newest first",
    response_model=schemas.NoticePage,
    responses=shows({"items": [schemas.NOTICE], "next": None}, "invalid"),
)
async def list_notices(
    services: Services,
    _: Reader,
    state: Annotated[Literal["open", "resolved"] | None, Query(description="Only incidents in this state.")] = None,
    event: Annotated[str | None, Query(pattern="^[a-z_]{1,64}$", description="Only incidents of this event.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """Each incident with its receivers, and with what each receiver answered."""
    query = show.Query(limit=limit, cursor=cursor, open=None if state is None else state == "open", event=event)
    items, following = await services.reader.read(lambda conn: show.page(conn, query))
    return json_answer({"items": items, "next": following})


@router.post(
    "/notices/{id}/resolve",
    tags=["operate"],
    summary="Resolve an incident by hand",
    response_model=schemas.NoticeOut,
    responses=shows(_RESOLVED, _NO_NOTICE, "invalid", _OVER, "rate_limited"),
)
async def resolve(services: Services, caller: Operator, id: Ident, body: schemas.ResolveBody) -> Response:
    """For an incident whose cause the gateway never judges again, for example because its route is gone. Every receiver of
    its opening gets the end."""
    await services.limiter.check(caller)
    await services.requests.resolve(id, body.reason, caller.name)
    return await _one(services, id)


@router.post(
    "/notices/{id}/redrive",
    tags=["operate"],
    summary="Send again the notices of an incident that are dead",
    response_model=schemas.NoticeOut,
    responses=shows(_REDRIVEN, _NO_NOTICE, _NOT_DEAD, "rate_limited"),
)
async def redrive(services: Services, caller: Operator, id: Ident) -> Response:
    """Makes the dead notices of the incident pending again, with a fresh deadline. Repair the receiver first.

    Delivered notices are not sent again. A dead opening is not sent when its end was delivered or is on its way.
    """
    await services.limiter.check(caller)
    await services.requests.redrive(id, caller.name)
    return await _one(services, id)


async def _one(services: NoticeServices, ident: UUID) -> Response:
    found = await services.reader.fresh(lambda conn: show.one(conn, ident))
    if found is None:
        raise Problem(404, "not_found", f"There is no notice {ident}.")
    return json_answer(found)


@router.post(
    "/receivers/{name}/test",
    tags=["operate"],
    summary="Send a test to a receiver",
    response_model=schemas.TestedOut,
    responses=shows(schemas.TESTED, _NO_RECEIVER, "invalid", "rate_limited"),
)
async def test(services: Services, caller: Operator, name: Name) -> Response:
    """Sends a notice that is marked as a test through the outbox, and answers with what the receiver said. The gateway
    resolves the test at the receiver two minutes later."""
    await services.limiter.check(caller)
    return json_answer(asdict(await services.requests.test(name, caller.name)))
