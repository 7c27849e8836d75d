"""The policy in force with the live state of each group, for people. Reads only."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide import facts
from app.decide.rules import EVERY_ROUTE, Pause, mute_of
from app.decide.state import Group
from app.explain.history import SHOWN_ON_A_PAGE, Page, Row
from app.groups import pauses
from app.kit.db import rows_of
from app.kit.pages import MOST_BYTES
from app.policy.schema import Policy, Route

_GROUPS_OF = rows_of(
    """
    SELECT * FROM (
        SELECT g.*, row_number() OVER (PARTITION BY g.route ORDER BY g.key) AS place,
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
    own = [p for name in (route.name, EVERY_ROUTE) if (p := paused.get(name)) is not None and p.is_in_force(now)]
    return shown | {"pause": own[0] if own else None, "muted": mute_of(policy, route, paused, now)}


def group_state(group: Group, route: Route, now: datetime) -> Row:
    """The live state of a group under the policy in force."""
    clear = facts.clear_at(group, route)
    cooling = clear if clear is not None and clear > now else None
    state = "idle"
    if group.open_trigger is not None:
        state = "held" if group.held else "in_flight"
    elif cooling:
        state = "cooldown"
    return {
        "group": group.labels,
        "state": state,
        "held_until": facts.held_until(group, route) if group.held else None,
        "cooldown_until": cooling,
        "in_flight": group.open_trigger if not group.held else None,
        "last_trigger": group.last_trigger,
        "last_outcome": group.outcome,
        "failures_in_a_row": group.failures,
        "fired_at": group.fired_at,
        "wake_at": group.wake_at,
    }
