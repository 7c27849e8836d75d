"""Group commit: while one batch is written, the next one collects. An idle gateway adds no delay."""

import asyncio
import logging
import math
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Self

from starlette.requests import ClientDisconnect

from app.decide.batch import AlertDecision
from app.intake.intake import Intake, Job
from app.kit.clock import monotonic
from app.kit.errors import NotDurable
from app.kit.log import Seldom
from app.kit.metrics import Metrics

log = logging.getLogger(__name__)

_QUIET: Final = 10.0  # seconds between two log lines about batches that are not durable
_LOOK: Final = 0.25  # seconds between two looks at the jobs that wait
_LONGEST: Final = 0.5  # seconds that a batch should take, because others wait for its end
_LEAST: Final = 500  # alerts that a batch may always have: each batch has a price of its own
_STALLED: Final = 1.0  # seconds after which a batch says itself how long batches take now
_FORGOTTEN: Final = 10.0  # seconds after which a batch that failed counts no longer
#: The weight of a lane that goes before others, and of a job that needs no share: it is written in no time.
_LIGHT: Final = 200
_SHARE: Final = 3  # times the room that a sender leaves at least; all that waits of it may have as much


@dataclass(slots=True)
class _Lane:
    """The jobs of one sender that wait, or the parts of its large bodies, in order of arrival. Any of them can leave at no
    cost. `queued` is their weight."""

    jobs: OrderedDict[Job, None] = field(default_factory=OrderedDict)
    queued: int = 0


