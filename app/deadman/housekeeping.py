"""How the switches stand, as gauges, and the end of flips that are older than GATEWAY_RETENTION."""

from collections import Counter
from datetime import timedelta

from app.deadman import store
from app.deadman.rules import State
from app.deadman.store import FORGOTTEN
from app.kit.db import transaction
from app.policy.core import Core

_BATCH = 500


class Housekeeping:
    """`step()` reads the gauges anew, and deletes one batch. `keep` in seconds; zero keeps everything for ever."""

    def __init__(self, core: Core, *, keep: float) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._keep = timedelta(seconds=keep)

    async def step(self) -> bool:
        """True: there may be more to delete."""
        await self._show()
        if not self._keep:
            return False
        async with transaction(self._engine) as conn:
            deleted = await store.prune_flips(conn, self._clock.now() - self._keep, _BATCH)
        self._metrics.pruned.labels("flips").inc(deleted)
        return deleted == _BATCH

    async def _show(self) -> None:
        async with self._engine.connect() as conn:
            records = [record for record in await store.read(conn) if record.state != FORGOTTEN]
            watched = await store.read_watch(conn)
        m = self._metrics
        m.deadman_down.clear()
        m.deadman_switches.clear()
        for record in records:
            m.deadman_down.labels(record.name).set(record.state == State.DOWN)
        for state, number in Counter(record.state for record in records).items():
            m.deadman_switches.labels(state).set(number)
        if watched is not None:
            m.watched_until.set(watched.until.timestamp())
