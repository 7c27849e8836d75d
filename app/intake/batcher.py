"""Group commit: while one batch is written, the next one collects. An idle gateway adds no delay."""

import asyncio
import logging
from collections import OrderedDict
from typing import Final

from app.decide.batch import AlertDecision
from app.intake.intake import Intake, Job
from app.kit.clock import monotonic
from app.kit.errors import NotDurable
from app.kit.log import Seldom

log = logging.getLogger(__name__)

_QUIET: Final = 10.0  # seconds between two log lines about batches that are not durable


class Batcher:
    """Collects jobs and has them written in batches. A request waits only for its own job.

    `max_queue` is how many alerts may wait, and `max_bytes` how many bytes of their bodies. The batch under way counts in
    neither, so that memory holds at most twice as much. An empty queue takes a body of any size.
    """

    def __init__(self, intake: Intake, *, max_queue: int, max_bytes: int = 64 * 2**20, max_batch: int = 2000) -> None:
        self._intake = intake
        self._max_queue = max_queue
        self._max_bytes = max_bytes
        self._max_batch = max_batch
        self._waiting: OrderedDict[Job, None] = OrderedDict()  # In order of arrival. Any job can leave at no cost.
        self._queued = 0
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._turn = monotonic()
        self._may_log = Seldom(_QUIET)

    def stuck(self, patience: float = 30.0) -> bool:
        """True when alerts wait and no batch has ended for `patience` seconds."""
        return bool(self._waiting) and monotonic() - self._turn > patience

    async def submit(self, job: Job, within: float) -> list[AlertDecision]:
        """The decisions on the job's alerts, in their order, when they are durable.

        Raises NotDurable when the queue is full, when Postgres does not take them, or after `within` seconds.
        """
        if self._queued >= self._max_queue:
            raise NotDurable(f"too many alerts wait to be written: {self._oldest()}")
        if self._waiting and self._bytes + job.size > self._max_bytes:
            raise NotDurable(f"too many bytes wait to be written: {self._oldest()}")
        self._waiting[job] = None
        self._queued += len(job.alerts) + 1
        self._bytes += job.size
        self._arrived.set()
        # asyncio.wait_for makes a second future and two callbacks; at thousands of webhooks a second that shows.
        timer = asyncio.get_running_loop().call_later(within, self._give_up, job)
        try:
            return await job.done
        finally:
            timer.cancel()
            self._leave(job)  # The request may have given up, or its sender may have hung up.

    async def run(self) -> None:
        """Write batches until cancelled. On cancellation, first write the batch under way and the queue."""
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                self._turn = monotonic()
                while self._waiting:
                    # A task of its own: a cancellation must not break a transaction that requests wait for.
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
            job = next(iter(self._waiting))
            self._leave(job)
            if job.done.done():  # Its request has just given up.
                continue
            jobs.append(job)
            alerts += len(job.alerts) + len(job.bad)
        return jobs

    def _leave(self, job: Job) -> None:
        """Remove the job from the queue, wherever it is. Does nothing when the job is not there."""
        if job in self._waiting:
            del self._waiting[job]
            self._queued -= len(job.alerts) + 1
            self._bytes -= job.size

    async def _write(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        self._turn = monotonic()
        stages = self._intake.stages
        stages.begin(jobs[0].arrived)
        try:
            answers = await self._intake.commit(jobs)
        except Exception as error:
            self._fail(jobs, error)
        else:
            for job, answer in zip(jobs, answers, strict=True):
                if not job.done.done():
                    job.done.set_result(answer)
        finally:
            stages.end()

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        reason = str(error) if isinstance(error, NotDurable) else "the alerts could not be written"
        if not isinstance(error, NotDurable):
            log.error("a batch could not be written", exc_info=error)
        elif self._may_log():
            stages = self._intake.stages.explain(jobs[0].arrived)
            log.warning("a batch is not durable: %s", error, extra={"stages": stages, "cause": _cause(error)})
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(NotDurable(f"{reason}: {self._intake.stages.explain(job.arrived)}"))

    def _give_up(self, job: Job) -> None:
        if job.done.done():
            return
        stages = self._intake.stages
        explain = stages.explain_queued if job in self._waiting else stages.explain
        job.done.set_exception(NotDurable(f"Postgres did not take the alerts in time: {explain(job.arrived)}"))

    def _oldest(self) -> str:
        return self._intake.stages.explain_queued(next(iter(self._waiting)).arrived)


def _cause(error: BaseException) -> str:
    """The class of the error behind a NotDurable. Its message is left out, because it may repeat what a sender sent."""
    return type(error.__cause__).__name__ if error.__cause__ else ""
