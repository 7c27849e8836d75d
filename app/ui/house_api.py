"""The pages Promotions, House and Policy."""

from collections.abc import Iterable, Mapping, Sequence
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
from app.deadman.sentences import next_step
from app.decide.state import group_key
from app.explain import history, lines
from app.groups import live
from app.kit.outbox import store as outbox
from app.lineage import record_store
from app.lineage import store as lineage_store
from app.notices import show as incidents
from app.policy.deadman import Retrain
from app.policy.in_force import list_in_force
from app.policy.schema import Policy
from app.promotion import store as promotions
from app.promotion.promote import shown
from app.promotion.store import Promotion
from app.ui.access import Visitor, one_line, visitor
from app.ui.backtest_api import box_of
from app.ui.pages import PageRoute, render
from app.ui.service import Services

router = APIRouter(prefix="/ui", include_in_schema=False, route_class=PageRoute)

Reader = Annotated[Visitor, Depends(visitor("read"))]
Text = Annotated[str | None, Query(max_length=1000), AfterValidator(one_line)]
_MOST: Final = 20  # of each kind on the page House
_MOST_SWITCHES: Final = 1000
_PAGE: Final = 50
_LONG: Final = 500  # promotions, and policies in force, of which a page shows the newest of each alias and replica
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
        rows, _ = await services.reader.read(lambda conn: promotions.page(conn, _LONG, None, {"model": model}))
        reigns = reigns_of(rows)
    asked = {"model": model, "state": state}
    more: dict[str, Any] = {"items": [shown(row) for row in items], "following": following, "reigns": reigns}
    return await render(request, visitor, "promotions.html", asked=asked, **more)


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
    return await render(request, visitor, "house.html", most=_MOST, **values, **more)


async def _of_house(conn: AsyncConnection, policy: Policy) -> dict[str, Any]:
    worst, _ = await incidents.worst_open(conn, _MOST)
    resolved, _ = await incidents.page(conn, incidents.Query(limit=_MOST, open=False))
    watched, _ = await switches.page(conn, policy, state=None, limit=_MOST_SWITCHES, cursor=None)
    orphans: Sequence[dict[str, Any]] = await lineage_store.list_orphans(conn, None, None, _MOST)
    return {
        "incidents": [*await incidents.with_receivers(conn, worst), *resolved],
        "switches": watched,
        "undelivered": await outbox.undelivered(conn),
        "replicas": _newest((await list_in_force(conn, _LONG, None))[0]),
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

    async def read(conn: AsyncConnection) -> dict[str, Any]:
        did, most = await lines.read(conn, policy.routes, now - _LATELY)
        mutes = await live.mutes(conn, policy, policy.routes, now)
        routes = [
            {
                "shown": route.model_dump(mode="json") | mutes[route.name],
                "did": did[route.name],
                "figures": lines.figures(route, did[route.name]),
            }
            for route in policy.routes
        ]
        return {"routes": routes, "most": most, "earlier": (await list_in_force(conn, _MOST, None))[0]}

    holder = services.core.policies
    values = await services.reader.read(read)
    more: dict[str, Any] = {"policy": policy, "loaded_at": holder.loaded_at, "refusal": holder.refusal}
    more["box"] = box_of(policy)
    return await render(request, visitor, "policy.html", **values, **more)


@router.get("/switches/{name:path}")
async def show_switch(
    request: Request, services: Services, visitor: Reader, name: Annotated[str, Path(pattern=r"^[^\x00]+$")]
) -> Response:
    """One dead man's switch: why it is in its state, its flips and its pings."""
    policy, now = services.core.policy, services.core.clock.now()
    found = await services.reader.find(lambda conn: switches.switch(conn, name, policy, now))
    if found is None:
        raise unknown(name)
    watched = _watched(policy, found)
    return await render(request, visitor, "switch.html", switch=found, next_step=next_step(found), watched=watched)


def _watched(policy: Policy, switch: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, str]] | None:
    """The page of the group whose retrain a switch expects, or the fleet of its route: path and query. None: it expects
    something else."""
    for each in policy.deadman:
        seen = each.seen(switch["group"]) if isinstance(each.expect, Retrain) else None
        route = policy.route(each.expect.retrain) if isinstance(each.expect, Retrain) else None
        if seen is None or route is None or switch["name"] not in (seen.name, seen.apart):
            continue
        if switch["group"].keys() == set(route.group_by):
            return ("groups", group_key(route.name, route.mode, switch["group"])), {}
        return (), {"route": route.name}
    return None
