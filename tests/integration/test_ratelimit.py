"""The rate limit on a real Valkey: how many pass, how long the others wait, and nobody limited without Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from redis import asyncio as aioredis

from app.kit.embedded import start_valkey
from app.kit.errors import Problem
from app.kit.metrics import Metrics
from app.kit.redis.client import Redis, open_redis
from app.web.ratelimit import RateLimit
from app.web.tokens import Caller
from tests.fakes.clock import ManualClock

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Redis]:
    """Redis as the product opens it, with a time limit for a busy machine."""
    client = open_redis(url, timeout=2.0)
    yield client
    await client.aclose()


CI = Caller("ci", frozenset({"trigger"}))


class Limits:
    """A RateLimit with a counter of what passed unlimited."""

    def __init__(self, redis: Redis, per_minute: int) -> None:
        self._metrics = Metrics()
        self.limit = RateLimit(redis, per_minute, ManualClock(NOW), self._metrics)

    @property
    def unlimited(self) -> float:
        return self._metrics.registry.get_sample_value("gateway_redis_failures_total", {"use": "rate_limit"}) or 0

    async def spend(self, requests: int, at: float = 0, token: str = "ci") -> int:
        """How many of so many requests pass, `at` seconds after NOW."""
        waits = [await self.limit.allow(token, after(at)) for _ in range(requests)]
        return waits.count(None)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    valkey = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield valkey.url
    valkey.stop()


@pytest.fixture
async def raw(url: str) -> AsyncIterator[aioredis.Redis]:
    """The same server, empty, as nobody of ours asks it."""
    async with aioredis.Redis.from_url(url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def redis(url: str, raw: aioredis.Redis) -> AsyncIterator[Redis]:
    async with connect(url) as client:
        yield client


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
    await limits.limit.check(CI)
    with pytest.raises(Problem) as caught:
        await limits.limit.check(CI)
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")
    assert caught.value.headers == {"Retry-After": "2"}
    assert "ci" in caught.value.detail


async def test_a_replica_with_a_clock_far_ahead_does_not_lock_a_token_out(redis: Redis) -> None:
    limits = Limits(redis, 10)
    assert await limits.spend(10, at=3600) == 10
    assert await limits.spend(20) == 10


async def test_a_key_is_ours_tells_no_name_and_goes_by_itself(redis: Redis, raw: aioredis.Redis) -> None:
    limits = Limits(redis, 10)
    await limits.spend(20, token="the-name-of-a-token")
    (key,) = await raw.keys("*")
    assert str(key).startswith("b'gateway:limit:")
    assert "name" not in str(key)
    assert 55_000 < await raw.pttl(key) <= 60_001


async def test_zero_limits_nobody_and_asks_nobody() -> None:
    async with connect("redis://127.0.0.1:1/0") as nowhere:
        limits = Limits(nowhere, 0)
        assert await limits.spend(100) == 100
    assert limits.unlimited == 0


async def test_a_redis_that_forgot_its_keys_or_the_script_limits_on(redis: Redis, raw: aioredis.Redis) -> None:
    limits = Limits(redis, 10)
    await limits.spend(10)
    await raw.script_flush()
    assert await limits.spend(20) == 0
    await raw.flushall()
    assert await limits.spend(20) == 10
    assert limits.unlimited == 0


async def test_a_redis_that_is_not_there_limits_nobody_and_is_counted() -> None:
    async with connect("redis://127.0.0.1:1/0") as nowhere:
        limits = Limits(nowhere, 1)
        assert await limits.spend(20) == 20
    assert limits.unlimited == 20


@pytest.mark.parametrize("command", [("SET", "nonsense"), ("RPUSH", "x")], ids=["no number", "a list"])
async def test_a_key_that_is_something_else_is_overwritten(
    redis: Redis, raw: aioredis.Redis, command: tuple[str, str]
) -> None:
    limits = Limits(redis, 10)
    await limits.spend(1)
    (key,) = await raw.keys("*")
    await raw.delete(key)
    await raw.execute_command(command[0], key, command[1])  # type: ignore[no-untyped-call]
    assert await limits.spend(20) == 10
    assert limits.unlimited == 0
