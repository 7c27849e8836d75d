"""Group commit: few commits for many requests, an answer only after the commit, and nobody left without one."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from app.decide.alert import Alert, Bad
from app.intake.batcher import Batcher
from app.intake.intake import Intake, Job
from app.intake.stages import Stages
from app.kit.db import open_engine
from app.kit.errors import NotDurable
from app.kit.metrics import Metrics
from tests.sizes import seed, size

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def alert(name: str) -> Alert:
    labels = {"alertname": name}
    return Alert(name, name, True, "critical", NOW, None, labels, {}, "test")


def job(*names: str, size: int = 0, lane: str | None = None) -> Job:
    """Unless a lane is named, each has a sender of its own."""
    return Job([alert(name) for name in names], [], "test", size, lane=names[0] if lane is None else lane)


class Commits(Intake):
    """An intake without a database. It answers with the alerts' names. `gate` holds it back, `failure` breaks it."""

    def __init__(self) -> None:
        self.stages = Stages(open_engine("postgresql://127.0.0.1:1/none"), Metrics())
        self.batches: list[list[str]] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Callable[[], BaseException] | None = None
        self.durable: set[str] = set()

    async def commit(self, jobs: list[Job]) -> list[list[Any]]:
        names = [[a.alert_id for a in job.alerts] for job in jobs]
        self.batches.append([name for of_job in names for name in of_job])
        self.began.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure()
        self.durable.update(self.batches[-1])
        return [list(of_job) for of_job in names]

    async def hold(self, batcher: Batcher) -> "asyncio.Task[list[Any]]":
        """Keep the batcher busy with a commit that does not end; returns the request that waits for it."""
        self.gate.clear()
        self.began.clear()
        first = asyncio.create_task(batcher.submit(job("first"), 5))
        await self.began.wait()
        return first


class Names(Batcher):
    """A batcher whose answers are names."""

    async def submit(self, job: Job, within: float) -> list[Any]:
        return await super().submit(job, within)


