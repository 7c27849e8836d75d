"""Group commit: while one batch is being written the next one collects. An idle gateway adds no delay."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from app.decide.alert import Alert, Bad
from app.kit.clock import monotonic
from app.kit.errors import NotDurable

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    """One body: its alerts, what of it could not be read, and the future that its request waits for."""

    alerts: list[Alert]
    bad: list[Bad]
    source: str
    done: "asyncio.Future[list[Any]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Hands jobs to `commit` in batches. `commit(jobs)` returns one list of answers a job, after its transaction."""

    def __init__(
        self, commit: Callable[[list[Job]], Awaitable[list[list[Any]]]], *, max_queue: int, max_batch: int = 2000
    ) -> None:
        self._commit = commit
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._waiting: deque[Job] = deque()
        self._queued = 0
        self._arrived = asyncio.Event()
        self._turn = monotonic()

    def stuck(self, patience: float = 30.0) -> bool:
        """True when alerts wait and no batch has come to its end for `patience` seconds."""
        return bool(self._waiting) and monotonic() - self._turn > patience

    async def submit(self, job: Job, within: float) -> list[Any]:
        """Answers of the job's alerts in order, once they are durable.

        Raises NotDurable when the queue is full, when Postgres does not take them, or after `within` seconds.
        """
        while self._queued >= self._max_queue and self._waiting and self._waiting[0].done.done():
            self._take()  # Its request has given up: it needs no place.
        if self._queued >= self._max_queue:
            raise NotDurable("too many alerts wait to be written")
        self._waiting.append(job)
        self._queued += len(job.alerts) + 1
        self._arrived.set()
        # asyncio.wait_for makes a second future and two callbacks; at thousands of webhooks a second that shows.
        timer = asyncio.get_running_loop().call_later(within, _give_up, job)
        try:
            return await job.done
        finally:
            timer.cancel()

    async def run(self) -> None:
        """Write batches for ever; on cancellation the batch under way and what is queued are written first."""
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                self._turn = monotonic()
                while self._waiting:
                    # A task of its own, so that a cancellation does not tear a transaction that requests wait for.
                    writing = asyncio.create_task(self._write(self._next()))
                    await asyncio.shield(writing)
        finally:
            if writing is not None:
                await writing
            while self._waiting:
                await self._write(self._next())

    def _next(self) -> list[Job]:
        jobs: list[Job] = []
        alerts = 0
        while self._waiting and alerts < self._max_batch:
            job = self._take()
            if job.done.done():  # Its request has given up: the sender was told to come again.
                continue
            jobs.append(job)
            alerts += len(job.alerts)
        return jobs

    def _take(self) -> Job:
        job = self._waiting.popleft()
        self._queued -= len(job.alerts) + 1
        return job

    async def _write(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        self._turn = monotonic()
        try:
            answers = await self._commit(jobs)
        except Exception as error:
            if not isinstance(error, NotDurable):
                log.exception("a batch could not be written")
            failure = error if isinstance(error, NotDurable) else NotDurable("the alerts could not be written")
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(failure)
            return
        for job, answer in zip(jobs, answers, strict=True):
            if not job.done.done():
                job.done.set_result(answer)


def _give_up(job: Job) -> None:
    if not job.done.done():
        job.done.set_exception(NotDurable("Postgres did not take the alerts in time"))
