"""The policy in force with the live state of each group, for people. Reads only."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide import facts
from app.decide.drift import WORST_FIRST
from app.decide.rules import EVERY_ROUTE, Pause, mute_of
from app.decide.state import Group
from app.explain import sentences
from app.explain.history import SHOWN_ON_A_PAGE, Page, Row
from app.groups import pauses
from app.kit.db import as_json, names_of, rows_of
from app.kit.loop import in_turns
from app.kit.pages import MOST_BYTES
from app.policy.schema import Policy, Route

_GROUPS_OF = rows_of(
    f"""
    SELECT {names_of(tables.groups, "s")}, place, found, bytes FROM (
        SELECT {names_of(tables.groups, "g")}, row_number() OVER (PARTITION BY g.route ORDER BY g.key) AS place,
            count(*) OVER (PARTITION BY g.route) AS found,
            sum(octet_length(CAST(g.labels AS text))) OVER (PARTITION BY g.route ORDER BY g.key) AS bytes
        FROM unnest(CAST(:routes AS text[]), CAST(:modes AS text[])) r(route, mode) CROSS JOIN LATERAL (
            SELECT * FROM groups WHERE route = r.route AND mode = r.mode AND key > :after
            ORDER BY key LIMIT CAST(:most AS bigint) + 1
        ) g
    ) s WHERE place <= CAST(:most AS bigint) AND (place = 1 OR bytes < CAST(:bytes AS bigint)) ORDER BY route, key
""",
    tables.groups,
)


_PLACES = ("place", "found", "bytes")

_NAMES = tuple(column.name for column in tables.groups.columns)
_OF_TRIGGER = (
    "id",
    "route",
    "state",
    "blocked",
    "created_at",
    "fired_at",
    "ended_at",
    "lost_at",
    "airflow",
    "dag_id",
    "dag_run_id",
)
# The trigger of a group `g`. LIMIT 1 keeps the planner from reading every trigger for the newest of each group.
_NEWEST = """
    LEFT JOIN LATERAL (
        SELECT * FROM triggers
        WHERE id = CASE WHEN g.held_since IS NULL THEN coalesce(g.open_trigger, g.last_trigger) ELSE g.last_trigger END
        LIMIT 1
    ) t ON true
"""
# Every value here is read a thousand times for one page.
_STANDING = text(f"""
    SELECT g.key, g.route, g.open_trigger IS NOT NULL AS is_open, g.held_since IS NOT NULL AS is_held,
        greatest(g.fired_at, g.accepted_at) AS began_at, g.ended_at, g.reset_at, g.outcome, g.failures, g.on_failure,
        t.state, t.blocked, t.lost_at IS NOT NULL AS lost, left(CAST(g.labels AS text), 200) AS named,
        g.labels @> CAST(:labels AS jsonb) AS fits, f.firing, f.worst
    FROM unnest(CAST(:routes AS text[]), CAST(:modes AS text[])) r(route, mode) CROSS JOIN LATERAL (
        SELECT * FROM groups WHERE route = r.route AND mode = r.mode ORDER BY key LIMIT CAST(:most AS bigint) + 1
    ) g {_NEWEST} LEFT JOIN (
        SELECT group_key, count(*) AS firing, min(coalesce(
            array_position(CAST(:worst_first AS text[]), lower(severity)) - 1, cardinality(CAST(:worst_first AS text[]))
        )) AS worst
        FROM alerts WHERE closed_at IS NULL AND group_key IS NOT NULL GROUP BY group_key
    ) f ON f.group_key = g.key
""")
_SHOWN = text(f"""
    SELECT {", ".join(f"g.{name}" for name in _NAMES)}, {", ".join(f"t.{name} AS trigger_{name}" for name in _OF_TRIGGER)}
    FROM groups g {_NEWEST} WHERE g.key = ANY(CAST(:keys AS text[]))
