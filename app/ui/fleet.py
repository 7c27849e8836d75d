"""The fleet: one row for each group, with its lane. What needs a person comes first, the worst of it before the rest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from markupsafe import Markup
from sqlalchemy.ext.asyncio import AsyncConnection

from app.deadman import show as switches
from app.decide.state import Group
from app.explain import history, sentences
from app.explain.lanes import Kind, Mark, Span, flags_of, marks_of, ticks_of
from app.groups import live
from app.groups.live import Standing
from app.kit.loop import in_turns
from app.notices import show as incidents
from app.policy.schema import Policy
from app.promotion import store as promotions
from app.promotion.promote import shown
from app.promotion.store import Promotion
from app.ui import lane

PER_PAGE: Final = 50
#: What `state` of the filters may be. The last four are the states of a group.
STATES: Final = ("needs_person", "firing", "muted", "idle", "held", "in_flight", "cooldown")
_MOST_GROUPS: Final = 10_000
_MOST_INCIDENTS: Final = 20
_MOST_FLAGS: Final = 2000
_MOST_MARKS: Final = 60  # alerts, and triggers, of a lane: its page shows more
_ORDER: Final = ("in_flight", "held", "cooldown", "idle")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filters:
    """What a person wants to see. `labels`: the group must have them all."""

    route: str | None
    labels: Mapping[str, str]
    state: str | None
    days: int
    page: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """One page of rows, out of `found`, and the worst of the `open_incidents`. `cut`: routes with more groups than could be
    read."""

    rows: list[Row]
    found: int
    groups: int
    needing: int
    incidents: list[Row]
    open_incidents: int
    cut: list[str]
    span: Span

    @property
    def pages(self) -> int:
        return max(-(-self.found // PER_PAGE), 1)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the lane of a group shows."""

    alerts: list[Row]
    triggers: list[Row]
    live: Row
    promoted: list[Promotion]
    due: list[Mark]

    @property
    def go_on(self) -> bool:
        """Whether one of its bars ends now, so that it grows with the time."""
        firing = any(alert["status"] == "firing" for alert in self.alerts)
        return firing or any(trigger["ended_at"] is None for trigger in self.triggers)


async def read(conn: AsyncConnection, policy: Policy, now: datetime, filters: Filters) -> Fleet:
    """The fleet as the policy in force has it. It reads what `GET /api/v1/routes`, `/triggers`, `/alerts`, `/promotions`,
    `/deadman` and `/notices` show.

    Of every group it reads the little that sorts and counts them, and of the groups on the page what a lane shows. The
    number of its statements does not depend on the number of groups.
    """
    chosen = policy.route(filters.route) if filters.route else None
    routes = [chosen] if chosen is not None else list(policy.routes)
    most = max(_MOST_GROUPS // max(len(routes), 1), 1)
    standings, cut = await live.standings(conn, routes, filters.labels, most, now)
    mutes = {name: each["muted"] for name, each in (await live.mutes(conn, policy, routes, now)).items()}
    wanted = sorted((each for each in standings if _fits(filters, each, mutes)), key=_first)
    begin = (filters.page - 1) * PER_PAGE
    page, span = wanted[begin : begin + PER_PAGE], Span.of(now, filters.days)
    groups = await live.with_triggers(conn, [each.key for each in page])
    rows = [_row(each, *groups[each.key], mutes[each.route.name], now) for each in page if each.key in groups]
    await _add_lanes(conn, policy, rows, span)
    worst, opened = await incidents.worst_open(conn, _MOST_INCIDENTS)
    needing = sum(each.needs_person for each in standings)
    return Fleet(rows, len(wanted), len(standings), needing, worst, opened, cut, span)


def _fits(filters: Filters, standing: Standing, mutes: Mapping[str, Any]) -> bool:
    if not standing.fits:
        return False
    match filters.state:
        case "needs_person":
            return standing.needs_person
        case "firing":
            return standing.firing > 0
        case "muted":
            return mutes[standing.route.name] is not None
        case None:
            return True
    return standing.state == filters.state


def _first(standing: Standing) -> tuple[Any, ...]:
    urgent = standing.worst if standing.needs_person else 0
    state = _ORDER.index(standing.state)
    place = (standing.route.name, standing.named, standing.key)
    return not standing.needs_person, urgent, state, standing.worst, place


def _row(standing: Standing, group: Group, trigger: Row | None, muted: Any, now: datetime) -> Row:
    """What a page shows of a group. `_add_lanes` adds to it."""
    route, state = standing.route, live.group_state(group, standing.route, now)
    newest: Row | None = {"state": "held"} if state["state"] == "held" else trigger
    step = sentences.next_step(newest, state) if newest else sentences.NOTHING
    return {
        "key": group.key,
        "route": route.name,
        "mode": route.mode,
        "group": group.labels,
        "state": state["state"],
        "live": state,
        "trigger": trigger,
        "firing": standing.firing,
        "muted": muted,
        "blocked_until": state["held_until"] or state["cooldown_until"] or (muted.until if muted else None),
        # The state of a held group names no trigger: the newest that fired is an earlier one.
        "needs_person": state["state"] != "held" and not step.startswith(sentences.NOTHING),
        "next_step": step,
    }


async def _add_lanes(conn: AsyncConnection, policy: Policy, rows: Sequence[Row], span: Span) -> None:
    keys = [row["key"] for row in rows]
    alerts = await history.lately_alerted(conn, keys, span.since, _MOST_MARKS, names=history.OF_A_MARK)
    triggers = await history.lately_triggered(conn, keys, span.since, _MOST_MARKS)
    promoted = await promotions.of_groups(conn, keys, span.since, _MOST_FLAGS)
    due = deadlines_of(await switches.of_groups(conn, policy, [(row["route"], row["group"]) for row in rows]))
    steady = span.steady()
    ticks = ticks_of(steady)

    def draw(facts: _Facts) -> Markup:
        marks = marks_of(span, facts.alerts, facts.triggers, facts.live) + flags_of(map(shown, facts.promoted))
        marks += facts.due
        return lane.drawn(marks, steady, ticks, lane.spoken(marks))

    async for row in in_turns(rows):
        key = row["key"]
        deadlines = due.get(place(row["route"], row["group"]), [])
        facts = _Facts(alerts[key], triggers[key], row["live"], promoted[key], deadlines)
        row["lane"] = draw(facts) if facts.go_on else lane.once(key, steady, facts, partial(draw, facts))
        row["cut"] = max(len(facts.alerts), len(facts.triggers)) == _MOST_MARKS


def place(route: str, group: Mapping[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A group of a route, as a key."""
    return route, tuple(sorted(group.items()))


def deadlines_of(watching: Iterable[tuple[str, Row]]) -> dict[Any, list[Mark]]:
    """The deadlines of switches, each with its route, by the `place` of their groups."""
    found: dict[Any, list[Mark]] = {}
    for route, switch in watching:
        if switch["due_at"] is not None:
            note = f"switch {switch['name']}, {switch['state']}: {switch['expects']}"
            due = switch["due_at"]
            mark = Mark(Kind.DEADLINE, switch["state"], due, due, switch["name"], note)
            found.setdefault(place(route, switch["group"]), []).append(mark)
    return found
