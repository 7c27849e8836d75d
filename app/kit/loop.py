"""Background loops. A loop calls `step() -> bool`. True means "there may be more: again at once", False "nothing to do"."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from app.kit.clock import monotonic
from app.kit.db import is_temporary

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_TURN: Final = 0.002  # seconds of a long computation after which everybody else gets a turn


class Bell:
    """Code that has work for a loop rings its bell, and the loop ends its rest early."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    @property
    def rung(self) -> bool:
        """Whether it rang since the last wait."""
        return self._rung.is_set()

    async def wait(self, seconds: float) -> None:
        """Return when the bell rings, or rang since the last wait, or after `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), seconds)
        self._rung.clear()


@dataclass
class Loop:
    """One named loop. Its `bell` ends its rest early. /livez calls `stuck()` to learn that a step does not return."""

    name: str
    step: Callable[[], Coroutine[Any, Any, bool]]
    idle: float  # seconds of rest after a step that found nothing to do
    pace: float = 0.0  # seconds of rest after a step that found something, for work that is not urgent
    patience: float = 60.0  # seconds after which a step that has not returned counts as stuck
    stop: Callable[[], Awaitable[None]] | None = None  # called when the loop ends, to give up work in progress
    failures: int = 0  # in a row
    started: bool = False
    bell: Bell = field(default_factory=Bell)
    _step_began: float | None = None
    _last_end: float = field(default_factory=monotonic)

    def stuck(self) -> bool:
        """True when a step has been under way for longer than `patience` seconds, or the loop has ended."""
        if self._step_began is not None:
            return monotonic() - self._step_began > self.patience
        return monotonic() - self._last_end > self.idle + self.patience

    async def run(self) -> None:
        """Step forever. An error is logged, and a growing pause follows: a loop never ends by itself."""
        self.started = True
        try:
            while True:
                await self._rest(await self._guarded_step())
        finally:
            if self.stop is not None:
                await self.stop()

    async def _rest(self, again: bool) -> None:
        if again:
            await asyncio.sleep(self.pace)  # A busy loop must not starve the requests.
            return
        pause = self.idle if not self.failures else min(30.0, self.idle * 2 ** min(self.failures, 6))
        await self.bell.wait(pause)

    async def _guarded_step(self) -> bool:
        self._step_began = monotonic()
        try:
            again = await self.step()
            self.failures = 0
            return again
        except Exception:
            self.failures += 1
            log.exception("loop step failed", extra={"loop": self.name, "failures": self.failures})
            return False
        finally:
            self._step_began = None
            self._last_end = monotonic()


@asynccontextmanager
async def running(loops: Iterable[Loop]) -> AsyncIterator[None]:
    """Run the loops in one TaskGroup while the block runs. At the end each loop is cancelled where it waits."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(loop.run(), name=loop.name) for loop in loops]
        try:
            yield
        finally:
            for task in started:
                task.cancel()


async def each_alone(
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[object]],
    describe: Callable[[Item], Mapping[str, object]],
    problem: str,
    *,
    at_once: int = 1,
) -> list[tuple[Item, Exception]]:
    """Do `work` for every item, `at_once` at a time. Return the items that failed, each with its error.

    An item that fails stops no other. It is logged as `problem`, with the fields of `describe`. An error of our own
    Postgres is not the item's fault (`is_temporary`): no further item begins, those under way end, and then it is raised.
    No task is left behind.
    """
    failed: list[tuple[Item, Exception]] = []
    passing: list[Exception] = []
    free = asyncio.Semaphore(at_once)

    async def guarded(item: Item) -> None:
        async with free:
            if passing:
                return
            try:
                await work(item)
            except Exception as error:
                if is_temporary(error):
                    passing.append(error)
                else:
                    log.exception(problem, extra=dict(describe(item)))
                    failed.append((item, error))

    async with asyncio.TaskGroup() as tasks:
        for item in items:
            tasks.create_task(guarded(item))
    if passing:
        first, *others = passing
        for error in others:
            first.add_note(f"Another item met {type(error).__name__}: {error}")
        raise first
    return failed


async def in_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The items of a long computation. Every few milliseconds the rest of the process gets a turn: an alert does not wait
    until a large page is drawn."""
    began = monotonic()
    for item in items:
        yield item
        if monotonic() - began >= _TURN:
            await asyncio.sleep(0)
            began = monotonic()


async def all_of(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run the coroutines side by side and return their results in order. When one raises, the others are cancelled, and the
    error is raised when all have ended: no task is left behind."""
    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(work) for work in works]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in started]
