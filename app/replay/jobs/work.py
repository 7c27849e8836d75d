"""Backtests over HTTP: each is worked at in a process of its own, which this process watches, bounds and ends."""

import asyncio
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import RowMapping

from app.kit.clock import monotonic
from app.kit.db import OF_THE_DATABASE
from app.kit.errors import Problem
from app.kit.loop import Loop
from app.kit.replica import Reader
from app.policy.core import Core
from app.replay.jobs import store
from app.replay.jobs.process import BUG, PROGRESS, REPORT, Order
from app.replay.jobs.schemas import Asked
from app.web.tokens import Caller

log = logging.getLogger(__name__)

_BEAT: Final = 1.0  # seconds between two looks at a process
_TRIM_EVERY: Final = timedelta(minutes=10)
#: How often a backtest begins whose process, or the gateway around it, dies.
MOST_ATTEMPTS: Final = 2
_CONTAINER: Final = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one backtest: seconds, bytes of memory, records of the history, bytes of the report; and `nice`: how far its
    process stands back for others that want the CPU too."""

    seconds: float = 600.0
    memory: int = 2**30
    records: int = 1_000_000
    report: int = 8 * 2**20
    nice: int = 10


def bounds_here() -> Bounds:
    """The bounds, with at most half of the memory that this container may take."""
    bounds = Bounds()
    try:
        memory = int(_CONTAINER.read_text())
    except (OSError, ValueError):  # No container, or no limit ("max").
        return bounds
    return replace(bounds, memory=min(bounds.memory, memory // 2))


class Backtests:
    """`ask`, `find` and `remove` are for the API. `step()` works at one backtest: any number of processes may run it.

    `urls` are the databases to read the history from: the next one counts when the one before does not answer.
    """

    def __init__(self, core: Core, reader: Reader, urls: Sequence[str], bounds: Bounds) -> None:
        self.clock = core.clock
        self.bounds = bounds
        self._engine, self._reorder = core.engine, core.reorder
        self._reader = reader
        self._urls = list(urls)
        self._held: store.Job | None = None
        self._progress: tuple[str, int, int] | None = None
        self._trimmed_at: datetime | None = None

    @property
    def loop(self) -> Loop:
        """The loop of a worker."""
        patience = self.bounds.seconds + 60
        return Loop("backtests", self.step, idle=1.0, patience=patience, stop=self.stop)

    # -- the API ------------------------------------------------------------------------------------------------------

    async def refuse_second(self, caller: Caller) -> None:
        """Raise Problem 409 when a backtest of the caller is open."""
        found = await self._reader.fresh(lambda conn: store.open_of(conn, caller.name))
        if found is not None:
            raise self._second(found)

    async def ask(self, caller: Caller, asked: Asked) -> RowMapping:
        """Keep the question; a worker takes it. Raises Problem 409 as `refuse_second`."""
        text = asked.model_dump_json()
        for _ in range(2):
            made = await store.ask(self._engine, caller.name, text, self.clock.now())
            if made is not None:
                return made
            await self.refuse_second(caller)  # Otherwise it has just ended.
        raise Problem(409, "backtest_open", "The token has an open backtest already: wait for its end.")

    def _second(self, row: RowMapping) -> Problem:
        detail = f"The token has an open backtest already, {row['id']}: wait for its end, or DELETE it."
        return Problem(409, "backtest_open", detail, id=str(row["id"]))

    async def find(self, ident: UUID) -> RowMapping:
        """Raises Problem 404."""
        found = await self._reader.find(lambda conn: store.find(conn, ident))
        if found is None:
            raise missing(ident)
        return found

    async def remove(self, ident: UUID, caller: Caller) -> RowMapping:
        """End and forget a backtest: the row as it was. Raises Problem 404, and 403 for one of another token."""
        found = await self._reader.fresh(lambda conn: store.find(conn, ident))
        if found is None:
            raise missing(ident)
        if found["caller"] != caller.name and not caller.can("admin"):
            detail = "Only the token that asked for a backtest, or one with the scope admin, may delete it."
            raise Problem(403, "forbidden", detail, scope="admin")
        await store.remove(self._engine, ident)
        return found

    # -- the worker ---------------------------------------------------------------------------------------------------

    async def step(self) -> bool:
        """Work at the oldest backtest that waits. False: none does."""
        now = self.clock.now()
        if self._trimmed_at is None or now - self._trimmed_at >= _TRIM_EVERY:
            await store.trim(self._engine, now)
            self._trimmed_at = now
        self._held = await store.claim(self._engine, now)
        if self._held is None:
            return False
        await self._work(self._held)
        self._held = None
        await store.trim(self._engine, self.clock.now())
        return True

    async def stop(self) -> None:
        """Give up what this process works at: another one begins anew."""
        if self._held is not None:
            with suppress(*OF_THE_DATABASE):  # Otherwise another process takes it when its time is up.
                await store.release(self._engine, self._held)

    async def _work(self, job: store.Job) -> None:
        if job.attempts > MOST_ATTEMPTS:
            error = f"The gateway ended {MOST_ATTEMPTS} times while it worked at this backtest."
            await store.end(self._engine, job, self.clock.now(), error=error)
            return
        self._progress = None
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "app.replay.jobs.child", str(self.bounds.nice)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=self.bounds.report + 2**16,
        )
        talking = asyncio.create_task(self._talk(child, job))
        deadline = monotonic() + self.bounds.seconds
        try:
            while not talking.done() and monotonic() < deadline:
                await asyncio.wait({talking}, timeout=_BEAT)
                if not await store.beat(self._engine, job, self.clock.now(), self._progress):
                    return  # Somebody has deleted it.
            kind, words = talking.result() if talking.done() else (b"", self._too_long())
        finally:
            talking.cancel()
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        await self._keep(job, kind, words)

    def _too_long(self) -> bytes:
        how_long = f"more than {self.bounds.seconds:.0f} seconds"
        return f"It took {how_long}: use `trigger-gateway backtest`, which has no such bound.".encode()

    async def _talk(self, child: Process, job: store.Job) -> tuple[bytes, bytes]:
        """Give the order, and listen to the answer: its kind, and its words."""
        assert child.stdin is not None
        assert child.stdout is not None
        order = Order(
            asked=Asked.model_validate_json(job.asked),
            urls=self._urls,
            reorder=self._reorder,
            memory=self.bounds.memory,
            records=self.bounds.records,
            report=self.bounds.report,
        )
        with suppress(ConnectionError):  # It has ended: that shows below.
            child.stdin.write(order.model_dump_json().encode())
            await child.stdin.drain()
            child.stdin.close()
        while line := await child.stdout.readline():
            kind, words = line[:1], line[1:].rstrip(b"\n")
            if kind != PROGRESS:
                return kind, words
            step, done, total = from_json(words)
            self._progress = step, done, total
        code = await child.wait()
        return b"", f"Its process ended without an answer ({code}): the machine may have too little memory.".encode()

    async def _keep(self, job: store.Job, kind: bytes, words: bytes) -> None:
        now = self.clock.now()
        if kind == REPORT:
            await store.end(self._engine, job, now, result=words.decode())
            return
        error = words.decode()
        if kind == BUG:
            log.error("a backtest failed by a fault of ours", extra={"backtest": str(job.id), "traceback": error})
            error = "It failed by a fault of the gateway: its log has more."
        await store.end(self._engine, job, now, error=error)


def missing(ident: UUID) -> Problem:
    """The answer for a backtest that is not there."""
    return Problem(404, "not_found", f"There is no backtest {ident}: each is kept for a day after its end.")