""").columns(labels=JSONB())

#: The place of a group in which no alert fires, after every severity.
NONE_FIRES: Final = len(WORST_FIRST) + 1


class Standing(NamedTuple):
    """One group as far as every group is read, to be sorted, counted and filtered. `named`: the beginning of its labels as
    text. `fits`: the labels that were asked for are among them. `worst`: the place of its worst firing alert in
    WORST_FIRST."""

    key: str
    route: Route
    state: str
    needs_person: bool
    named: str
    fits: bool
    firing: int
    worst: int


async def find_group(conn: AsyncConnection, key: str) -> Group | None:
    """The group with this key (app.decide.state.group_key)."""
    row = (await conn.execute(select(tables.groups).where(tables.groups.c.key == key))).mappings().one_or_none()
    return Group(**row) if row else None


async def list_routes(
    conn: AsyncConnection, policy: Policy, now: datetime, *, only: str | None, limit: int, cursor: str | None
) -> Page:
    """The routes of the policy in their order, each with the live state of at most `limit` groups. All routes together show
    at most SHOWN_ON_A_PAGE groups, and MOST_BYTES of labels. The cursor pages through the groups of the route `only`."""
    routes = [route for route in policy.routes if only in (None, route.name)]
    limit = min(limit, max(SHOWN_ON_A_PAGE // max(len(routes), 1), 1))
    wanted = {"routes": [r.name for r in routes], "modes": [r.mode for r in routes], "most": limit}
    wanted |= {"after": cursor or "", "bytes": MOST_BYTES // max(len(routes), 1)}
    groups: dict[str, list[Group]] = {route.name: [] for route in routes}
    number: dict[str, int] = {}
    for row in (await conn.execute(_GROUPS_OF, wanted)).mappings():
        groups[row["route"]].append(Group(**{name: value for name, value in row.items() if name not in _PLACES}))
        number[row["route"]] = row["found"]
    paused = await pauses.read(conn)
    items = []
    for route in routes:
        found = groups[route.name]
        shown = [group_state(group, route, now) for group in found]
        more = number.get(route.name, 0) > len(found)
        items.append(_route(policy, route, paused, now) | {"groups": shown, "more_groups": more})
    following = groups[only][-1].key if only in groups and number.get(only, 0) > len(groups[only]) else None
    return Page(items, following)


def _route(policy: Policy, route: Route, paused: Mapping[str, Pause], now: datetime) -> Row:
    shown: Row = route.model_dump(mode="json")
    return shown | _mutes(policy, route, paused, now)


def _mutes(policy: Policy, route: Route, paused: Mapping[str, Pause], now: datetime) -> Row:
    own = [p for name in (route.name, EVERY_ROUTE) if (p := paused.get(name)) is not None and p.is_in_force(now)]
    return {"pause": own[0] if own else None, "muted": mute_of(policy, route, paused, now)}


async def mutes(conn: AsyncConnection, policy: Policy, routes: Sequence[Route], now: datetime) -> dict[str, Row]:
    """What mutes each of these routes now, by its name: `pause` and `muted` as `list_routes` has them."""
    paused = await pauses.read(conn)
    return {route.name: _mutes(policy, route, paused, now) for route in routes}


async def standings(
    conn: AsyncConnection, routes: Sequence[Route], labels: Mapping[str, str], most: int, now: datetime
) -> tuple[list[Standing], list[str]]:
    """Where the groups of these routes stand, at most `most` of each route; and the names of the routes that have more."""
    by_name = {route.name: route for route in routes}
    asked: Row = {"routes": list(by_name), "modes": [route.mode for route in routes], "most": most}
    asked |= {"labels": as_json(dict(labels)), "worst_first": list(WORST_FIRST)}
    found: list[Standing] = []
    counted: Counter[str] = Counter()
    async for row in in_turns((await conn.execute(_STANDING, asked)).all()):
        counted[row[1]] += 1
        if counted[row[1]] <= most:
            found.append(_standing(by_name[row[1]], row, now))
    return found, [name for name, number in counted.items() if number > most]


def _standing(route: Route, row: Sequence[Any], now: datetime) -> Standing:
    """From a row of _STANDING."""
    key, name, is_open, is_held, began_at, ended_at, reset_at, outcome, failures, on_failure = row[:10]
    state, blocked, lost, named, fits, firing, worst = row[10:]
    if is_open:
        mine = "held" if is_held else "in_flight"
    else:
        group = Group(key, name, route.mode, {}, began_at, None, ended_at, outcome, failures, reset_at)
        group.on_failure = on_failure
        mine = state_of(group, route, now)
    # The state of a held group names no trigger: the newest that fired is an earlier one.
    needs = mine != "held" and state is not None and sentences.needs_person(state, blocked, lost=lost)
    where = NONE_FIRES if worst is None else worst
    return Standing(key, route, mine, needs, named, fits, firing or 0, where)


async def with_triggers(conn: AsyncConnection, keys: Sequence[str]) -> dict[str, tuple[Group, Row | None]]:
    """These groups by their keys, each with its open trigger, or else the newest that fired."""
    found: dict[str, tuple[Group, Row | None]] = {}
    for row in (await conn.execute(_SHOWN, {"keys": list(keys)})).all():
        group, mine = Group(**dict(zip(_NAMES, row, strict=False))), row[len(_NAMES) :]
        found[group.key] = group, dict(zip(_OF_TRIGGER, mine, strict=True)) if mine[0] is not None else None
    return found


def group_state(group: Group, route: Route, now: datetime) -> Row:
    """The live state of a group under the policy in force."""
    return {
        "group": group.labels,
        "state": state_of(group, route, now),
        "held_until": facts.held_until(group, route) if group.held else None,
        "cooldown_until": _cooling(group, route, now),
        "in_flight": group.open_trigger if not group.held else None,
        "last_trigger": group.last_trigger,
        "last_outcome": group.outcome,
        "failures_in_a_row": group.failures,
        "fired_at": group.fired_at,
        "wake_at": group.wake_at,
    }


def state_of(group: Group, route: Route, now: datetime) -> str:
    """The state of a group in one word: `held`, `in_flight`, `cooldown` or `idle`."""
    if group.open_trigger is not None:
        return "held" if group.held else "in_flight"
    return "idle" if _cooling(group, route, now) is None else "cooldown"


def _cooling(group: Group, route: Route, now: datetime) -> datetime | None:
    clear = facts.clear_at(group, route)
    return clear if clear is not None and clear > now else None
