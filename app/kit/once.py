"""One look for many callers. The answer is kept for a moment, and callers that come during a look share its answer."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from app.kit.clock import Clock

Found = TypeVar("Found")


class Once(Generic[Found]):
    """`get()` returns the result of `look()`, which is called again when the result is `keep` seconds old. An error is not
    kept."""

    def __init__(self, look: Callable[[], Awaitable[Found]], clock: Clock, keep: float) -> None:
        self._look = look
        self._clock = clock
        self._keep = timedelta(seconds=keep)
        self._found: tuple[datetime, Found] | None = None
        self._under_way: asyncio.Task[Found] | None = None

    async def get(self) -> Found:
        """The answer, at most `keep` seconds old at the time of the call."""
        if self._found is not None and self._clock.now() - self._found[0] < self._keep:
            return self._found[1]
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._make())
        # The shield keeps the look alive for the other callers when this caller is cancelled.
        return await asyncio.shield(self._under_way)

    async def _make(self) -> Found:
        began = self._clock.now()
        found = await self._look()
        self._found = began, found
        return found
