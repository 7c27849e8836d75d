"""Redis as memory: newer wins, nothing in it is trusted, and nobody waits for it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from redis import asyncio as redis

from app.decide.state import Episode, Group
from app.groups.memory import Memory
from app.kit.clock import monotonic
from app.kit.metrics import Metrics
from app.kit.redis.client import open_redis
from tests.servers import TestServers

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TRIGGER = UUID("019a0000-0000-7000-8000-000000000001")

GROUP = Group(
    key="g1",
    route="accuracy",
    mode="live",
    labels={"model": "churn", "region": "ñ\u2028 \"'"},
    fired_at=NOW,
    accepted_at=NOW + timedelta(microseconds=1),
    open_trigger=TRIGGER,
    last_trigger=TRIGGER,
    failures=3,
    version=7,
    nonce="abcd",
)
EPISODE = Episode(
    id=uuid4(),
    alert_id="ModelAccuracyLow",
    fingerprint="f1",
    source="alertmanager",
    status="firing",
    severity="critical",
    starts_at=NOW,
    labels={},
    annotations={},
    first_seen_at=NOW,
    last_seen_at=NOW,
    firing_since=NOW,
    route="accuracy",
    group_key="g1",
    group_labels={"model": "churn"},
    count=3,
    trigger_id=TRIGGER,
    decision_id=uuid4(),
    decided_trigger=TRIGGER,
    action="suppress",
    reason="in_flight",
)


class Counted:
    """A Memory with a prefix of its own, the client under it, and how often Redis failed it."""

    def __init__(self, url: str, *, timeout: float = 0.2, ttl: float = 60.0) -> None:
        self.prefix = f"test-{secrets.token_hex(4)}"
        self.client = redis.Redis.from_url(url)
        self.redis = open_redis(url, timeout, prefix=self.prefix)
        self.metrics = Metrics()
        self.memory = Memory(self.redis, self.metrics, ttl=ttl)

    @property
    def failures(self) -> float:
        return self.metrics.registry.get_sample_value("gateway_redis_failures_total", {"use": "memory"}) or 0

    @property
    def unreadable(self) -> float:
        labels = {"cause": "content"}
        return self.metrics.registry.get_sample_value("gateway_fast_path_failures_total", labels) or 0

    async def aclose(self) -> None:
        await self.client.aclose()
        await self.redis.aclose()

    def key(self, kind: str, name: str) -> str:
        return f"{self.prefix}:{kind}:{name}"


@pytest.fixture
async def counted(servers: TestServers) -> AsyncIterator[Counted]:
    made = Counted(servers.valkey.url)
    yield made
    await made.aclose()


async def group_of(memory: Memory) -> Group | None:
    return (await memory.read(["g1"], []))[0].get("g1")


async def episode_of(memory: Memory) -> Episode | None:
    return (await memory.read([], ["f1"]))[1].get("f1")


async def test_what_is_remembered_is_read_back_as_it_was(counted: Counted) -> None:
    await counted.memory.remember([GROUP], [(EPISODE, GROUP.version)])
    groups, episodes = await counted.memory.read(["g1", "unknown"], ["f1", "unknown"])
    assert groups == {"g1": GROUP}
    assert episodes == {"f1": EPISODE}
    assert counted.failures == 0


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        pytest.param(7, 8, 8, id="a newer version wins"),
        pytest.param(8, 7, 8, id="an older one that comes late is dropped"),
        pytest.param(9, 10, 10, id="versions are numbers, not texts"),
    ],
)
async def test_the_newest_version_stays(counted: Counted, first: int, second: int, kept: int) -> None:
    for version in (first, second):
        group, episode = replace(GROUP, version=version), replace(EPISODE, reason=f"by {version}")
        await counted.memory.remember([group], [(episode, version)])
    found, episode_found = await group_of(counted.memory), await episode_of(counted.memory)
    assert found is not None
    assert found.version == kept
    assert episode_found is not None
    assert episode_found.reason == f"by {kept}"


async def test_an_episode_of_the_same_version_is_taken_over(counted: Counted) -> None:
    """An episode changes oftener than its group: of equals the last one stays."""
    await counted.memory.remember([], [(EPISODE, 7)])
    await counted.memory.remember([], [(replace(EPISODE, severity="warning"), 7)])
    found = await episode_of(counted.memory)
    assert found is not None
    assert found.severity == "warning"


async def test_a_closed_episode_is_forgotten(counted: Counted) -> None:
    await counted.memory.remember([GROUP], [(EPISODE, 7)])
    await counted.memory.remember([], [(replace(EPISODE, status="resolved", closed_at=NOW), 7)])
    assert await episode_of(counted.memory) is None
    assert await group_of(counted.memory) == GROUP
    assert counted.failures == 0


async def test_everything_has_a_time_to_live(counted: Counted) -> None:
    await counted.memory.remember([GROUP], [(EPISODE, 7)])
    for key in (counted.key("g", "g1"), counted.key("e", "f1")):
        assert 50_000 < await counted.client.pttl(key) <= 60_000


async def test_a_flushed_or_restarted_redis_loses_no_write(counted: Counted) -> None:
    """The script goes with the server's memory; the next write brings it again."""
    await counted.memory.remember([GROUP], [])
    await counted.client.script_flush()
    await counted.client.delete(counted.key("g", "g1"))
    assert await group_of(counted.memory) is None
    await counted.memory.remember([GROUP], [])
    assert await group_of(counted.memory) == GROUP
    assert counted.failures == 0