class Batcher:
    """Collects jobs and has them written in batches. A request waits only for its own job.

    Jobs of one lane are written in order of arrival. Lanes share each batch, and every second one is for those with few
    alerts alone. So a sender with many does not hold up one with few. A batch has `max_batch` alerts, or fewer when those of
    the batch before took long.

    `max_queue` is how many alerts may wait, readable or not, and `max_bytes` how many bytes of their bodies. The batch under
    way counts in neither, so that memory holds at most twice as much. An empty queue takes a body of any size.

    All that waits of one sender may take three times the room that it leaves, and with a part of a large body only as much
    as it leaves. So others always find room, and so do the sender's own small bodies beside its large ones. A sender with
    nothing there may take the last room for a light job.

    A job that would wait for longer than its request does, at the present rate, is refused when it comes, or _LOOK later.
    An idle batcher refuses nothing.
    """

    def __init__(self, intake: Intake, *, max_queue: int, max_bytes: int = 64 * 2**20, max_batch: int = 2000) -> None:
        self._intake = intake
        self._max_queue = max_queue
        self._max_bytes = max_bytes
        self._max_batch = max_batch
        # Those with jobs, by sender and whether they hold parts of large bodies. The first one is served next.
        self._lanes: OrderedDict[tuple[str, bool], _Lane] = OrderedDict()
        self._writing: list[Job] = []  # the batch under way
        self._most = max_batch  # alerts of the next one
        self._pace = self._pace_before = 0.0  # seconds for an alert of a full batch; 0: nobody knows
        self._light = False  # The batch before left out the lanes with many alerts.
        self._queued = 0
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._over = asyncio.Event()  # the batch under way
        self._turn = monotonic()
        self._next_look: asyncio.TimerHandle | None = None
        self._may_log = Seldom(_QUIET)

    def stuck(self, patience: float = 30.0) -> bool:
        """True when alerts wait and no batch has ended for `patience` seconds."""
        return bool(self._queued) and monotonic() - self._turn > patience

    def shown_in(self, metrics: Metrics) -> Self:
        """The metrics show what waits."""
        metrics.waiting_alerts.set_function(lambda: self.waiting[0])
        metrics.waiting_bytes.set_function(lambda: self.waiting[1])
        return self

    @property
    def waiting(self) -> tuple[int, int]:
        """How many alerts wait, readable or not, and the bytes of their bodies."""
        return self._queued - sum([len(lane.jobs) for lane in self._lanes.values()]), self._bytes

    @property
    def at_work(self) -> bool:
        """Whether alerts wait to be written, or are being written."""
        return bool(self._queued or self._writing)

    async def submit(self, job: Job, within: float) -> list[AlertDecision]:
        """The decisions on the job's alerts, in their order, when they are durable.

        Raises NotDurable soon when the queue is full or would take longer than `within` seconds. Raises it later when
        Postgres does not take them, or after `within` seconds, or _LOOK if that is more. Raises ClientDisconnect when the
        job's sender has gone away.
        """
        name, weight = (job.lane, job.large), len(job.alerts) + len(job.bad) + 1
        refusal = self._refusal(job, weight, within)
        if refusal is not None and refusal.retry_after is not None and self._writing:
            with suppress(TimeoutError):  # Perhaps the batch under way ends now: then the rate is another one.
                await asyncio.wait_for(self._over.wait(), _LOOK)
            refusal = self._refusal(job, weight, within)
        if refusal is not None:
            raise refusal
        if not self._queued:
            self._arrived.set()
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        lane.jobs[job] = None
        lane.queued += weight
        self._queued += weight
        self._bytes += job.size
        job.queued, job.due = weight, job.arrived + within
        if self._next_look is None:  # One for all jobs: a timer each would be a tenth of what a repeat costs.
            self._next_look = asyncio.get_running_loop().call_later(_LOOK, self._look)
        try:
            return await job.done
        finally:
            if job.queued:  # The request may have given up, or its sender may have hung up.
                self._leave(job)
            if job.watch is not None:
                job.watch.cancel()

    async def run(self) -> None:
        """Write batches until cancelled. On cancellation, first write the batch under way and the queue."""
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                self._turn = monotonic()
                while self._lanes:
                    # A task of its own: a cancellation must not break a transaction that requests wait for.
                    writing = asyncio.create_task(self._write(self._next()))
                    await asyncio.shield(writing)
        finally:
            if writing is not None:
                await writing
            while self._lanes:
                await self._write(self._next())

    def _next(self) -> list[Job]:
        """The jobs of the next batch. Each lane gives its oldest jobs, up to an equal share of the alerts. A lane that has
        more is served last the next time."""
        jobs: list[Job] = []
        names = list(self._lanes)
        light = [name for name in names if self._lanes[name].queued <= _LIGHT]
        self._light = not self._light and 0 < len(light) < len(names)
        if self._light:
            names = light
        alerts, share = 0, max(1, self._most // len(names))
        for name in names:
            if alerts >= self._most:
                break
            lane, before = self._lanes[name], alerts
            for job in list(islice(lane.jobs, share)):  # Each has an alert at least.
                if alerts - before >= share:
                    break
                alerts += job.queued - 1
                self._leave(job)
                if not job.done.done():  # Else its request has just given up.
                    job.in_doubt = True
                    jobs.append(job)
            if lane.jobs:
                self._lanes.move_to_end(name)
        self._writing = jobs
        return jobs

    def _refusal(self, job: Job, weight: int, within: float) -> NotDurable | None:
        """Why the job may not wait. None: it may."""
        lane, beside = self._lanes.get((job.lane, job.large)), self._lanes.get((job.lane, not job.large))
        if self._queued:
            held = (lane.queued if lane else 0) + (beside.queued if beside else 0)
            room = self._max_queue - self._queued - weight  # behind it
            if room < 0:
                return NotDurable(f"too many alerts wait to be written: {self._oldest()}")
            if held + weight > (room if job.large else _SHARE * room) and (held or weight > _LIGHT):
                return NotDurable(f"too many alerts of one sender wait to be written: {self._oldest()}")
            if self._bytes + job.size > self._max_bytes:
                return NotDurable(f"too many bytes wait to be written: {self._oldest()}")
        at_most = self._pace * (2 * self._most + self._queued + weight)  # while no batch is late
        if at_most <= within and monotonic() - self._turn <= _STALLED:
            return None  # So it is nearly always, and costs little.
        wait = self._wait(lane, weight, within)
        if wait <= max(within, 0.0):
            return None
        detail = f"at the present rate these alerts would wait for {wait:.0f} s: {self._oldest()}"
        return NotDurable(detail, retry_after=math.ceil(wait - within))

    def _wait(self, lane: _Lane | None, weight: int, within: float) -> float:
        """Seconds until a further job of this lane would be written, at the present rate. 0 when the batcher is idle. Up to
        `within` it may really be less."""
        now = monotonic()
        if not self.at_work:
            if now - self._turn > _FORGOTTEN:
                self._pace = self._pace_before = 0.0
            return 0.0
        age = now - self._turn if self._writing else 0.0
        stalled = age if age > _STALLED else 0.0
        batch = max(self._pace * self._most, stalled)
        left = max(batch - age, stalled)  # Of a batch that is late, nobody knows more than that it takes long.
        longest = left + batch * max(1.0, (self._queued + weight) / self._most)
        if longest <= within:
            return longest
        # Lanes share each batch: until this job's turn no other lane is served with more than this one.
        own = weight + (lane.queued if lane is not None else 0)
        ahead = own + sum([min(other.queued, own) for other in self._lanes.values() if other is not lane])
        return left + batch * max(1.0, ahead / self._most)

    def _leave(self, job: Job) -> None:
        """Remove the job from the queue, wherever it is."""
        name = job.lane, job.large
        lane = self._lanes[name]
        del lane.jobs[job]
        lane.queued -= job.queued
        self._queued -= job.queued
        self._bytes -= job.size
        job.queued = 0
        if not lane.jobs:
            del self._lanes[name]

    async def _write(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        self._turn = monotonic()
        stages = self._intake.stages
        stages.begin(min([job.arrived for job in jobs]))
        written = False
        try:
            answers = await self._intake.commit(jobs)
        except Exception as error:
            self._fail(jobs, error)
            await asyncio.gather(*[job.lost() for job in jobs if job.lost is not None and not job.in_doubt])
        else:
            written = True
            for job, answer in zip(jobs, answers, strict=True):
                if not job.done.done():
                    job.done.set_result(answer)
        finally:
            stages.end()
            self._writing = []
            self._learn(sum([len(job.alerts) + len(job.bad) for job in jobs]), written)

    def _learn(self, alerts: int, written: bool) -> None:
        """A batch of so many alerts is over: how fast is Postgres now?"""
        seconds = max(monotonic() - self._turn, 1e-6)
        self._turn = monotonic()
        self._over.set()
        self._over = asyncio.Event()
        if alerts >= _LEAST:
            self._most = min(self._max_batch, max(_LEAST, int(alerts * _LONGEST / seconds)))
            pace = seconds / alerts
        else:  # Each batch has a price of its own. So a smaller one says only between which bounds the pace is.
            pace = min(max(self._pace, seconds / self._most), seconds / max(alerts, 1))
        if not written:
            self._pace = pace
        elif self._lanes:
            self._pace = min(pace, self._pace_before)  # One slow batch may have met a lock that is gone.
        else:
            self._pace = pace = 0.0  # Whoever comes after a pause finds out anew.
        self._pace_before = pace

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        reason = str(error) if isinstance(error, NotDurable) else "the alerts could not be written"
        if not isinstance(error, NotDurable):
            log.error("a batch could not be written", exc_info=error)
        elif self._may_log():
            stages = self._intake.stages.explain(jobs[0].arrived)
            log.warning("a batch is not durable: %s", error, extra={"stages": stages, "cause": _cause(error)})
        for job in jobs:
            job.in_doubt = self._intake.stages.in_doubt
            if not job.done.done():
                job.done.set_exception(NotDurable(f"{reason}: {self._intake.stages.explain(job.arrived)}"))

    def _look(self) -> None:
        """Look after all jobs that wait, also for their commit. One that is due soon gets a timer. The sender of one that
        has waited for a while is watched. Most jobs are written before anybody looks."""
        jobs = [*self._writing, *(job for lane in self._lanes.values() for job in lane.jobs)]
        loop, now = asyncio.get_running_loop(), monotonic()
        for job in jobs:
            if job.done.done():
                continue
            if job.due - now <= _LOOK:
                loop.call_later(job.due - now, self._give_up, job)
            elif job.gone is not None and job.watch is None and now - job.arrived >= _LOOK:
                job.watch = asyncio.create_task(_watch(job))
        self._next_look = loop.call_later(_LOOK, self._look) if jobs else None

    def _give_up(self, job: Job) -> None:
        if job.done.done():
            return
        stages = self._intake.stages
        explain = stages.explain_queued if job.queued else stages.explain
        job.done.set_exception(NotDurable(f"Postgres did not take the alerts in time: {explain(job.arrived)}"))

    def _oldest(self) -> str:
        firsts = (next(iter(lane.jobs)).arrived for lane in self._lanes.values())
        return self._intake.stages.explain_queued(min(firsts, default=monotonic()))


async def _watch(job: Job) -> None:
    """Let the job's request know when its sender goes away. It then waits no longer, and the bytes of its body are free."""
    assert job.gone is not None
    await job.gone()
    if not job.done.done():
        job.done.set_exception(ClientDisconnect())


def _cause(error: BaseException) -> str:
    """The class of the error behind a NotDurable. Its message is left out, because it may repeat what a sender sent."""
    return type(error.__cause__).__name__ if error.__cause__ else ""
