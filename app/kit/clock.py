"""The only place that reads the time. Everything else gets a `now` (timezone-aware, UTC).

We use Postgres' time, because a replica with a wrong clock must not shorten a cooldown. The offset to the database is
measured at the start and every minute. Between measurements the clock follows the machine's monotonic counter, so that a
step of the wall clock changes nothing.
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
    """The machine's clock, and the database's clock after the first `synchronise`."""

    def __init__(self) -> None:
        self._base = datetime.now(UTC)
        self._monotonic = time.monotonic()
        self.offset = timedelta(0)  # database minus this machine, as last measured

    def now(self) -> datetime:
        return self._base + timedelta(seconds=time.monotonic() - self._monotonic)

    async def synchronise(self, database_now: Callable[[], Awaitable[tuple[datetime, float]]]) -> None:
        """Take over the database's time. `database_now` returns it with the value of monotonic() at that moment."""
        self._base, self._monotonic = await database_now()
        self.offset = self.now() - datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a counter that never goes back; for measuring how long something took."""
    return time.monotonic()
