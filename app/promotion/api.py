"""The routes of promotion: promote, list, show, roll back, and MLflow's webhook."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.intake.service import admit, services_of, spending
from app.kit.errors import Problem
from app.promotion import schemas, store
from app.promotion.promote import Wanted, shown
from app.promotion.service import Services
from app.promotion.store import Promotion
from app.web.answers import json_answer, shows
from app.web.problems import BAD_SIGNATURE, UNAVAILABLE, Kind, responses
from app.web.security import require
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1", tags=["promotion"], responses=responses(UNAVAILABLE))
#: A router of its own: it must stand before the webhooks whose names come from the policy.
webhook = APIRouter(prefix="/api/v1", tags=["promotion"], responses=responses(UNAVAILABLE))

Promoter = Annotated[Caller, Depends(require("promote"))]
Reader = Annotated[Caller, Depends(require("read"))]
Ident = Annotated[UUID, Path(description="Id of the promotion, a UUID.")]
_Filter = Annotated[str | None, Query(min_length=1, max_length=256, pattern=r"^[^\x00]+$")]

_MEMBERS = {"promotion": schemas.PROMOTION["id"], "state": "blocked", "previous": "3"}
BLOCKED = Kind("blocked", 409, "Not passed: f1 >= champion.f1 + 0.005.", {**_MEMBERS, "verdicts": schemas.FAILED})
LOST_RACE = Kind(
    "lost_race",
    409,
    "Another promotion of churn is under way.",
    {**_MEMBERS, "state": "lost", "verdicts": schemas.VERDICTS},
)
UNCLEAR = Kind(
    "registry_unavailable",
    503,
    "Nothing was changed: mlflow:5000 did not answer in time.",
    {**_MEMBERS, "state": "unreadable", "verdicts": []},
    {"Retry-After": "Seconds to wait before the next try."},
)
_WRONG_ALIAS = Kind("wrong_mark", 422, "Name the alias in `to`: the policy has staging, champion for this model.")
_NOT_PROMOTED = Kind(
    "wrong_state", 409, "Only a promotion can be rolled back; this one is blocked.", {"state": "blocked"}
)
_WEBHOOK = ("unauthorized", BAD_SIGNATURE, "bad_request", "too_large", "invalid", UNCLEAR)
RETRY_AFTER = 30


@router.post(
    "/promotions",
    summary="Promote a model version",
    response_model=schemas.PromotionOut,
    responses=shows(
        schemas.PROMOTION, "not_found", BLOCKED, LOST_RACE, "invalid", _WRONG_ALIAS, "rate_limited", UNCLEAR
    ),
)
async def promote(services: Services, caller: Promoter, body: schemas.PromotionBody) -> Response:
    """Reads the version, its run and the version that holds the alias now, judges by the policy, and moves the alias when
    every verdict passes. 409 is a refusal with the verdict on each rule. 503 means that a read failed, or that the change is
    undone or not settled yet."""
    await services.limiter.check(caller)
    if body.override and not caller.can("override"):
        raise Problem(403, "forbidden", f"The token {caller.name} lacks the scope override.", scope="override")
    wanted = Wanted(body.model, body.version, body.to, body.expected, body.dry_run, body.override, body.reason)
    return _answer(await services.gate.promote(wanted, caller.name))


@webhook.post(
    "/webhooks/mlflow",
    status_code=202,
    summary="Take an event of MLflow's registry",
    response_model=schemas.Gated,
    responses=shows({"promotions": [schemas.PROMOTION]}, *_WEBHOOK, status=202),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schemas.RegistryEvent.model_json_schema(), "example": schemas.EVENT}
            },
        },
        "security": [{"bearer": ["promote"]}],
    },
)
async def take_mlflow(services: Services, request: Request) -> Response:
    """Asks for the promotion of a new version to each alias whose entry has `on_new_version`, in the order of the policy.
    With `GATEWAY_MLFLOW_SECRET` set, MLflow must sign the request, and the signature stands for a token with the scope
    `promote`. 503 when there is no verdict, or when another promotion was faster: MLflow then sends again."""
    admitted = await admit(request, "mlflow", services_of(request), "promote")
    async with spending(admitted, services_of(request)):
        new = _new_version(admitted.body)
        rows: list[Promotion] = []
        for alias in services.gate.automatic(new.name) if new else ():
            assert new is not None
            wanted = Wanted(new.name, new.version, alias, reason="registered in MLflow")
            rows.append(await services.gate.promote(wanted, admitted.caller.name))
            if rows[-1].state in ("unreadable", "undone", "open", "moving", "lost"):
                raise _problem(rows[-1], UNCLEAR)  # Also a lost race: only MLflow would ask again.
    return json_answer({"promotions": [shown(row) for row in rows]}, 202)


def _new_version(body: bytes) -> schemas.NewVersion | None:
    """The new version of an event; None for every other event. Raises Problem 422."""
    try:
        event = schemas.RegistryEvent.model_validate_json(body)
        if (event.entity, event.action) != ("model_version", "created"):
            return None
        return schemas.NewVersion.model_validate(event.data)
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from error


@router.get(
    "/promotions",
    summary="List promotions, the newest first",
    response_model=schemas.PromotionPage,
    responses=shows({"items": [schemas.PROMOTION], "next": None}, "invalid"),
)
async def list_promotions(
    services: Services,
    _: Reader,
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    model: Annotated[_Filter, Query(description="Only of this model.")] = None,
    version: Annotated[_Filter, Query(description="Only of this version.")] = None,
    to: Annotated[_Filter, Query(description="Only to this alias.")] = None,
    state: Annotated[schemas.State | None, Query(description="Only in this state.")] = None,
) -> Response:
    """Every promotion and rollback: who asked, why, when, and the verdict on each rule. The gateway never deletes them."""
    equal = {"model": model, "version": version, "mark": to, "state": state}
    items, following = await services.reader.read(lambda conn: store.page(conn, limit, cursor, equal))
    return json_answer({"items": [shown(row) for row in items], "next": following})


@router.get(
    "/promotions/{id}",
    summary="Show one promotion with its verdicts",
    response_model=schemas.PromotionOut,
    responses=shows(schemas.PROMOTION, "not_found"),
)
async def get_promotion(services: Services, _: Reader, id: Ident) -> Response:
    """The request, the verdict on each rule, and the state of the change."""
    found = await services.reader.find(lambda conn: store.get(conn, id))
    if found is None:
        raise Problem(404, "not_found", f"There is no promotion {id}.")
    return json_answer(shown(found))


@router.post(
    "/promotions/{id}/rollback",
    summary="Give the alias back to the version before",
    response_model=schemas.PromotionOut,
    responses=shows(
        schemas.ROLLED_BACK, "not_found", _NOT_PROMOTED, BLOCKED, LOST_RACE, "invalid", "rate_limited", UNCLEAR
    ),
)
async def roll_back(services: Services, caller: Promoter, id: Ident, body: schemas.RollbackBody) -> Response:
    """Undoes a promotion that is still in force. The alias goes back to the version before; when there was none, no version
    holds it. 409 when another version holds the alias now, or when the version before is not READY any more."""
    await services.limiter.check(caller)
    return _answer(await services.gate.roll_back(id, body.reason, caller.name))


def _answer(row: Promotion) -> Response:
    """200 for success, and for every verdict of a shadow entry, which must never stop a caller."""
    if row.state in ("promoted", "rolled_back", "unchanged", "passed"):
        return json_answer(shown(row))
    if row.mode == "shadow" and row.state == "blocked":
        return json_answer(shown(row))
    raise _problem(row, {"blocked": BLOCKED, "lost": LOST_RACE}.get(row.state, UNCLEAR))


def _problem(row: Promotion, kind: Kind) -> Problem:
    members = {"promotion": row.id, "state": row.state, "previous": row.previous, "verdicts": row.verdicts}
    headers = {"Retry-After": str(RETRY_AFTER)} if kind is UNCLEAR else {}
    return Problem(kind.status, kind.code, row.detail, headers=headers, **members)
