"""A storm that is too large, and a Postgres that is too slow: 503 at once, for as long as the queue would take too long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from app.decide.alert import Bad
from app.intake.batcher import Batcher
from app.intake.intake import Job
from app.kit.clock import monotonic
from app.kit.errors import NotDurable
from tests.acceptance.test_settings_matter import nothing_is_written
from tests.acceptance.world import World
from tests.integration.test_batcher import Commits, Names, job, running, turns
from tests.servers import TestServers

SOON = 1.2  # seconds; a quarter of a second, and a busy machine
REFUSED = "at the present rate"
_numbers = count()
_UNREADABLE = Bad(0, None, "not JSON", b"")  # It counts as an alert, and costs nothing to make.


class Slow(Commits):
    """A commit takes `seconds`, whatever its size, and fails with NotDurable while it is `away`."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.away = False

    async def commit(self, jobs: list[Job]) -> list[list[Any]]:
        await asyncio.sleep(self.seconds)
        self.failure = (lambda: NotDurable("away")) if self.away else None
        return await super().commit(jobs)


async def send(batcher: Batcher, alerts: int, within: float) -> tuple[str, float, int | None]:
    """What became of a job of a sender of its own: "written", or the error; after how long; and its `retry_after`."""
    sent = Job([], [_UNREADABLE] * alerts, "test", 0, lane=f"{next(_numbers)}")
    began = monotonic()
    try:
        await batcher.submit(sent, within)
    except NotDurable as error:
        return str(error), monotonic() - began, error.retry_after
    return "written", monotonic() - began, None


@asynccontextmanager
async def opening(commits: Commits) -> AsyncIterator[None]:
    """A test that fails must not leave a batcher that never ends."""
    try:
        yield
    finally:
        commits.gate.set()


async def batches(commits: Commits, number: int) -> None:
    """So many commits are over."""
    while len(commits.batches) < number:  # noqa: ASYNC110 (Nobody tells.)
        await asyncio.sleep(0.01)


async def test_what_the_queue_cannot_take_in_time_is_refused_soon_and_the_rest_is_written() -> None:
    commits, within = Slow(0.2), 2.0
    batcher = Names(commits, max_queue=100_000, max_batch=500)
    async with running(batcher):
        sent = [asyncio.create_task(send(batcher, 500, 30)) for _ in range(6)]
        await batches(commits, 3)  # So it knows: 500 alerts take 0.2 s.
        sent += [asyncio.create_task(send(batcher, 500, within)) for _ in range(60)]
        outcomes = await asyncio.gather(*sent)
        refused = [(seconds, after) for words, seconds, after in outcomes if REFUSED in words]
        assert 30 <= len(refused) < 60
        assert max(seconds for seconds, _ in refused) < SOON
        assert all(after is not None and 1 <= after <= 2 for _, after in refused)
        written = sum(words == "written" for words, _, _ in outcomes)
        assert written >= 9, "it accepts what it can write"
        words, seconds, _ = await send(batcher, 500, within)
        assert (words, seconds < SOON) == ("written", True)


async def test_while_a_commit_stands_still_nothing_queues_up_and_afterwards_the_next_is_taken_at_once() -> None:
    commits, within = Commits(), 3.0
    batcher = Names(commits, max_queue=100)
    async with running(batcher), opening(commits):
        first = await commits.hold(batcher)
        early = asyncio.create_task(send(batcher, 1, within))
        await asyncio.sleep(within / 2 + 0.1)
        words, seconds, after = await send(batcher, 1, within)
        assert REFUSED in words
        assert "behind a batch" in words
        assert seconds < SOON
        assert after is not None
        assert 1 <= after <= 3
        at_the_door = asyncio.create_task(send(batcher, 1, within))
        await turns()
        commits.gate.set()
        assert await first == ["first"]
        outcomes = [await send(batcher, 1, within), await at_the_door, await early]
        assert [words for words, _, _ in outcomes] == ["written"] * 3


async def test_an_idle_batcher_refuses_nothing_and_a_slow_batch_is_forgotten() -> None:
    commits = Slow(0.3)
    batcher = Names(commits, max_queue=10_000)
    async with running(batcher):
        await send(batcher, 1, 30)
        commits.away = True
        await send(batcher, 1, 30)
        commits.away = False
        words, _, _ = await send(batcher, 1, 0.35)
        assert REFUSED not in words
        await send(batcher, 1, 30)
        # Two batches that are as slow would be too many.
        burst = await asyncio.gather(*(send(batcher, 1, 0.55) for _ in range(64)))
        assert not [words for words, _, _ in burst if REFUSED in words]


async def test_after_a_batch_that_failed_slowly_only_the_first_waits_again() -> None:
    commits = Slow(0.6)
    commits.away = True
    batcher = Names(commits, max_queue=100)
    async with running(batcher):
        await send(batcher, 1, 1.0)
        probe, *others = [asyncio.create_task(send(batcher, 1, 1.0)) for _ in range(5)]
        assert all(REFUSED in words for words, _, _ in await asyncio.gather(*others))
        assert not probe.done()
        commits.away = False
        assert (await probe)[0] == "written"


async def test_one_sender_with_much_is_refused_and_one_with_little_is_not() -> None:
    commits = Slow(0.2)
    batcher = Names(commits, max_queue=1_000_000, max_batch=500)
    async with running(batcher):
        names = list(map(str, range(500)))
        many = [asyncio.create_task(batcher.submit(job(*names, lane="many"), 60)) for _ in range(20)]
        await batches(commits, 3)
        with pytest.raises(NotDurable, match=REFUSED):
            await batcher.submit(job("one more", lane="many"), 2.0)
        assert await batcher.submit(job("little", lane="few"), 2.0) == ["little"]
        assert batcher.waiting[0] > 0
        for each in many:
            each.cancel()
        await asyncio.gather(*many, return_exceptions=True)
        assert batcher.waiting == (0, 0)


async def test_a_webhook_is_refused_soon_while_postgres_stands_still_and_taken_when_it_is_back(
    servers: TestServers, database: str
) -> None:
    body = {"alert_id": "ModelAccuracyLow", "severity": "critical", "timestamp": "2026-11-23T11:59:00Z"}
    async with World(servers, database, intake_timeout=3.0) as world:

        async def post() -> tuple[int, float, int]:
            began, model = monotonic(), f"m{next(_numbers)}"
            answer = await world.post("/api/v1/alerts", body | {"labels": {"model": model}})
            return answer.status_code, monotonic() - began, int(answer.headers.get("Retry-After", "0"))

        async with nothing_is_written(database):
            first = asyncio.create_task(post())
            await asyncio.sleep(0.5)
            second = asyncio.create_task(post())
            await asyncio.sleep(1.3)
            value = world.services[0].core.metrics.registry.get_sample_value
            assert value("gateway_intake_waiting_alerts") == 1
            assert 100 < (value("gateway_intake_waiting_bytes") or 0) < 300
            refused = await asyncio.gather(*(post() for _ in range(50)))
            assert {status for status, _, _ in refused} == {503}
            assert max(seconds for _, seconds, _ in refused) < SOON
            assert all(1 <= after <= 3 for _, _, after in refused)
        statuses = [(await post())[0], (await first)[0], (await second)[0]]
        assert statuses[0] == 202
        stored = sum(alert["count"] for alert in await world.alerts())
        assert statuses.count(202) <= stored <= len(statuses)
