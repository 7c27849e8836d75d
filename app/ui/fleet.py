"""The fleet: one row for each group, with its lane. What needs a person comes first, the worst of it before the rest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from app.deadman import show as switches
from app.explain import history, sentences
from app.explain.lanes import Kind, Mark, Span, flags_of, marks_of
from app.groups import live
from app.groups.live import Standing
from app.kit.loop import in_turns
from app.notices import show as incidents
from app.policy.schema import Policy
from app.promotion import store as promotions
from app.promotion.promote import shown

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


async def read(conn: AsyncConnection, policy: Policy, now: datetime, filters: Filters) -> Fleet:
    """The fleet as the policy in force has it. It reads what `GET /api/v1/routes`, `/triggers`, `/alerts`, `/promotions`,
    `/deadman` and `/notices` show.

    Of every group it reads the little that sorts and counts them, and of the groups on the page what a lane shows. The
    number of its statements does not depend on the number of groups.
    """
    chosen = policy.route(filters.route) if filters.route else None
    routes = [chosen] if chosen is not None else list(policy.routes)
    most = max(_MOST_GROUPS // max(len(routes), 1), 1)
    standings, cut = await live.standings(conn, routes, filters.labels, most)
    mutes = {name: each["muted"] for name, each in (await live.mutes(conn, policy, routes, now)).items()}
    ranked = [_rank(each, now) async for each in in_turns(standings)]
    wanted = sorted((each for each in ranked if _fits(filters, each, mutes)), key=_first)
    begin = (filters.page - 1) * PER_PAGE
    rows = [_row(each, mutes[each.standing.route.name], now) for each in wanted[begin : begin + PER_PAGE]]
    span = Span.of(now, filters.days)
    await _add_labels(conn, rows)
    await _add_lanes(conn, policy, rows, span)
    worst, opened = await incidents.worst_open(conn, _MOST_INCIDENTS)
    needing = sum(each.needs_person for each in ranked)
    return Fleet(rows, len(wanted), len(ranked), needing, worst, opened, cut, span)


class _Ranked(NamedTuple):
    """A group with the little that sorts, counts and filters it: every group of the fleet has this."""

    standing: Standing
    state: str
    needs_person: bool


def _rank(standing: Standing, now: datetime) -> _Ranked:
    group, trigger = standing.group, standing.trigger
    # The state of a held group names no trigger: the newest that fired is an earlier one.
    needs = not group.held and trigger is not None and sentences.needs_person(trigger)
    return _Ranked(standing, live.state_of(group, standing.route, now), needs)


def _row(ranked: _Ranked, muted: Any, now: datetime) -> Row:
    """What a page shows of a group. `_add_labels` and `_add_lanes` add to it."""
    standing = ranked.standing
    route, state = standing.route, live.group_state(standing.group, standing.route, now)
    return {
        "key": standing.group.key,
        "route": route.name,
        "mode": route.mode,
        "state": ranked.state,
        "live": state,
        "trigger": standing.trigger,
        "firing": standing.firing,
        "muted": muted,
        "blocked_until": state["held_until"] or state["cooldown_until"] or (muted.until if muted else None),
        "needs_person": ranked.needs_person,
    }


def _fits(filters: Filters, ranked: _Ranked, mutes: Mapping[str, Any]) -> bool:
    standing = ranked.standing
    if not standing.fits:
        return False
    match filters.state:
        case "needs_person":
            return ranked.needs_person
        case "firing":
            return standing.firing > 0
        case "muted":
            return mutes[standing.route.name] is not None
        case None:
            return True
    return ranked.state == filters.state


def _first(ranked: _Ranked) -> tuple[Any, ...]:
    standing = ranked.standing
    urgent = standing.worst if ranked.needs_person else 0
    return (
        not ranked.needs_person,
        urgent,
        _ORDER.index(ranked.state),
        standing.worst,
        standing.route.name,
        standing.named,
        standing.group.key,
    )


async def _add_labels(conn: AsyncConnection, rows: Sequence[Row]) -> None:
    """The labels, and the sentence on what to do, which may name them."""
    labels = await live.labels_of(conn, [row["key"] for row in rows])
    for row in rows:
        row["group"] = row["live"]["group"] = labels.get(row["key"], {})
        newest: Row | None = {"state": "held"} if row["state"] == "held" else row["trigger"]
        row["next_step"] = sentences.next_step(newest, row["live"]) if newest else sentences.NOTHING


async def _add_lanes(conn: AsyncConnection, policy: Policy, rows: Sequence[Row], span: Span) -> None:
    keys = [row["key"] for row in rows]
    alerts = await history.lately_alerted(conn, keys, span.since, _MOST_MARKS)
    triggers = await history.lately_triggered(conn, keys, span.since, _MOST_MARKS)
    promoted = await promotions.of_groups(conn, keys, span.since, _MOST_FLAGS)
    due = deadlines_of(await switches.of_groups(conn, policy, [(row["route"], row["group"]) for row in rows]))
    async for row in in_turns(rows):
        marks = marks_of(span, alerts[row["key"]], triggers[row["key"]], row["live"])
        row["marks"] = (
            marks + flags_of(map(shown, promoted[row["key"]])) + due.get(place(row["route"], row["group"]), [])
        )
        row["cut"] = max(len(alerts[row["key"]]), len(triggers[row["key"]])) == _MOST_MARKS


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