GARBAGE = {
    "empty": b"",
    "a word": b"garbage",
    "not JSON": b"7 {",
    "binary": b"\xff\xfe 7",
    "null group": b"7 null",
    "a number": b"7 42",
    "a list of numbers": b"7 [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]",
    "another release, more": b'7 {"key":"g1","from_the_future":1}',
    "another release, less": b'7 {"key":"g1"}',
    "wrong types": b'7 {"key":1,"route":2,"fired_at":3,"open_trigger":4}',
    "a version beyond any number": b"9" * 400 + b" {}",
}


@pytest.mark.parametrize("kind", ["g", "e"])
@pytest.mark.parametrize("value", [pytest.param(v, id=k) for k, v in GARBAGE.items()])
async def test_somebody_elses_value_is_as_good_as_none(counted: Counted, kind: str, value: bytes) -> None:
    await counted.client.set(counted.key(kind, "g1" if kind == "g" else "f1"), value)
    groups, episodes = await counted.memory.read(["g1"], ["f1"])
    assert (groups, episodes) == ({}, {})
    assert await group_of(counted.memory) is None
    assert not counted.redis.away
    assert counted.failures == 0


async def test_no_group_is_looked_at_when_none_of_the_alerts_is_known(counted: Counted) -> None:
    """In a storm of new alerts that would be half of the work with Redis."""
    await counted.client.set(counted.key("g", "g1"), b"garbage")
    assert await counted.memory.read(["g1"], ["f1", "f2"]) == ({}, {})
    assert counted.unreadable == 0
    await counted.memory.remember([], [(EPISODE, 7)])
    assert await counted.memory.read(["g1"], ["f1", "f2"]) == ({}, {})
    assert counted.unreadable == 1


@pytest.mark.parametrize("value", [b"", b"garbage", b"garbage 7 {}", b"3 {"], ids=str)
async def test_somebody_elses_value_is_overwritten(counted: Counted, value: bytes) -> None:
    """It has no time to live: left alone it would keep memory from working for this group for ever."""
    await counted.client.set(counted.key("g", "g1"), value)
    await counted.memory.remember([GROUP], [])
    assert await group_of(counted.memory) == GROUP
    assert counted.failures == 0


async def test_a_key_of_another_type_is_overwritten(counted: Counted) -> None:
    await counted.client.rpush(counted.key("g", "g1"), "x")
    assert await group_of(counted.memory) is None
    await counted.memory.remember([GROUP], [])
    assert await group_of(counted.memory) == GROUP
    assert counted.failures == 0


# A Redis that does not answer.


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """The URL of a server that takes connections and never says a word, as a stopped Valkey does."""
    ended = asyncio.Event()

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        ended.set()
        server.close()


async def test_a_hung_redis_costs_one_timeout_and_is_then_left_alone() -> None:
    async with silent_server() as url:
        counted = Counted(url, timeout=0.1)
        began = monotonic()
        assert await counted.memory.read(["g1"], ["f1"]) == ({}, {})
        first = monotonic() - began
        began = monotonic()
        for _ in range(200):
            assert await counted.memory.read(["g1"], ["f1"]) == ({}, {})
            await counted.memory.remember([GROUP], [(EPISODE, 7)])
        rest = monotonic() - began
        assert first < 0.6, f"the first question took {first:.2f} s with a time limit of 0.1 s"
        assert rest < 0.5, f"400 further questions took {rest:.2f} s"
        assert counted.failures == 1
        assert counted.redis.away
        await counted.aclose()


async def test_many_at_once_wait_for_a_hung_redis_together() -> None:
    async with silent_server() as url:
        counted = Counted(url, timeout=0.1)
        began = monotonic()
        await asyncio.gather(*(counted.memory.read(["g1"], ["f1"]) for _ in range(60)))
        took = monotonic() - began
        assert took < 4.0, f"60 questions at once took {took:.2f} s with a time limit of 0.1 s"
        await counted.aclose()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("redis://127.0.0.1:1/0", id="nobody listens"),
        pytest.param("redis://no-such-host.invalid:6379/0", id="no such host"),
    ],
)
async def test_a_redis_that_is_away_raises_nothing(url: str) -> None:
    counted = Counted(url)
    assert await counted.memory.read(["g1"], ["f1"]) == ({}, {})
    await counted.memory.remember([GROUP], [])
    assert await counted.redis.fault() is not None
    assert counted.redis.away
    await counted.aclose()


async def test_a_wrong_password_raises_nothing(servers: TestServers) -> None:
    port = servers.valkey.access.port
    counted = Counted(f"redis://:wrong@127.0.0.1:{port}/0")
    assert await counted.memory.read(["g1"], []) == ({}, {})
    assert counted.failures == 1
    await counted.aclose()
