"""The routes of promotion: ask for one, look at what was asked, roll one back."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic_core import to_json

from app.errors import Problem
from app.problems import UNAVAILABLE, Kind, responses
from app.promotion import schemas, store
from app.promotion.promote import Wanted, shown
from app.promotion.service import Services
from app.promotion.store import Promotion
from app.security import require
from app.tokens import Caller

router = APIRouter(prefix="/api/v1", tags=["promotion"], responses=responses(UNAVAILABLE))

Promoter = Annotated[Caller, Depends(require("promote"))]
Reader = Annotated[Caller, Depends(require("read"))]
Ident = Annotated[UUID, Path(description="Its id, a UUID.")]
_Filter = Annotated[str | None, Query(min_length=1, max_length=256, pattern=r"^[^\x00]+$")]

_MEMBERS = {"promotion": schemas.PROMOTION["id"], "state": "blocked", "previous": "3"}
BLOCKED = Kind("blocked", 409, "Not passed: f1 >= champion.f1 + 0.005.", {**_MEMBERS, "verdicts": schemas.FAILED})
LOST_RACE = Kind(
    "lost_race",
    409,
    "Another promotion of churn to champion is under way.",
    {**_MEMBERS, "state": "lost", "verdicts": schemas.VERDICTS},
)
UNCLEAR = Kind(
    "registry_unavailable",
    503,
    "Nothing was changed: mlflow:5000 did not answer in time.",
    {**_MEMBERS, "state": "unreadable", "verdicts": []},
    {"Retry-After": "Seconds to wait before coming again."},
)
_NO_MARK = Kind("wrong_mark", 422, "Say to what: the policy leads this model to staging, champion.")
_NOT_PROMOTED = Kind(
    "wrong_state", 409, "Only a promotion can be rolled back; this one is blocked.", {"state": "blocked"}
)
RETRY_AFTER = 30


def _shows(example: dict[str, Any], *problems: str | Kind) -> dict[int | str, dict[str, Any]]:
    good: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": example}}}}
    return good | responses(*problems)


@router.post(
    "/promotions",
    summary="Ask for a model version to be promoted",
    response_model=schemas.PromotionOut,
    responses=_shows(schemas.PROMOTION, "not_found", BLOCKED, LOST_RACE, "invalid", _NO_MARK, "rate_limited", UNCLEAR),
)
async def promote(services: Services, caller: Promoter, body: schemas.PromotionBody) -> Response:
    """Reads the version, its run and who holds the mark now, judges them by the policy, and moves the mark when everything
    is passed. 409 is a no, with the verdict on each rule; 503 means that something could not be read or settled."""
    await services.limit(caller)
    if body.override and not caller.can("override"):
        raise Problem(403, "forbidden", f"The token {caller.name} lacks the scope override.", scope="override")
    wanted = Wanted(body.model, body.version, body.to, body.expected, body.dry_run, body.override, body.reason)
    return _answer(await services.gate.promote(wanted, caller.name))


@router.get(
    "/promotions",
    summary="List promotions, the newest first",
    response_model=schemas.PromotionPage,
    responses=_shows({"items": [schemas.PROMOTION], "next": None}, "invalid"),
)
async def list_promotions(
    services: Services,
    _: Reader,
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    model: Annotated[_Filter, Query(description="Only of this model.")] = None,
    version: Annotated[_Filter, Query(description="Only of this version.")] = None,
    to: Annotated[_Filter, Query(description="Only to this mark.")] = None,
    state: Annotated[schemas.State | None, Query(description="Only those that came to this.")] = None,
) -> Response:
    """Every request that was judged: who asked, why, when, and the verdict on each rule. They are kept for ever."""
    equal = {"model": model, "version": version, "mark": to, "state": state}
    items, following = await services.reader.read(lambda conn: store.page(conn, limit, cursor, equal))
    return _json({"items": [shown(row) for row in items], "next": following})


@router.get(
    "/promotions/{id}",
    summary="Show one promotion with its verdicts",
    response_model=schemas.PromotionOut,
    responses=_shows(schemas.PROMOTION, "not_found"),
)
async def get_promotion(services: Services, _: Reader, id: Ident) -> Response:
    """What was asked, what each rule came to, and where the change stands."""
    found = await services.reader.find(lambda conn: store.get(conn, id))
    if found is None:
        raise Problem(404, "not_found", f"There is no promotion {id}.")
    return _json(shown(found))


@router.post(
    "/promotions/{id}/rollback",
    summary="Give the mark back to who held it before",
    response_model=schemas.PromotionOut,
    responses=_shows(
        schemas.ROLLED_BACK, "not_found", _NOT_PROMOTED, BLOCKED, LOST_RACE, "invalid", "rate_limited", UNCLEAR
    ),
)
async def roll_back(services: Services, caller: Promoter, id: Ident, body: schemas.RollbackBody) -> Response:
    """Undoes a promotion that is still in force: the mark goes back to the version before, or to nobody when there was
    none. 409 when somebody else holds the mark by now, or the version before is not READY any more."""
    await services.limit(caller)
    return _answer(await services.gate.roll_back(id, body.reason, caller.name))


def _answer(row: Promotion) -> Response:
    """200 for what was done, and for every verdict of a shadow entry, which never stands in anybody's way."""
    if row.state in ("promoted", "rolled_back", "unchanged", "passed"):
        return _json(shown(row))
    if row.mode == "shadow" and row.state == "blocked":
        return _json(shown(row))
    kind = {"blocked": BLOCKED, "lost": LOST_RACE}.get(row.state, UNCLEAR)
    members = {"promotion": row.id, "state": row.state, "previous": row.previous, "verdicts": row.verdicts}
    headers = {"Retry-After": str(RETRY_AFTER)} if kind is UNCLEAR else {}
    raise Problem(kind.status, kind.code, row.detail, headers=headers, **members)


def _json(value: object) -> Response:
    return Response(to_json(value), media_type="application/json")
