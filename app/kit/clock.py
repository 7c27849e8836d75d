"""The one place where time is read. Everything else is handed a `now` (timezone-aware, UTC).

Time is Postgres': a replica whose own clock is wrong must not shorten a cooldown. The offset to the database is measured
at start and every minute; between measurements the clock runs on the machine's monotonic counter, so that a step of the
wall clock changes nothing.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Timezone-aware UTC."""
        ...


class SystemClock:
    """The machine's clock until `synchronise` has learned the database's."""

    def __init__(self) -> None:
        self._base = datetime.now(UTC)
        self._monotonic = time.monotonic()
        self.offset = timedelta(0)  # database minus this machine, as last measured

    def now(self) -> datetime:
        return self._base + timedelta(seconds=time.monotonic() - self._monotonic)

    async def synchronise(self, database_now: Callable[[], Awaitable[tuple[datetime, float]]]) -> None:
        """Take over the database's time: what it was, and the monotonic() at which it was that."""
        self._base, self._monotonic = await database_now()
        self.offset = self.now() - datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a counter that never goes back; for measuring how long something took."""
    return time.monotonic()
