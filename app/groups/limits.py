"""The fires of a route, counted under a lock on its row. Without the lock two groups could both take the last place.

The lock is taken before any lock of a group, and only for routes that have a limit.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide.state import SHADOW
from app.policy.schema import Policy, Route

_MAKE = text("INSERT INTO routes (name) SELECT unnest(CAST(:names AS text[])) ON CONFLICT DO NOTHING")
_LOCK = text("SELECT name FROM routes WHERE name = ANY(CAST(:names AS text[])) ORDER BY name FOR UPDATE")

# The keys are locked in the order that every flow uses.
_WAKE_WAITING = text("""
    UPDATE groups SET wake_at = t.ended_at FROM triggers t WHERE t.id = :trigger AND key IN (
        SELECT key FROM groups WHERE route = :route AND wake_at IS NOT NULL AND open_trigger IS NULL ORDER BY key FOR UPDATE
    ) AND groups.wake_at > t.ended_at
""")


async def lock(conn: AsyncConnection, policy: Policy, names: Iterable[str], now: datetime) -> dict[str, list[datetime]]:
    """Lock the named routes that have a limit. Returns their fires that count, by route, the newest first."""
    limited = [r for name in sorted(set(names)) if (r := policy.route(name)) is not None and r.limit is not None]
    if not limited:
        return {}
    wanted = {"names": [route.name for route in limited]}
    if len((await conn.execute(_LOCK, wanted)).all()) < len(limited):
        await conn.execute(_MAKE, wanted)
        await conn.execute(_LOCK, wanted)
    return {route.name: await fires(conn, route, now) for route in limited}


async def fires(conn: AsyncConnection, route: Route, now: datetime) -> list[datetime]:
    """The newest fires of a route that count against its limit. A trigger counts from its fire on, also when it was forced
    or its run failed, but not when it is dead or cancelled. In shadow mode the triggers that would have fired count; they
    never count for the route in live mode."""
    if route.limit is None:
        return []
    t = tables.triggers
    statement = (
        select(t.c.fired_at)
        .where(t.c.route == route.name, t.c.mode == route.mode, t.c.fired_at > now - route.limit.per)
        .where(or_(t.c.mode == SHADOW, t.c.state.not_in(("dead", "cancelled"))))
        .order_by(t.c.fired_at.desc())
        .limit(route.limit.triggers)
    )
    return list((await conn.execute(statement)).scalars())


async def wake_waiting(conn: AsyncConnection, route: str, trigger: UUID) -> None:
    """Make every waiting group of the route due: a dead trigger no longer counts, so one of them can take its place."""
    await conn.execute(_WAKE_WAITING, {"route": route, "trigger": trigger})
