"""How the switches stand, as gauges."""

from collections import Counter

from sqlalchemy.ext.asyncio import AsyncEngine

from app.deadman import store
from app.deadman.rules import State
from app.deadman.store import FORGOTTEN
from app.metrics import Metrics


class SwitchGauges:
    """`step()` reads them anew."""

    def __init__(self, engine: AsyncEngine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def step(self) -> bool:
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
        return False
