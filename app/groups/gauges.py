"""Gauges of triggers: how many are open, and the newest success of each route."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.metrics import Metrics

_TRIGGERS = text("""
    SELECT route, state, count(*) AS number FROM triggers
    WHERE state IN ('held', 'pending', 'submitted', 'running', 'dead') AND mode = 'live' GROUP BY route, state
""")

# From the database and not from what this process has seen: it must outlive a restart. One look into the index a route:
# with years of history, grouping it would be the most expensive thing that the gateway does.
_SUCCESS = text("""
    WITH RECURSIVE names(route) AS (
        (SELECT route FROM triggers WHERE state = 'succeeded' ORDER BY route LIMIT 1)
        UNION ALL
        SELECT (SELECT route FROM triggers WHERE state = 'succeeded' AND route > n.route ORDER BY route LIMIT 1)
        FROM names n WHERE n.route IS NOT NULL
    )
    SELECT n.route, newest.* FROM names n CROSS JOIN LATERAL (
        SELECT ended_at AS at, fired_at FROM triggers
        WHERE state = 'succeeded' AND route = n.route AND ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT 1
    ) newest
""")


async def set_gauges(conn: AsyncConnection, _now: datetime, metrics: Metrics) -> None:
    """Set the gauges of triggers."""
    triggers = (await conn.execute(_TRIGGERS)).all()
    successes = (await conn.execute(_SUCCESS)).all()
    metrics.triggers.clear()
    for row in triggers:
        metrics.triggers.labels(row.route, row.state).set(row.number)
    for row in successes:
        metrics.last_success.labels(row.route).set(row.at.timestamp())
        metrics.last_success_took.labels(row.route).set((row.at - row.fired_at).total_seconds())
