"""The pages Promotions, House and Policy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AfterValidator
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from app.deadman import show as switches
from app.deadman.requests import unknown
from app.explain import history
from app.explain.why import why
from app.groups import live
from app.lineage import record_store
from app.lineage import store as lineage_store
from app.notices import show as incidents
from app.policy.in_force import list_in_force
from app.policy.schema import Policy
from app.promotion import store as promotions
from app.promotion.promote import shown
from app.promotion.store import Promotion
from app.ui.access import Visitor, one_line, visitor
from app.ui.pages import PageRoute, render
from app.ui.service import Services

router = APIRouter(prefix="/ui", include_in_schema=False, route_class=PageRoute)

Reader = Annotated[Visitor, Depends(visitor("read"))]
Text = Annotated[str | None, Query(max_length=1000), AfterValidator(one_line)]
_MOST: Final = 20  # of each kind on the page House
_MOST_SWITCHES: Final = 1000
_PAGE: Final = 50
_HISTORY: Final = 500  # promotions that a champion history looks at
_LATELY: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Reign:
    """A version that held an alias, from a promotion or a rollback until the next one. `version` None: no version did."""

    version: str | None
    row: Promotion
    until: Any


@router.get("/promotions")
async def show_promotions(
    request: Request,
    services: Services,
    visitor: Reader,
    model: Text = None,
    state: Text = None,
    cursor: UUID | None = None,
) -> Response:
    """Each request to promote with its verdicts. For one model also which versions held its aliases."""
    equal = {"model": model or None, "state": state or None}
    items, following = await services.reader.read(lambda conn: promotions.page(conn, _PAGE, cursor, equal))
    reigns: dict[str, list[Reign]] = {}
    if model:
        rows, _ = await services.reader.read(lambda conn: promotions.page(conn, _HISTORY, None, {"model": model}))
        reigns = reigns_of(rows)
    asked = {"model": model, "state": state}
    more: dict[str, Any] = {"items": [shown(row) for row in items], "following": following, "reigns": reigns}
    return render(request, visitor, "promotions.html", asked=asked, **more)


def reigns_of(rows: Iterable[Promotion]) -> dict[str, list[Reign]]:
    """By alias, which version held it and since when, the newest first. `rows` are those of one model, the newest first."""
    found: dict[str, list[Reign]] = {}
    for row in sorted((r for r in rows if r.state in ("promoted", "rolled_back") and r.ended_at), key=_ended):
        mine = found.setdefault(row.alias, [])
        if mine:
            mine[-1] = Reign(mine[-1].version, mine[-1].row, row.ended_at)
        mine.append(Reign(row.target, row, None))
    return {alias: list(reversed(reigns)) for alias, reigns in found.items()}


def _ended(row: Promotion) -> Any:
    return row.ended_at


@router.get("/house")
async def show_house(request: Request, services: Services, visitor: Reader) -> Response:
    """What keeps the house in order: probes, incidents and their receivers, switches, and what waits or was lost."""
    policy = services.core.policy
    values = await services.reader.read(lambda conn: _of_house(conn, policy))
    probes = {name: await look() for name, look in services.probes.items()}
    holder = services.core.policies
    more: dict[str, Any] = {
        "probes": probes,
        "policy": policy,
        "loaded_at": holder.loaded_at,
        "refusal": holder.refusal,
    }
    return render(request, visitor, "house.html", most=_MOST, **values, **more)


async def _of_house(conn: AsyncConnection, policy: Policy) -> dict[str, Any]:
    opened, _ = await incidents.page(conn, incidents.Query(limit=_MOST, open=True))
    resolved, _ = await incidents.page(conn, incidents.Query(limit=_MOST, open=False))
    watched, _ = await switches.page(conn, policy, state=None, limit=_MOST_SWITCHES, cursor=None)
    orphans: Sequence[dict[str, Any]] = await lineage_store.list_orphans(conn, None, None, _MOST)
    return {
        "incidents": [*opened, *resolved],
        "switches": watched,
        "replicas": _newest((await list_in_force(conn, _HISTORY, None)).items),
        "orphans": orphans,
        "records": {state: await record_store.list_records(conn, state, 0, _MOST) for state in ("pending", "aside")},
        "quarantine": (await history.list_quarantine(conn, _MOST, None)).items,
    }


def _newest(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest policy of each replica. `items` begin with the newest."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        found.setdefault(item["replica"], item)
    return list(found.values())


@router.get("/policy")
async def show_policy(request: Request, services: Services, visitor: Reader) -> Response:
    """The routes of the policy in force, each with what it did in the last 30 days."""
    policy, now = services.core.policy, services.core.clock.now()

    async def read(conn: AsyncConnection) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        routes = (await live.list_routes(conn, policy, now, only=None, limit=1, cursor=None)).items
        named = {route.name: route for route in policy.routes}
        shown = [
            {"shown": row, "why": await why(conn, policy, named[row["name"]], {}, now - _LATELY, now)} for row in routes
        ]
        return shown, (await list_in_force(conn, _MOST, None)).items

    holder = services.core.policies
    routes, earlier = await services.reader.read(read)
    more: dict[str, Any] = {"policy": policy, "loaded_at": holder.loaded_at, "refusal": holder.refusal}
    return render(request, visitor, "policy.html", routes=routes, earlier=earlier, **more)


@router.get("/switches/{name:path}")
async def show_switch(
    request: Request, services: Services, visitor: Reader, name: Annotated[str, Path(pattern=r"^[^\x00]+$")]
) -> Response:
    """One dead man's switch: why it is in its state, its flips and its pings."""
    policy, now = services.core.policy, services.core.clock.now()
    found = await services.reader.find(lambda conn: switches.switch(conn, name, policy, now))
    if found is None:
        raise unknown(name)
    return render(request, visitor, "switch.html", switch=found)
