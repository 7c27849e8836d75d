"""What stands in the books right now, as gauges: open triggers, what waits for delivery, what is dead."""

from sqlalchemy import text

from app.policy.core import Core

_TRIGGERS = text("""
    SELECT route, state, count(*) AS number FROM triggers
    WHERE state IN ('held', 'pending', 'submitted', 'running', 'dead') AND mode = 'live' GROUP BY route, state
""")

# Two looks, because each has an index of its own: what is delivered stands in neither.
_OUTBOX = text("""
    SELECT target, count(*) AS pending, 0 AS dead, min(created_at) AS oldest FROM outbox
    WHERE state = 'pending' GROUP BY target
    UNION ALL
    SELECT target, 0, count(*), NULL FROM outbox WHERE state = 'dead' GROUP BY target
""")

_NOTICES = text("SELECT event, count(*) AS number FROM notices WHERE resolved_at IS NULL GROUP BY event")

# From the books and not from what this process has seen: it must outlive a restart. One look into the index a route:
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


class Gauges:
    """`step()` reads them anew."""

    def __init__(self, core: Core) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics

    async def step(self) -> bool:
        now = self._clock.now()
        async with self._engine.connect() as conn:
            triggers = (await conn.execute(_TRIGGERS)).all()
            outbox = (await conn.execute(_OUTBOX)).all()
            successes = (await conn.execute(_SUCCESS)).all()
            incidents = (await conn.execute(_NOTICES)).all()
        m = self._metrics
        for gauge in (m.triggers, m.outbox_pending, m.outbox_oldest, m.outbox_dead, m.notices_open):
            gauge.clear()
        for row in successes:
            m.last_success.labels(row.route).set(row.at.timestamp())
            m.last_success_took.labels(row.route).set((row.at - row.fired_at).total_seconds())
        for row in triggers:
            m.triggers.labels(row.route, row.state).set(row.number)
        for row in incidents:
            m.notices_open.labels(row.event).set(row.number)
        for row in outbox:
            m.outbox_pending.labels(row.target).inc(row.pending)
            m.outbox_dead.labels(row.target).inc(row.dead)
            m.outbox_oldest.labels(row.target).inc((now - row.oldest).total_seconds() if row.oldest else 0)
        return False
