"""The API of notices: what people were told, that it is over, and whether a receiver hears."""

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
Ident = Annotated[UUID, Path(description="Its id, a UUID.")]
Name = Annotated[str, Path(pattern=f"^{ROUTE_NAME.pattern}$", description="Name of a receiver.")]

_NO_NOTICE = Kind("not_found", 404, "There is no notice 019ab0c4-6f1e-7d35-9c1a-3f0e4a5b6c7d.")
_NO_RECEIVER = Kind("not_found", 404, "The policy has no receiver named 'oncall'.")
_OVER = Kind("wrong_state", 409, "Only an open notice can be resolved.", {"state": "resolved"})
_NOT_DEAD = Kind("wrong_state", 409, "Nothing of it died on its way to a receiver.", {"state": "open"})
_WAITING = {"opened": {"state": "pending", "detail": "", "times": 1}}
_REDRIVEN = schemas.NOTICE | {"receivers": [schemas.NOTICE["receivers"][0] | _WAITING]}
_RESOLVED = schemas.NOTICE | {"resolved_at": "2026-11-23T04:00:00Z", "resolution": "resolved by ana: retrained by hand"}


@router.get(
    "/notices",
    tags=["history"],
    summary="List what people were told, the newest first",
    response_model=schemas.NoticePage,
    responses=shows({"items": [schemas.NOTICE], "next": None}, "invalid"),
)
async def list_notices(
    services: Services,
    _: Reader,
    state: Annotated[Literal["open", "resolved"] | None, Query(description="open or resolved")] = None,
    event: Annotated[str | None, Query(pattern="^[a-z_]{1,64}$", description="Only this event.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """An incident opens once and is resolved by the same key; each receiver of it with what it answered."""
    query = show.Query(limit=limit, cursor=cursor, open=None if state is None else state == "open", event=event)
    items, following = await services.reader.read(lambda conn: show.page(conn, query))
    return json_answer({"items": items, "next": following})


@router.post(
    "/notices/{id}/resolve",
    tags=["operate"],
    summary="Say that an incident is over",
    response_model=schemas.NoticeOut,
    responses=shows(_RESOLVED, _NO_NOTICE, "invalid", _OVER, "rate_limited"),
)
async def resolve(services: Services, caller: Operator, id: Ident, body: schemas.ResolveBody) -> Response:
    """For an incident whose cause is never judged again, such as of a route that is gone. Its receivers are told."""
    await services.limiter.check(caller)
    await services.requests.resolve(id, body.reason, caller.name)
    return await _one(services, id)


@router.post(
    "/notices/{id}/redrive",
    tags=["operate"],
    summary="Tell again what a receiver refused",
    response_model=schemas.NoticeOut,
    responses=shows(_REDRIVEN, _NO_NOTICE, _NOT_DEAD, "rate_limited"),
)
async def redrive(services: Services, caller: Operator, id: Ident) -> Response:
    """dead -> pending, for each receiver of it, with a fresh deadline: mend the receiver first. What was delivered is not
    sent again, nor an opening whose end was."""
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
    summary="Tell a receiver something, to see whether it hears",
    response_model=schemas.TestedOut,
    responses=shows(schemas.TESTED, _NO_RECEIVER, "invalid", "rate_limited"),
)
async def test(services: Services, caller: Operator, name: Name) -> Response:
    """Sends a notice that is marked as a test through the whole way, and answers with what the receiver said. It is
    resolved there two minutes later."""
    await services.limiter.check(caller)
    return json_answer(asdict(await services.requests.test(name, caller.name)))
