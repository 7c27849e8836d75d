"""The fires of a route, counted under a lock of its row: without it two groups could both take the last one.

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

# The keys are locked in the order of every flow.
_LET_IN = text("""
    UPDATE groups SET wake_at = t.ended_at FROM triggers t WHERE t.id = :trigger AND key IN (
        SELECT key FROM groups WHERE route = :route AND wake_at IS NOT NULL AND open_trigger IS NULL ORDER BY key FOR UPDATE
    ) AND groups.wake_at > t.ended_at
""")


async def lock(conn: AsyncConnection, policy: Policy, names: Iterable[str], now: datetime) -> dict[str, list[datetime]]:
    """Lock those of the routes that have a limit; their fires that count, the newest first."""
    limited = [r for name in sorted(set(names)) if (r := policy.route(name)) is not None and r.limit is not None]
    if not limited:
        return {}
    wanted = {"names": [route.name for route in limited]}
    if len((await conn.execute(_LOCK, wanted)).all()) < len(limited):
        await conn.execute(_MAKE, wanted)
        await conn.execute(_LOCK, wanted)
    return {route.name: await fires(conn, route, now) for route in limited}


async def fires(conn: AsyncConnection, route: Route, now: datetime) -> list[datetime]:
    """The newest fires of a route that count against its limit: from the fire on, failed and forced ones too; dead and
    cancelled ones do not. In shadow mode what would have fired counts, and never counts for the live route."""
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


async def let_in(conn: AsyncConnection, route: str, trigger: UUID) -> None:
    """A trigger of the route died and counts no more: every group that waits is looked at again, and one takes the place."""
    await conn.execute(_LET_IN, {"route": route, "trigger": trigger})
