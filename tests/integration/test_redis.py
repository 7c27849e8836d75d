"""What Redis may cost: nobody waits longer than the time limit, nobody twice, and one that is back is used again."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from app.cli.doctor.servers import examine_redis
from app.kit.clock import monotonic
from app.kit.redis.client import Away, Redis
from app.kit.redis.servers import connect
from app.kit.redis.url import parse_redis_url
from demo.processes import wait_until
from tests.servers import TestServers


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


class Watched:
    """The gateway's Redis, and the clock that its pauses are measured by."""

    def __init__(self, url: str, timeout: float) -> None:
        self.now = 0.0
        parsed = parse_redis_url(url)
        prefix = f"test-{secrets.token_hex(4)}"
        self.redis = Redis(connect(parsed, timeout), parsed, timeout, prefix=prefix, monotonic=lambda: self.now)

    async def works(self) -> bool:
        """Whether one call does; never an error but Away."""
        try:
            await self.redis.read(["x"])
        except Away:
            return False
        return True


@asynccontextmanager
async def opened(url: str, limit: float = 2.0) -> AsyncIterator[Watched]:
    watched = Watched(url, limit)
    yield watched
    await watched.redis.aclose()


@pytest.fixture
async def relay(servers: TestServers) -> AsyncIterator[Relay]:
    async with Relay(servers.valkey.url) as relay:
        yield relay


async def test_what_is_kept_is_read_until_its_time_is_over(servers: TestServers) -> None:
    async with opened(servers.valkey.url) as client:
        await client.redis.keep("a", b"1", timedelta(minutes=1))
        await client.redis.keep("b", b"2", timedelta(milliseconds=1))

        async def gone() -> bool:
            return await client.redis.read(["b", "a"]) == [None, b"1"]

        await wait_until("it to go", gone, within=10, interval=0.01)


async def test_a_hang_costs_one_time_limit_and_nobody_waits_for_its_end(relay: Relay) -> None:
    async with opened(relay.url, limit=0.5) as client:
        assert await client.works()
        relay.flowing.clear()
        began = monotonic()
        assert not any(await asyncio.gather(*(client.works() for _ in range(60))))
        assert not any([await client.works() for _ in range(200)])
        assert monotonic() - began < 30, "260 waits would be 130 s"
        before = relay.connections
        client.now += 1.0
        assert not any([await client.works() for _ in range(50)]), "a look is under way, in the background"
        assert client.redis.away
        assert relay.connections - before <= 1, "one look at a time"
        relay.flowing.set()
        client.now += 60.0
        assert await client.redis.fault() is None
        assert await client.works()


async def test_one_that_is_back_is_found_by_the_calls_that_need_it(relay: Relay) -> None:
    async with opened(relay.url) as client:
        assert await client.works()
        relay.drop()

        async def fails() -> bool:
            return not await client.works()

        await wait_until("the end of the connection to arrive", fails, within=10, interval=0)
        assert not await client.works(), "left alone until the pause is over"
        client.now += 1.0
        await wait_until("a look to find it", client.works, within=10, interval=0.01)
        assert not client.redis.away


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        pytest.param("redis://127.0.0.1:1", "Error 111 connecting to 127.0.0.1:1", id="nobody listens"),
        pytest.param("redis://no-such-host.invalid", "no-such-host.invalid", id="no such host"),
        pytest.param("redis+sentinel://127.0.0.1:1,127.0.0.1:2/m", "no Sentinel answers: Error 111", id="no Sentinel"),
        pytest.param("redis+cluster://127.0.0.1:1", "Cluster cannot be connected", id="no node of the Cluster"),
    ],
)
async def test_the_fault_of_what_is_not_there_has_a_name(url: str, fault: str) -> None:
    async with opened(url) as client:
        for _ in range(2):  # Asked for the first time, and again while it is left alone.
            assert fault in (await client.redis.fault() or "")
        with pytest.raises(Away):
            await client.redis.keep("x", b"1", timedelta(seconds=1))


async def test_the_faults_of_a_server_that_is_there_have_names(servers: TestServers) -> None:
    port = servers.valkey.access.port
    password = servers.valkey.access.password
    for url, fault in (
        (f"redis://:hunter2@127.0.0.1:{port}", "invalid username-password pair"),
        (f"redis://127.0.0.1:{port}", "it asks for a password"),
        (f"redis://:{password}@127.0.0.1:{port}/99", "DB index is out of range"),
        (f"redis+cluster://:{password}@127.0.0.1:{port}", "Cluster mode is not enabled on this node"),
        (f"redis+sentinel://127.0.0.1:{port}/m?sentinel_password={password}", "unknown command"),
    ):
        async with opened(url) as client:
            detail = await client.redis.fault() or ""
            assert fault in detail
            assert "hunter2" not in detail
            assert password not in detail


async def test_a_hung_redis_that_is_asked_for_its_fault_costs_no_more_than_a_call(relay: Relay) -> None:
    async with opened(relay.url, limit=0.2) as client:
        relay.flowing.clear()
        began = monotonic()
        for _ in range(3):
            assert await client.redis.fault() is not None
        assert monotonic() - began < 10


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("redis://:hunter2@127.0.0.1:1/2", "standalone at redis://127.0.0.1:1/2: Error 111"),
        (
            "redis+sentinel://:hunter2@127.0.0.1:1/m",
            "sentinel at redis+sentinel://127.0.0.1:1/m/0: no Sentinel answers",
        ),
        ("redis+cluster://:hunter2@127.0.0.1:1", "cluster at redis+cluster://127.0.0.1:1: Redis Cluster cannot"),
    ],
)
async def test_the_doctor_names_the_kind_the_place_and_the_fault(url: str, detail: str) -> None:
    finding = await examine_redis(url, embedded=False)
    assert (finding.check, finding.level) == ("redis reachable", "warn")
    assert finding.detail.startswith(detail)
    assert "hunter2" not in finding.detail
