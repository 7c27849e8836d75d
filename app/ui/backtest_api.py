"""Backtests for people: paste a policy, and see what it would have done. It runs the code of the API, with its bounds.

POST /ui/policy/backtests        asks, and leads to the page of the answer
GET  /ui/policy/backtests/{id}   how far it is, and then the report
POST /ui/policy/backtests/{id}   ends and forgets it
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from sqlalchemy import RowMapping
from starlette.responses import Response

from app.decide.state import group_key
from app.kit.errors import Problem
from app.policy.schema import Policy
from app.replay.jobs import store
from app.replay.jobs.api import begin
from app.replay.jobs.schemas import BacktestBody
from app.replay.jobs.work import missing
from app.replay.report import table_of
from app.ui.access import STALE, Visitor, body_of, form_of, visitor
from app.ui.pages import PageRoute, render, see, wants_page
from app.ui.service import Services
from app.web.bodies import MOST_OF_A_REQUEST

router = APIRouter(prefix="/ui/policy/backtests", include_in_schema=False, route_class=PageRoute)

Reader = Annotated[Visitor, Depends(visitor("read"))]
Sender = Annotated[Visitor, Depends(visitor("read", most=MOST_OF_A_REQUEST, stale=True))]
Ident = Annotated[UUID, Path()]
Fields = Mapping[str, str]

_AGAIN: Final = 2  # seconds after which the page of a new backtest asks again
_CHANGES: Final = 200  # changed episodes on a page
_ROUTES: Final = 50  # with figures of their own on a page
_LONG: Final = 60_000  # characters of a policy that a page does not repeat
_LINE: Final = re.compile(r"policy:(\d+):")


def box_of(policy: Policy, filled: Fields | None = None) -> dict[str, Any]:
    """What fills the box: the policy in force, or what a person has filled in."""
    found = {"policy": policy.text, "since": "30d", "compare": "live", "route": ""} | dict(filled or {})
    if filled is None and len(policy.text) > _LONG:
        found["policy"] = ""
    return {"filled": found, "hash": policy.hash, "routes": [route.name for route in policy.routes]}


@router.get("")
async def show_box(request: Request, services: Services, visitor: Reader) -> Response:
    """The box, and what this token has asked."""
    return await _box(request, services, visitor)


@router.post("")
async def ask(request: Request, services: Services, visitor: Sender) -> Response:
    """Ask, and lead to the answer. With an error the box comes again, filled in."""
    fields = await form_of(request, most=MOST_OF_A_REQUEST, lane=visitor.caller.name)
    filled = {name: fields.get(name, "") for name in ("policy", "since", "compare", "route")}
    filled["policy"] = filled["policy"].replace("\r\n", "\n")  # A browser sends lines so.
    if visitor.stale:
        return await _box(request, services, visitor, filled, STALE)
    try:
        row = await begin(services.backtests, visitor.caller, body_of(BacktestBody, **filled))
    except Problem as problem:
        if not wants_page(request):
            raise
        return await _box(request, services, visitor, filled, problem)
    return see(request, "policy", "backtests", str(row["id"]), refresh=_AGAIN)


async def _box(
    request: Request, services: Services, visitor: Visitor, filled: Fields | None = None, problem: Problem | None = None
) -> Response:
    mine = await services.reader.fresh(lambda conn: store.of_caller(conn, visitor.caller.name))
    values: dict[str, Any] = {"box": box_of(services.core.policy, filled), "mine": mine, "problem": problem}
    values["faults"] = _faults(problem, filled) if problem is not None and filled is not None else []
    answer = await render(request, visitor, "backtests.html", problem.status if problem else 200, **values)
    answer.headers.update(problem.headers if problem else {})
    return answer


def _faults(problem: Problem, filled: Fields) -> list[tuple[str, str]]:
    """Each error, with the line of the policy that it names: a box shows no numbers of lines."""
    lines = filled["policy"].split("\n")
    found = []
    for error in problem.members.get("errors", ()):
        text = error if isinstance(error, str) else f"{error['pointer']}: {error['message']}"
        named = _LINE.match(text)
        number = int(named[1]) if named else 0
        found.append((text, lines[number - 1].strip() if 0 < number <= len(lines) else ""))
    return found


@router.get("/{id}")
async def show(
    request: Request,
    services: Services,
    visitor: Reader,
    id: Ident,
    refresh: Annotated[int | None, Query(ge=_AGAIN, le=3600)] = None,
) -> Response:
    """How far it is, and then its report. With `refresh` a browser asks again after so many seconds while it is open."""
    found = await services.reader.find(lambda conn: store.shown(conn, id, _CHANGES))
    if found is None:
        raise missing(id)
    policy, asked = services.core.policy, found["asked"]
    compare = asked["compare"]["hash"] if isinstance(asked["compare"], dict) else asked["compare"]
    filled = {"policy": asked["policy"]["text"], "compare": compare or "", "route": asked["route"] or ""}
    values = {
        "found": found,
        "compare": compare,
        "mine": visitor.caller.can("admin") or found["caller"] == visitor.caller.name,
        "box": box_of(policy, filled),
        "asked": asked,
        "refresh": refresh,
        "again": _AGAIN,
    }
    answer = await render(request, visitor, "backtest.html", **values, **_report(found, policy))
    if refresh is not None and found["state"] in ("pending", "running"):
        answer.headers["Refresh"] = str(refresh)
    return answer


def _report(found: RowMapping, policy: Policy) -> dict[str, Any]:
    report = found["report"]
    if report is None:
        return {"report": None}
    modes = {route.name: route.mode for route in policy.routes}
    keys = [
        group_key(each["route"], modes[each["route"]], each["group"]) if each["route"] in modes else None
        for each in report["changed"]
    ]
    routes = list(report["routes"].items())
    return {
        "report": report,
        "table": table_of(report["now"], report["proposed"]),
        "tables": {name: table_of(both["now"], both["proposed"]) for name, both in routes[:_ROUTES]},
        "more_routes": max(len(routes) - _ROUTES, 0),
        "changed": list(zip(report["changed"], keys, strict=True)),
    }


@router.post("/{id}")
async def end(request: Request, services: Services, visitor: Reader, id: Ident) -> Response:
    """End and forget it. Nothing but the answer is lost, so no page asks again."""
    await services.groups.limiter.check(visitor.caller)
    await services.backtests.backtests.remove(id, visitor.caller)
    return see(request, "policy", "backtests")
