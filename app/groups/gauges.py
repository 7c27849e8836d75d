"""Gauges of what the database holds at this moment. Each room has its own function that reads and sets its gauges."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.loop import each_alone
from app.kit.metrics import Metrics
from app.policy.core import Core

#: It reads everything, then sets its gauges without a pause in between. So a scrape never sees half of them.
Reading = Callable[[AsyncConnection, datetime, Metrics], Awaitable[None]]

_TRIGGERS = text("""
    SELECT route, state, count(*) AS number FROM triggers
    WHERE state IN ('held', 'pending', 'submitted', 'running', 'dead') AND mode = 'live' GROUP BY route, state
""")

# It comes from the database, not from what this process has seen, because it must outlive a restart. It takes one look into
# the index for each route. To group years of history would be the most expensive statement of the gateway.
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
    """Count the open triggers, and show the newest success of each route."""
    triggers = (await conn.execute(_TRIGGERS)).all()
    successes = (await conn.execute(_SUCCESS)).all()
    metrics.triggers.clear()
    for row in triggers:
        metrics.triggers.labels(row.route, row.state).set(row.number)
    for row in successes:
        metrics.last_success.labels(row.route).set(row.at.timestamp())
        metrics.last_success_took.labels(row.route).set((row.at - row.fired_at).total_seconds())


class Gauges:
    """`step()` reads and sets all gauges. `readings` are by name."""

    def __init__(self, core: Core, readings: Mapping[str, Reading]) -> None:
        self._core = core
        self._readings = readings

    async def step(self) -> bool:
        """A reading that fails does not stop the others. Its error is raised at the end."""
        now = self._core.clock.now()

        async def read(name: str) -> None:
            async with self._core.engine.connect() as conn:
                await self._readings[name](conn, now, self._core.metrics)

        failed = await each_alone(self._readings, read, lambda name: {"gauges": name}, "gauges cannot be read")
        if failed:
            self._core.metrics.items_failed.labels("gauges").inc(len(failed))
            raise ExceptionGroup("gauges that could not be read", [error for _, error in failed])
        return False
