"""The pages: the fleet, a group, an alert, a trigger."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AfterValidator
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from app.deadman import show as switches
from app.decide.state import LIVE, Group, group_key
from app.effects import episodes
from app.explain import history
from app.explain.explain import explain
from app.explain.lanes import MOST, Kind, Mark, Span, flags_of, marks_of, ticks_of
from app.explain.why import why
from app.groups import live
from app.kit.errors import Problem
from app.lineage import store as lineage
from app.policy.schema import Policy, Route
from app.promotion import store as promotions
from app.promotion.promote import shown
from app.ui import fleet
from app.ui.access import Visitor, one_line, visitor
from app.ui.chain import links_of
from app.ui.pages import PageRoute, address, render
from app.ui.service import Services

router = APIRouter(prefix="/ui", include_in_schema=False, route_class=PageRoute)

Reader = Annotated[Visitor, Depends(visitor("read"))]
Days = Annotated[int, Query(ge=1, le=365)]
_SHOWN = 50  # alerts and triggers on the page of a group
_EPISODES = 10  # on the page of a group
_MOST_OF_EPISODES = 2000  # alerts that these are made of
_NO_PAGE = "There is no such page. The fleet shows every group."


_Text = Annotated[str | None, Query(max_length=10_000), AfterValidator(one_line)]


def _labels(text: str | None) -> dict[str, str]:
    """`model=churn, env=prod`, as a person types it. A word without `=` is the value of `model`."""
    pairs = [part.strip().partition("=") for part in (text or "").split(",") if part.strip()]
    return {(name.strip() if equals else "model"): (value.strip() if equals else name) for name, equals, value in pairs}


@router.get("")
async def show_fleet(
    request: Request,
    services: Services,
    visitor: Reader,
    route: _Text = None,
    label: _Text = None,
    state: _Text = None,
    days: Days = 30,
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
    refresh: Annotated[int | None, Query(ge=10, le=3600)] = None,
) -> Response:
    """Every group in one row, those that need a person first. With `refresh` a browser asks again after so many seconds,
    without a script."""
    known = state if state in fleet.STATES else None
    filters = fleet.Filters(route, _labels(label), known, days, page)
    asked = {"route": route, "label": label, "state": known, "days": days, "refresh": refresh}

    async def make() -> Response:
        policy, now = services.core.policy, services.core.clock.now()
        found = await services.reader.read(lambda conn: fleet.read(conn, policy, now, filters))
        names = [route.name for route in policy.routes]
        more: dict[str, Any] = {"asked": asked, "page": page, "routes": names, "states": fleet.STATES}
        answer = await render(request, visitor, "fleet.html", fleet=found, ticks=ticks_of(found.span), **more)
        if refresh is not None:
            answer.headers["Refresh"] = str(refresh)
        return answer

    return await services.kept.answer(visitor.key(request), make)


@router.get("/groups/{key}")
async def show_group(
    request: Request,
    services: Services,
    visitor: Reader,
    key: Annotated[str, Path(pattern="^[0-9a-f]{32}$")],
    days: Days = 30,
) -> Response:
    """One group: its lane, why it fires or not, its alerts with every decision, its triggers."""

    async def make() -> Response:
        policy, now = services.core.policy, services.core.clock.now()
        group = await services.reader.find(lambda conn: live.find_group(conn, key))
        route = policy.route(group.route) if group else None
        if group is None or route is None:
            raise Problem(404, "not_found", "There is no such group, or its route has left the policy.")
        span = Span.of(now, days)
        values = await services.reader.read(lambda conn: _of_group(conn, policy, route, group, span))
        target = partial(_target, request, values["promoted"])
        return await render(request, visitor, "group.html", days=days, target=target, **values)

    return await services.kept.answer(visitor.key(request), make)


def _target(request: Request, models: Mapping[str, str], mark: Mark) -> str:
    """The page that a mark leads to. `models` are those of the promotions."""
    match mark.kind:
        case Kind.EPISODE:
            return address(request, "alerts", mark.id)
        case Kind.DEADLINE:
            return address(request, "switches", mark.id)
        case Kind.PROMOTION:
            return f"{address(request, 'promotions', model=models[mark.id])}#promotion-{mark.id}"
    return address(request, "triggers", mark.id) if mark.id else ""


async def _of_group(conn: AsyncConnection, policy: Policy, route: Route, group: Group, span: Span) -> dict[str, Any]:
    state = live.group_state(group, route, span.now)
    alerts = (await history.lately_alerted(conn, [group.key], span.since, MOST))[group.key]
    triggers = (await history.lately_triggered(conn, [group.key], span.since, MOST))[group.key]
    decisions = await history.decisions_of(conn, alerts[:_SHOWN])
    watching = await switches.of_groups(conn, policy, [(route.name, group.labels)])
    asked = episodes.Query(
        since=span.since, route=route.name, labels=group.labels, limit=_EPISODES, most=_MOST_OF_EPISODES, shown=0
    )
    drift, _ = await episodes.page(conn, policy, asked, span.now) if group.mode == LIVE else ([], None)
    promoted = (await promotions.of_groups(conn, [group.key], span.since, MOST))[group.key]
    changes = [shown(row) for row in promoted]
    marks = marks_of(span, alerts, triggers, state) + flags_of(changes)
    marks += fleet.deadlines_of(watching).get(fleet.place(route.name, group.labels), [])
    return {
        "group": group,
        "episodes": drift,
        "switches": [switch for _, switch in watching],
        "state": state,
        "mutes": (await live.mutes(conn, policy, [route], span.now))[route.name],
        "why": await why(conn, policy, route, group.labels, span.since, span.now),
        "alerts": [alert | {"decisions": decisions[alert["id"]]} for alert in alerts[:_SHOWN]],
        "triggers": triggers[:_SHOWN],
        "marks": marks,
        "promoted": {str(row.id): row.model for row in promoted},
        "promotion": next(iter(changes), None),
        "span": span,
        "ticks": ticks_of(span),
        "cut": max(len(alerts), len(triggers)) == MOST,
        "versions": await history.versions_made(conn, [row["id"] for row in triggers[:_SHOWN]]),
    }


Ident = Annotated[UUID, Path()]


@router.get("/alerts/{id}")
async def show_alert(request: Request, services: Services, visitor: Reader, id: Ident) -> Response:
    """One alert, and why it started a run or did not."""
    return await _explained(request, services, visitor, str(id), "alert")


@router.get("/triggers/{id}")
async def show_trigger(request: Request, services: Services, visitor: Reader, id: Ident) -> Response:
    """One trigger, from its alerts to the model versions of its run."""
    return await _explained(request, services, visitor, str(id), "trigger")


async def _explained(request: Request, services: Services, visitor: Visitor, ident: str, subject: str) -> Response:
    policy, now = services.core.policy, services.core.clock.now()
    found = await services.reader.find(lambda conn: explain(conn, ident, policy, now))
    if found is None or found["subject"] != subject:
        raise Problem(404, "not_found", f"There is no {subject} {ident}.")
    trigger, item = found.get("trigger"), found[subject]
    route = policy.route(item["route"]) if item["route"] else None
    mode = item.get("mode") or (route.mode if route else "")
    values: dict[str, Any] = {
        "found": found,
        "trigger": trigger,
        "links": links_of(policy, trigger) if trigger else None,
        "aliases": await services.reader.read(lambda conn: _aliases(conn, trigger)) if trigger else {},
        "conf": await services.reader.read(lambda conn: history.conf_of(conn, item["id"]))
        if subject == "trigger"
        else None,
    }
    return await render(
        request, visitor, f"{subject}.html", key=group_key(item["route"] or "", mode, item["group"]), **values
    )


async def _aliases(conn: AsyncConnection, trigger: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """The aliases that the versions of a trigger hold now, by (model, version)."""
    models = {version["model"] for run in trigger["runs"] for version in run["versions"]}
    found: dict[tuple[str, str], list[str]] = {}
    for seen in await lineage.aliases_of(conn, models):
        found.setdefault((seen.model, seen.version), []).append(seen.alias)
    return found


@router.get("/{path:path}", dependencies=[Depends(visitor("read"))])
async def show_nothing(path: str) -> Response:  # noqa: ARG001 (every path)
    """What is not above."""
    raise Problem(404, "not_found", _NO_PAGE)
