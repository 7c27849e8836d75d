"""The rate limit on a real Valkey: how many pass, how long the others wait, and nobody limited without Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.embedded import start_valkey
from app.errors import Problem
from app.ratelimit import RateLimit

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def connect(url: str) -> Redis:
    """A client as the product makes it: no retries of its own."""
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=2, socket_connect_timeout=2)


class Limits:
    """A RateLimit with a counter of what passed unlimited and a monotonic clock moved by hand."""

    def __init__(self, redis: Redis, per_minute: int, timeout: float = 2.0) -> None:
        self.unlimited = 0
        self.counter = 0.0
        self.limit = RateLimit(
            redis,
            per_minute,
            on_unlimited=self._count,
            timeout=timeout,
            pause=5.0,
            monotonic=lambda: self.counter,
        )

    def _count(self) -> None:
        self.unlimited += 1

    async def spend(self, requests: int, at: float = 0, token: str = "ci") -> int:
        """How many of so many requests pass, `at` seconds after NOW."""
        waits = [await self.limit.allow(token, after(at)) for _ in range(requests)]
        return waits.count(None)


class Relay:
    """A network in front of Valkey that can hang (bytes go nowhere) and break (connections are dropped)."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://:{self._target.password}@127.0.0.1:{port}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        their_reader, their_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers += [writer, their_writer]
        for pair in ((reader, their_writer), (their_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pump(*pair)))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.flowing.wait()
            writer.write(data)
        writer.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    valkey = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield valkey.url
    valkey.stop()


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with connect(url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def relay(url: str, redis: Redis) -> AsyncIterator[Relay]:
    async with Relay(url) as relay:
        yield relay


@pytest.mark.parametrize(
    ("per_minute", "timeline"),
    [
        pytest.param(60, [(0, 100, 60)], id="a minute's worth at once"),
        pytest.param(60, [(0, 60, 60), (0.9, 5, 0), (1, 5, 1), (2, 5, 1)], id="then one a second"),
        pytest.param(60, [(0, 60, 60), (30, 100, 30), (90, 100, 60)], id="a pause earns its seconds, a minute at most"),
        pytest.param(60, [(0, 500, 60), (1, 1, 1)], id="refused requests cost nothing"),
        pytest.param(1, [(0, 3, 1), (59, 1, 0), (60, 2, 1)], id="one a minute"),
        pytest.param(7, [(0, 9, 7), (8, 1, 0), (9, 2, 1)], id="a number that divides nothing"),
        pytest.param(6000, [(0, 200, 200)], id="the default lets a busy script pass"),
    ],
)
async def test_how_many_requests_pass(redis: Redis, per_minute: int, timeline: list[tuple[float, int, int]]) -> None:
    limits = Limits(redis, per_minute)
    passed = [await limits.spend(requests, at) for at, requests, _ in timeline]
    assert passed == [expected for _, _, expected in timeline]
    assert limits.unlimited == 0


async def test_the_wait_that_is_told_is_enough_and_not_more(redis: Redis) -> None:
    limits = Limits(redis, 30)
    await limits.spend(30)
    wait = await limits.limit.allow("ci", after(0.5))
    assert wait is not None
    assert wait == pytest.approx(1.5)
    assert await limits.limit.allow("ci", after(0.5 + wait - 0.01)) == pytest.approx(0.01)
    assert await limits.limit.allow("ci", after(0.5 + wait)) is None


async def test_tokens_do_not_share_a_limit(redis: Redis) -> None:
    limits = Limits(redis, 10)
    assert await limits.spend(20, token="ci") == 10
    assert await limits.spend(20, token="grafana") == 10


async def test_replicas_share_it_also_when_they_ask_at_once(url: str, redis: Redis) -> None:
    async with connect(url) as other:
        replicas = [Limits(redis, 50), Limits(other, 50)]
        passed = await asyncio.gather(*(replica.spend(50) for replica in replicas for _ in range(2)))
    assert sum(passed) == 50


async def test_too_many_is_a_problem_429_with_whole_seconds_to_wait(redis: Redis) -> None:
    limits = Limits(redis, 40)
    await limits.spend(39)
    await limits.limit.check("ci", NOW)
    with pytest.raises(Problem) as caught:
        await limits.limit.check("ci", NOW)
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")
    assert caught.value.headers == {"Retry-After": "2"}
    assert "ci" in caught.value.detail


async def test_a_replica_with_a_clock_far_ahead_does_not_lock_a_token_out(redis: Redis) -> None:
    limits = Limits(redis, 10)
    assert await limits.spend(10, at=3600) == 10
    assert await limits.spend(20) == 10


async def test_a_key_is_ours_tells_no_name_and_goes_by_itself(redis: Redis) -> None:
    limits = Limits(redis, 10)
    await limits.spend(20, token="the-name-of-a-token")
    (key,) = await redis.keys("*")
    assert str(key).startswith("b'gateway:limit:")
    assert "name" not in str(key)
    assert 55_000 < await redis.pttl(key) <= 60_001


async def test_zero_limits_nobody_and_asks_nobody() -> None:
    async with connect("redis://127.0.0.1:1/0") as nowhere:
        limits = Limits(nowhere, 0)
        assert await limits.spend(100) == 100
    assert limits.unlimited == 0


async def test_a_redis_that_forgot_its_keys_or_the_script_limits_on(redis: Redis) -> None:
    limits = Limits(redis, 10)
    await limits.spend(10)
    await redis.script_flush()
    assert await limits.spend(20) == 0
    await redis.flushall()
    assert await limits.spend(20) == 10
    assert limits.unlimited == 0


async def test_a_redis_that_is_not_there_limits_nobody_and_is_counted() -> None:
    async with connect("redis://127.0.0.1:1/0") as nowhere:
        limits = Limits(nowhere, 1)
        assert await limits.spend(20) == 20
    assert limits.unlimited == 20


async def test_a_key_that_is_something_else_limits_nobody_and_is_counted(redis: Redis) -> None:
    limits = Limits(redis, 10)
    await limits.spend(1)
    (key,) = await redis.keys("*")
    await redis.set(key, "nonsense")
    assert await limits.spend(1) == 1
    assert limits.unlimited == 1


async def test_a_redis_that_hangs_costs_one_short_wait_and_limits_again_when_it_is_back(relay: Relay) -> None:
    async with connect(relay.url) as redis:
        limits = Limits(redis, 10, timeout=0.5)
        assert await Limits(redis, 10).spend(4) == 4
        relay.flowing.clear()
        started = time.monotonic()
        assert await limits.spend(50) == 50
        assert time.monotonic() - started < 5, "50 waits would be 25 s"
        assert limits.unlimited == 50

        relay.flowing.set()
        assert await limits.spend(3) == 3
        assert limits.unlimited == 53, "left alone until the pause is over"
        limits.counter += 5
        # The request that hung was counted or not: its bytes may have been on the way.
        assert await limits.spend(20) in (5, 6)
        assert limits.unlimited == 53


async def test_after_the_pause_one_request_tries_and_those_beside_it_do_not_wait(relay: Relay) -> None:
    async with connect(relay.url) as redis:
        limits = Limits(redis, 10, timeout=0.1)
        relay.flowing.clear()
        await limits.spend(1)
        limits.counter += 5
        before = relay.connections
        assert await asyncio.gather(*(limits.limit.allow("ci", NOW) for _ in range(20))) == [None] * 20
        assert limits.unlimited == 21
        assert relay.connections - before == 1


async def test_a_dropped_connection_is_made_again(relay: Relay) -> None:
    async with connect(relay.url) as redis:
        limits = Limits(redis, 10)
        await limits.spend(5)
        relay.drop()
        await limits.spend(1)
        limits.counter += 5
        assert await limits.spend(20) in (5, 4)
