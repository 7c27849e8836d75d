"""What waits for MLflow as gauges, and the end of what was delivered long ago (GATEWAY_RETENTION)."""

from datetime import timedelta

from sqlalchemy import text

from app.kit.db import transaction
from app.lineage.record_store import COUNTS, item_of
from app.policy.core import Core

_BATCH = 500
# What a stream still waits for keeps the whole stream: a certificate compares all of it.
_RECORDS = text("""
    DELETE FROM records WHERE seq IN (
        SELECT seq FROM records r WHERE at < :before AND state <> 'pending'
          AND NOT EXISTS (SELECT FROM records w WHERE w.stream = r.stream AND (w.state = 'pending' OR w.at >= :before))
        ORDER BY at LIMIT :most FOR UPDATE SKIP LOCKED
    ) RETURNING stream
""")
_REPORTS = text("""
    DELETE FROM reports WHERE id IN (
        SELECT id FROM reports r WHERE at < :before
          AND NOT EXISTS (SELECT FROM records w WHERE w.stream = 'run:' || r.run)
        ORDER BY at LIMIT :most FOR UPDATE SKIP LOCKED
    )
""")
_EMPTY = text("""
    SELECT stream FROM unnest(CAST(:streams AS text[])) stream
    WHERE NOT EXISTS (SELECT FROM records w WHERE w.stream = stream)
""")
_ITEMS = text("DELETE FROM outbox WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'delivered'")
_ATTEMPTS = text("DELETE FROM attempts WHERE item = ANY(CAST(:ids AS uuid[]))")


class Housekeeping:
    """`step()` counts, and deletes one batch. `keep` in seconds; zero keeps everything for ever."""

    def __init__(self, core: Core, *, keep: float) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._keep = timedelta(seconds=keep)

    async def step(self) -> bool:
        """True: there may be more to delete."""
        await self._count()
        if not self._keep:
            return False
        values = {"before": self._clock.now() - self._keep, "most": _BATCH}
        async with transaction(self._engine) as conn:
            streams = (await conn.execute(_RECORDS, values)).scalars().all()
            reports = (await conn.execute(_REPORTS, values)).rowcount
            empty = (await conn.execute(_EMPTY, {"streams": sorted(set(streams))})).scalars().all()
            ids = {"ids": [item_of(stream) for stream in empty]}
            items = (await conn.execute(_ITEMS, ids)).rowcount
            await conn.execute(_ATTEMPTS, ids)
        deleted = {"records": len(streams), "reports": reports, "outbox": items}
        for table, rows in deleted.items():
            self._metrics.pruned.labels(table).inc(rows)
        return max(deleted.values()) == _BATCH

    async def _count(self) -> None:
        async with self._engine.connect() as conn:
            counts = {row.state: row.number for row in await conn.execute(COUNTS)}
        for state in ("pending", "aside"):
            self._metrics.metadata_waiting.labels(state).set(counts.get(state, 0))
