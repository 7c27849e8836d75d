"""GET /api/v1/effects: whether retrains helped. GET /api/v1/episodes: the drift that they were to end."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app.effects import episodes, schemas, show
from app.effects.rules import Effect
from app.effects.service import Services
from app.explain.queries import Ago, Label, in_utc, labels_of, start_of
from app.explain.schemas import ListOf
from app.policy.values import ROUTE_NAME
from app.web.answers import json_answer, page_of, shows
from app.web.problems import UNAVAILABLE
from app.web.security import require
from app.web.times import QueryTime
from app.web.tokens import Caller

router = APIRouter(prefix="/api/v1", tags=["history"])

_EFFECTS = f"^({'|'.join([*Effect, show.WAITING])})$"


@router.get(
    "/effects",
    summary="Show whether retrains helped",
    response_model=schemas.EffectsOut,
    responses=shows(schemas.EFFECTS, "invalid", UNAVAILABLE),
)
async def list_effects(
    services: Services,
    _: Annotated[Caller, Depends(require("read"))],
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    route: Annotated[str | None, Query(pattern=f"^{ROUTE_NAME.pattern}$", description="Name of a route.")] = None,
    model: Annotated[
        str | None,
        Query(
            max_length=500,
            pattern=r"^[^\x00]+$",
            description="The model that the run registered, else the only model of its group, else the label `model`.",
        ),
    ] = None,
    effect: Annotated[
        str | None,
        Query(pattern=_EFFECTS, description="Only items with this effect; `waiting`: those not known yet."),
    ] = None,
    label: Annotated[
        list[Label] | None, Query(description="`name=value` of the group; may be repeated, all must hold.")
    ] = None,
    since: Annotated[
        Ago | QueryTime | None, Query(description="Triggers that fired since then: 90d or 12h, or RFC 3339.")
    ] = None,
    until: Annotated[QueryTime | None, Query(description="Triggers that fired before then, RFC 3339.")] = None,
) -> Response:
    """Every fired trigger has one effect, which is judged once the alerts had time to end and to come back. The sums of
    each group and each model count every trigger that the other filters take, whatever its effect."""
    now = services.core.clock.now()
    query = show.Query(
        route=route,
        model=model,
        effect=effect,
        labels=labels_of(label),
        since=start_of(since, now) if since is not None else None,
        until=in_utc(until) if until is not None else None,
        limit=limit,
        cursor=cursor,
    )

    async def read(conn: AsyncConnection) -> dict[str, object]:
        items, following = await show.page(conn, query)
        groups, models, left_out = await show.sums(conn, query)
        sums = {"groups": groups, "models": models, "groups_left_out": left_out}
        return {"items": items, "next": following, "since": query.since} | sums

    return json_answer(await services.reader.read(read))


@router.get(
    "/episodes",
    summary="List drift episodes, the newest first",
    response_model=ListOf[schemas.EpisodeOut],
    responses=shows(page_of(schemas.EPISODE), "invalid", UNAVAILABLE),
)
async def list_episodes(
    services: Services,
    _: Annotated[Caller, Depends(require("read"))],
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page.")] = 100,
    cursor: Annotated[str | None, Query(pattern=episodes.CURSOR, description="`next` of the page before.")] = None,
    route: Annotated[str | None, Query(pattern=f"^{ROUTE_NAME.pattern}$", description="Name of a route.")] = None,
    status: Annotated[
        str | None, Query(pattern="^(firing|ended)$", description="firing: those that go on; or ended.")
    ] = None,
    label: Annotated[
        list[Label] | None, Query(description="`name=value` of the group; may be repeated, all must hold.")
    ] = None,
    since: Annotated[
        Ago | QueryTime, Query(description="Episodes that had not ended before then: 90d or 12h, or RFC 3339.")
    ] = "90d",
) -> Response:
    """An episode begins with the first alert of a group. Alerts that overlap it, or begin within `effect.watch` after its
    end, belong to it. Each has its retrains, and the effect of the newest."""
    now, policy = services.core.clock.now(), services.core.policy
    query = episodes.Query(
        since=start_of(since, now),
        route=route,
        labels=labels_of(label),
        goes_on=None if status is None else status == "firing",
        limit=limit,
        cursor=episodes.read_cursor(cursor) if cursor is not None else None,
    )
    items, following = await services.reader.read(lambda conn: episodes.page(conn, policy, query, now))
    return json_answer({"items": items, "next": following})
