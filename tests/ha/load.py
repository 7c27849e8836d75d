"""Writers that never give up: each record is sent until it is acknowledged, and what was acknowledged is remembered."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count, pairwise

from app.kit.clock import monotonic
from app.kit.errors import TargetError
from app.kit.http import Http, open_http

PAUSE = 0.02  # seconds before a record that was not acknowledged is sent again

Write = Callable[[Http, int], Awaitable[str | None]]  # sends record n; what it is called when it was acknowledged


@dataclass
class Load:
    """`parallel` writers of one kind of record."""

    name: str
    write: Write
    parallel: int = 8
    acknowledged: list[tuple[float, str]] = field(default_factory=list)  # when (monotonic) and what
    refused: int = 0  # attempts that were not acknowledged
    _numbers: "count[int]" = field(default_factory=count)

    async def run(self, until: asyncio.Event) -> None:
        """Write until told to stop; a record that was begun is brought to its end."""
        async with open_http(connect=1.0, read=10.0) as http:
            await asyncio.gather(*(self._writer(http, until) for _ in range(self.parallel)))

    async def more(self, records: int, within: float = 120.0) -> None:
        """Wait until so many more were acknowledged."""
        wanted = len(self.acknowledged) + records
        async with asyncio.timeout(within):
            while len(self.acknowledged) < wanted:  # noqa: ASYNC110 (Eight writers would set an event all the time.)
                await asyncio.sleep(0.02)

    def gap(self, since: float) -> float:
        """The longest time, in seconds, without any acknowledgement that ended after `since`."""
        times = sorted(at for at, _ in self.acknowledged)
        gaps = [later - earlier for earlier, later in pairwise(times) if later >= since]
        return max(gaps, default=0.0)

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.acknowledged}

    async def _writer(self, http: Http, until: asyncio.Event) -> None:
        while not until.is_set():
            number = next(self._numbers)
            while (name := await self._once(http, number)) is None:
                self.refused += 1
                await asyncio.sleep(PAUSE)
            self.acknowledged.append((monotonic(), name))

    async def _once(self, http: Http, number: int) -> str | None:
        try:
            return await self.write(http, number)
        except TargetError:
            return None
