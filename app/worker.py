"""The loops of one process, in one TaskGroup: they start together and end together."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from app.loop import Loop


@asynccontextmanager
async def running(loops: Iterable[Loop]) -> AsyncIterator[None]:
    """Run the loops while the block runs; then each is stopped where it waits."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(loop.run(), name=loop.name) for loop in loops]
        try:
            yield
        finally:
            for task in started:
                task.cancel()