@asynccontextmanager
async def running(batcher: Batcher) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(batcher.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def turns(number: int = 5) -> None:
    """Let everything that can go on go on."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_an_idle_batcher_writes_a_job_alone_and_at_once() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=100)
    async with running(batcher):
        assert await batcher.submit(job("a", "b"), 5) == ["a", "b"]
        assert await batcher.submit(job("c"), 5) == ["c"]
    assert commits.batches == [["a", "b"], ["c"]]


async def test_what_arrives_during_a_commit_is_one_commit() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=10_000)
    async with running(batcher):
        first = await commits.hold(batcher)
        others = [asyncio.create_task(batcher.submit(job(f"{i}"), 5)) for i in range(500)]
        await turns()
        commits.gate.set()
        assert await first == ["first"]
        assert await asyncio.gather(*others) == [[f"{i}"] for i in range(500)]
    assert [len(batch) for batch in commits.batches] == [1, 500]


async def test_a_batch_is_bounded_and_keeps_the_order_of_arrival() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=10_000, max_batch=100)
    async with running(batcher):
        first = await commits.hold(batcher)
        others = [asyncio.create_task(batcher.submit(job(f"{i}", lane="one"), 5)) for i in range(250)]
        await turns()
        commits.gate.set()
        await asyncio.gather(first, *others)
    assert [len(batch) for batch in commits.batches] == [1, 100, 100, 50]
    assert [name for batch in commits.batches[1:] for name in batch] == [f"{i}" for i in range(250)]


async def test_an_answer_comes_only_after_the_commit() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=100)
    async with running(batcher):
        first = await commits.hold(batcher)
        await turns()
        assert not first.done()
        commits.gate.set()
        assert await first == ["first"]


async def test_a_full_queue_says_so_at_once_and_takes_more_when_it_has_room() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=10)
    async with running(batcher):
        first = await commits.hold(batcher)
        waiting = [asyncio.create_task(batcher.submit(job(f"{i}"), 5)) for i in range(5)]
        await turns()
        with pytest.raises(NotDurable, match="too many alerts wait"):
            await batcher.submit(job("one too many"), 5)
        commits.gate.set()
        await asyncio.gather(first, *waiting)
        assert await batcher.submit(job("again"), 5) == ["again"]
    assert "one too many" not in commits.durable


async def test_a_request_that_waited_too_long_is_told_and_its_job_is_not_written_later() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=100)
    async with running(batcher):
        first = await commits.hold(batcher)
        with pytest.raises(NotDurable, match="in time"):
            await batcher.submit(job("late"), 0.01)
        commits.gate.set()
        await first
        assert await batcher.submit(job("next"), 5) == ["next"]
    assert commits.batches == [["first"], ["next"]]


async def test_a_request_that_gave_up_during_its_commit_harms_nobody() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=100)
    async with running(batcher):
        commits.gate.clear()
        with pytest.raises(NotDurable):
            await batcher.submit(job("slow"), 0.01)
        commits.gate.set()
        assert await batcher.submit(job("next"), 5) == ["next"]


async def test_a_caller_that_is_cancelled_gives_its_place_free() -> None:
    """A sender that hangs up while it waits must not fill the queue for ever."""
    commits = Commits()
    batcher = Names(commits, max_queue=4)
    async with running(batcher):
        first = await commits.hold(batcher)
        waiting = [asyncio.create_task(batcher.submit(job(f"{i}"), 5)) for i in range(2)]
        await turns()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        commits.gate.set()
        await first
        assert await batcher.submit(job("x", "y", "z"), 5) == ["x", "y", "z"]
    assert commits.batches == [["first"], ["x", "y", "z"]]


async def gives_up(batcher: Batcher, leaving: Job) -> None:
    with pytest.raises(NotDurable, match="in time"):
        await batcher.submit(leaving, 0.01)


async def hangs_up(batcher: Batcher, leaving: Job) -> None:
    waiting = asyncio.create_task(batcher.submit(leaving, 5))
    await turns()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("goes", [gives_up, hangs_up])
@pytest.mark.parametrize(
    ("limits", "size"), [({"max_queue": 7}, 0), ({"max_queue": 100, "max_bytes": 70}, 20)], ids=["alerts", "bytes"]
)
async def test_whoever_no_longer_waits_leaves_the_queue_at_once_from_its_midst(
    goes: Callable[[Batcher, Job], Awaitable[None]], limits: dict[str, int], size: int
) -> None:
    """The first of the queue still waits when the second leaves it."""
    commits = Commits()
    batcher = Names(commits, **limits)
    async with running(batcher):
        first = await commits.hold(batcher)
        ahead = asyncio.create_task(batcher.submit(job("ahead", size=size), 5))
        await turns()
        await goes(batcher, job("gone", size=size))
        behind = [asyncio.create_task(batcher.submit(job(name, size=size), 5)) for name in ("b", "c")]
        await turns()
        commits.gate.set()
        assert await asyncio.gather(first, ahead, *behind) == [["first"], ["ahead"], ["b"], ["c"]]
    assert commits.batches == [["first"], ["ahead", "b", "c"]]


@pytest.mark.parametrize(
    ("sizes", "refused"),
    [
        ([50, 50], []),
        ([50, 51], [1]),
        ([60, 60, 40], [1]),
        ([500], []),  # A body of any size fits into an empty queue.
        ([500, 1], [1]),
        ([1, 500], [1]),
    ],
)
async def test_the_queue_is_bounded_in_bytes_and_an_empty_one_takes_any_body(
    sizes: list[int], refused: list[int]
) -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=10_000, max_bytes=100)
    async with running(batcher):
        first = await commits.hold(batcher)
        sent = [asyncio.create_task(batcher.submit(job(f"{n}", size=size), 5)) for n, size in enumerate(sizes)]
        await turns()
        commits.gate.set()
        results = await asyncio.gather(*sent, return_exceptions=True)
        await first
        assert [n for n, result in enumerate(results) if isinstance(result, NotDurable)] == refused
        assert all("too many bytes wait" in str(results[n]) for n in refused)
        assert await batcher.submit(job("again", size=100), 5) == ["again"]


async def test_a_batch_is_bounded_also_in_what_cannot_be_read() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=10_000, max_batch=100)
    bad = [Bad(0, None, "not JSON", b"{")] * 60
    async with running(batcher):
        first = await commits.hold(batcher)
        others = [asyncio.create_task(batcher.submit(Job([], bad, "test", 60), 5)) for _ in range(4)]
        await turns()
        commits.gate.set()
        await asyncio.gather(first, *others)
    assert len(commits.batches) == 3


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        pytest.param(lambda: NotDurable("Postgres is away"), "Postgres is away", id="its own words are kept"),
        pytest.param(lambda: RuntimeError("password=hunter2"), "could not be written", id="others are not shown"),
        pytest.param(lambda: OSError(28, "disk full"), "could not be written", id="the operating system"),
    ],
)
async def test_a_commit_that_fails_is_told_to_everybody_in_it_and_the_next_is_tried(
    failure: Callable[[], BaseException], message: str
) -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=100)
    async with running(batcher):
        first = await commits.hold(batcher)
        others = [asyncio.create_task(batcher.submit(job(f"{i}"), 5)) for i in range(3)]
        await turns()
        commits.failure = failure
        commits.gate.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert all(isinstance(r, NotDurable) for r in results)
        assert all(message in str(r) for r in results)
        assert not any("hunter2" in str(r) for r in results)
        commits.failure = None
        assert await batcher.submit(job("after"), 5) == ["after"]


async def test_cancelled_it_ends_the_commit_under_way_and_writes_what_is_queued() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=100)
    async with running(batcher) as task:
        first = await commits.hold(batcher)
        queued = [asyncio.create_task(batcher.submit(job(f"{i}"), 5)) for i in range(3)]
        await turns()
        task.cancel()
        await turns()
        commits.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.gather(first, *queued) == [["first"], ["0"], ["1"], ["2"]]
    assert commits.durable == {"first", "0", "1", "2"}


async def test_a_body_of_which_nothing_can_be_read_is_a_job_too() -> None:
    seen: list[list[Bad]] = []

    class Seen(Commits):
        async def commit(self, jobs: list[Job]) -> list[list[Any]]:
            seen.extend(j.bad for j in jobs)
            return [[] for _ in jobs]

    batcher = Names(Seen(), max_queue=100)
    async with running(batcher):
        assert await batcher.submit(Job([], [Bad(0, None, "not JSON", b"{")], "test", 1), 5) == []
    assert [[b.error for b in bad] for bad in seen] == [["not JSON"]]


async def test_it_is_stuck_only_when_alerts_wait_and_nothing_moves() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=100)
    async with running(batcher):
        assert not batcher.stuck(0)
        first = await commits.hold(batcher)
        second = asyncio.create_task(batcher.submit(job("second"), 5))
        await turns()
        assert batcher.stuck(-1)
        assert not batcher.stuck(60)
        commits.gate.set()
        await asyncio.gather(first, second)
        assert not batcher.stuck(-1)


async def test_whatever_happens_an_acknowledged_job_is_durable_and_every_caller_is_told() -> None:
    """Random arrivals, failures, hang-ups and a cancellation at the end."""
    chance = random.Random(seed())
    for _ in range(size(20, 500)):
        await _random_round(chance)


async def _random_round(chance: random.Random) -> None:
    class Moody(Commits):
        async def commit(self, jobs: list[Job]) -> list[list[Any]]:
            await turns(chance.randrange(4))
            self.failure = (lambda: RuntimeError("x")) if chance.random() < 0.2 else None
            return await super().commit(jobs)

    commits = Moody()
    batcher = Names(commits, max_queue=chance.choice((5, 50, 500)), max_batch=chance.choice((1, 7, 100)))

    async def request(name: str) -> str:
        await turns(chance.randrange(30))
        names = [f"{name}.{i}" for i in range(chance.randrange(1, 4))]
        lane = chance.choice("abc")
        submitted: Awaitable[list[Any]] = batcher.submit(job(*names, lane=lane), chance.choice((0.0005, 5, 5, 5)))
        try:
            answers = await submitted
        except NotDurable:
            return "told"
        assert answers == names
        assert set(names) <= commits.durable
        return "acknowledged"

    async with running(batcher):
        outcomes = await asyncio.gather(*(request(f"{i}") for i in range(60)))
    assert set(outcomes) <= {"told", "acknowledged"}
    written = [name for batch in commits.batches for name in batch]
    assert len(written) == len(set(written)), "a job was written twice"
