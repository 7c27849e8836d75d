"""What the database holds at this moment, as gauges. Each room says in a function of its own what it counts."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.kit.clock import Clock
from app.kit.metrics import Metrics

#: Reads everything first and sets its gauges then, without a pause in between: a scrape never meets half of them.
Reading = Callable[[AsyncConnection, datetime, Metrics], Awaitable[None]]


class Gauges:
    """`step()` reads them all anew. `readings` by name. A reading that fails holds up no other: it is raised at the end."""

    def __init__(self, engine: AsyncEngine, clock: Clock, metrics: Metrics, readings: Mapping[str, Reading]) -> None:
        self._engine = engine
        self._clock = clock
        self._metrics = metrics
        self._readings = readings

    async def step(self) -> bool:
        now = self._clock.now()
        failed: list[Exception] = []
        for name, reading in self._readings.items():
            try:
                async with self._engine.connect() as conn:
                    await reading(conn, now, self._metrics)
            except Exception as error:
                error.add_note(f"the gauges of {name}")
                failed.append(error)
        if failed:
            raise ExceptionGroup("gauges that could not be read", failed)
        return False
