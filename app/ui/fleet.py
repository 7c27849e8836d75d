"""The fleet: one row for each group, with its lane. What needs a person comes first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.deadman import show as switches
from app.decide.state import group_key
from app.explain import history, sentences
from app.explain.lanes import Kind, Mark, Span, flags_of, marks_of
from app.groups import live
from app.notices import show as incidents
from app.policy.deadman import Retrain
from app.policy.schema import Policy
from app.promotion import store as promotions
from app.promotion.promote import shown

PER_PAGE: Final = 50
#: What `state` of the filters may be. The last four are the states of a group.
STATES: Final = ("needs_person", "firing", "muted", "idle", "held", "in_flight", "cooldown")
_MOST_GROUPS: Final = 10_000
_MOST_SWITCHES: Final = 1000
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
    """One page of rows, out of `found`, and the open incidents. `cut`: routes with more groups than could be read."""

    rows: list[Row]
    found: int
    groups: int
    needing: int
    incidents: list[Row]
    cut: list[str]
    span: Span

    @property
    def pages(self) -> int:
        return max(-(-self.found // PER_PAGE), 1)


async def read(conn: AsyncConnection, policy: Policy, now: datetime, filters: Filters) -> Fleet:
    """The fleet as the policy in force has it. It reads what `GET /api/v1/routes`, `/triggers`, `/alerts`, `/promotions`,
    `/deadman` and `/notices` show."""
    only = filters.route if filters.route and policy.route(filters.route) else None
    routes = (await live.list_routes(conn, policy, now, only=only, limit=_MOST_GROUPS, cursor=None)).items
    ids = [ident for route in routes for group in route["groups"] if (ident := newest_trigger(group)) is not None]
    triggers = await history.triggers_by_id(conn, ids)
    firing = await history.firing_by_group(conn)
    rows = [
        _row(route, group, triggers.get(newest_trigger(group)), firing) for route in routes for group in route["groups"]
    ]
    wanted = sorted(filter(partial(_fits, filters), rows), key=_first)
    begin = (filters.page - 1) * PER_PAGE
    rows_shown, span = wanted[begin : begin + PER_PAGE], Span.of(now, filters.days)
    await _add_lanes(conn, policy, rows_shown, span)
    found, _ = await incidents.page(conn, incidents.Query(limit=_MOST_INCIDENTS, open=True))
    cut = [route["name"] for route in routes if route["more_groups"]]
    return Fleet(rows_shown, len(wanted), len(rows), sum(row["needs_person"] for row in rows), found, cut, span)


def newest_trigger(group: Row) -> Any:
    """The id of the group's open trigger, or else of the newest that fired."""
    return group["in_flight"] or group["last_trigger"]


def _row(route: Row, group: Row, trigger: Row | None, firing: Mapping[str, int]) -> Row:
    key = group_key(route["name"], route["mode"], group["group"])
    # The state of a held group names no trigger: the newest that fired is an earlier one.
    newest: Row | None = {"state": "held"} if group["state"] == "held" else trigger
    step = sentences.next_step(newest, group) if newest else sentences.NOTHING
    muted = route["muted"]
    return {
        "key": key,
        "route": route["name"],
        "mode": route["mode"],
        "group": group["group"],
        "state": group["state"],
        "live": group,
        "trigger": trigger,
        "firing": firing.get(key, 0),
        "muted": muted,
        "blocked_until": group["held_until"] or group["cooldown_until"] or (muted.until if muted else None),
        "next_step": step,
        "needs_person": not step.startswith(sentences.NOTHING),
    }


def _fits(filters: Filters, row: Row) -> bool:
    group: dict[str, str] = row["group"]
    if any(group.get(name) != value for name, value in filters.labels.items()):
        return False
    match filters.state:
        case "needs_person":
            return bool(row["needs_person"])
        case "firing":
            return bool(row["firing"])
        case "muted":
            return row["muted"] is not None
        case None:
            return True
    return bool(row["state"] == filters.state)


def _first(row: Row) -> tuple[Any, ...]:
    return not row["needs_person"], _ORDER.index(row["state"]), row["firing"] == 0, row["route"], str(row["group"])


async def _add_lanes(conn: AsyncConnection, policy: Policy, rows: Sequence[Row], span: Span) -> None:
    keys = [row["key"] for row in rows]
    alerts = await history.lately_alerted(conn, keys, span.since, _MOST_MARKS)
    triggers = await history.lately_triggered(conn, keys, span.since, _MOST_MARKS)
    promoted = await promotions.of_groups(conn, keys, span.since, _MOST_FLAGS)
    due = await deadlines(conn, policy)
    for row in rows:
        marks = marks_of(span, alerts[row["key"]], triggers[row["key"]], row["live"])
        row["marks"] = (
            marks + flags_of(map(shown, promoted[row["key"]])) + due.get(place(row["route"], row["group"]), [])
        )
        row["cut"] = max(len(alerts[row["key"]]), len(triggers[row["key"]])) == _MOST_MARKS


def place(route: str, group: Mapping[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A group of a route, as a key."""
    return route, tuple(sorted(group.items()))


async def deadlines(conn: AsyncConnection, policy: Policy) -> dict[Any, list[Mark]]:
    """The deadlines of the switches that expect a retrain, by `place`."""
    watched, _ = await switches.page(conn, policy, state=None, limit=_MOST_SWITCHES, cursor=None)
    found: dict[Any, list[Mark]] = {}
    for switch in watched:
        expect = _retrain_of(policy, switch)
        if expect is not None and switch["due_at"] is not None:
            note = f"switch {switch['name']}, {switch['state']}: {switch['expects']}"
            due = switch["due_at"]
            mark = Mark(Kind.DEADLINE, switch["state"], due, due, switch["name"], note)
            found.setdefault(place(expect.retrain, switch["group"]), []).append(mark)
    return found


def _retrain_of(policy: Policy, row: Row) -> Retrain | None:
    """The retrain that a switch expects; None: it expects something else, or left the policy."""
    for switch in policy.deadman:
        instance = switch.seen(row["group"]) if isinstance(switch.expect, Retrain) else None
        if instance is not None and instance.name == row["name"] and isinstance(switch.expect, Retrain):
            return switch.expect
    return None
