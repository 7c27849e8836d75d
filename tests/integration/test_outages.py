"""Postgres and Valkey taken away under a running gateway: stopped, killed, hung. On servers of this module's own."""

import asyncio
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.kit.clock import monotonic
from app.tables import migrate
from demo.processes import wait_until
from tests import plain
from tests.integration.gateways import ask, pid_of
from tests.integration.processes import WEBHOOK, Process, Storm, alert, running
from tests.servers import TestServers, start_test_servers
from tests.sizes import seed, size

ANSWER_SECONDS = 8.0  # the contract: 503 after 8 s at most
SLACK = 1.5  # for a machine that runs other tests as well
ADDED_SECONDS = 1.0  # the issue: Valkey stopped or hung costs no added second


@pytest.fixture(scope="module")
def own_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outages")


@pytest.fixture(scope="module")
def servers(own_path: Path) -> Iterator[TestServers]:
    """Servers that these tests may break."""
    with start_test_servers(own_path) as started:
        yield started


@pytest.fixture
def database(servers: TestServers) -> str:
    """A migrated, empty database on them."""
    url = servers.fresh_database()
    asyncio.run(migrate.upgrade(url))
    return url


@asynccontextmanager
async def gateway(servers: TestServers, database: str, folder: Path) -> AsyncIterator[Process]:
    variables = {"database_url": database, "redis_url": servers.valkey.url, "log_level": "warning"}
    process = Process(folder, variables)
    async with running(process):
        yield process


@contextmanager
def hung(pid: int) -> Iterator[None]:
    """Let the process stand still: its sockets stay open and nobody answers."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def timed(call: Awaitable[httpx.Response]) -> tuple[httpx.Response, float]:
    began = monotonic()
    answer = await call
    return answer, monotonic() - began


def backends(database: str) -> list[int]:
    """The server processes behind the gateway's connections."""
    name = database.rsplit("/", 1)[1]
    rows = (
        f"SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'trigger-gateway'"
    )
    found: list[int] = ask(database, rows) or []
    return found


def hang_up(servers: TestServers, own_path: Path, database: str) -> Callable[[], Any]:
    """SIGSTOP the postmaster and what it has forked for us; returns what lets them go on."""
    pids = [pid_of(own_path, "postgres"), *backends(database)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return go_on


def stop_politely(servers: TestServers, own_path: Path, database: str) -> Callable[[], Any]:
    """SIGINT: the fast shutdown, which takes new connections for refused."""
    return _end(servers, own_path, signal.SIGINT)


def stop_at_once(servers: TestServers, own_path: Path, database: str) -> Callable[[], Any]:
    """SIGKILL of the postmaster and its children, as when the machine goes."""
    for pid in backends(database):
        with suppress(ProcessLookupError):  # One that dies takes the others with it.
            os.kill(pid, signal.SIGKILL)
    return _end(servers, own_path, signal.SIGKILL)


def _end(servers: TestServers, own_path: Path, number: signal.Signals) -> Callable[[], Any]:
    os.kill(pid_of(own_path, "postgres"), number)
    process = servers.postgres._process
    assert process is not None
    process.wait(timeout=30)
    return servers.postgres.ensure_running


POSTGRES_LOST = [
    pytest.param(stop_politely, id="stopped"),
    pytest.param(stop_at_once, id="killed"),
    pytest.param(hang_up, id="hung"),
]


@pytest.mark.slow
@pytest.mark.parametrize("lose", POSTGRES_LOST)
async def test_without_postgres_503_in_time_and_afterwards_everything_by_itself(
    servers: TestServers,
    own_path: Path,
    database: str,
    tmp_path: Path,
    lose: Callable[[TestServers, Path, str], Callable[[], Any]],
) -> None:
    mark = secrets.token_hex(4)
    async with gateway(servers, database, tmp_path) as process, plain.client(timeout=30) as client:
        process.push(alert(f"{mark}-before"))
        bring_back = await asyncio.to_thread(lose, servers, own_path, database)
        try:
            bodies = [{"alerts": [alert(f"{mark}-{n}")]} for n in range(4)]
            url = process.url + WEBHOOK
            answers = await asyncio.gather(*(timed(client.post(url, json=body)) for body in bodies))
            probe, probe_seconds = await timed(client.get(f"{process.url}/readyz"))
            alive = await client.get(f"{process.url}/livez")
        finally:
            await asyncio.to_thread(bring_back)
        for answer, seconds in answers:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert seconds < ANSWER_SECONDS + SLACK, f"503 after {seconds:.1f} s"
        assert probe.status_code == 503
        assert probe_seconds < ANSWER_SECONDS + SLACK, f"/readyz answered after {probe_seconds:.1f} s"
        assert alive.status_code == 200, "a database that is away is no reason to restart the gateway"

        await process.ready()
        connection = await asyncpg.connect(database)
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM alerts a WHERE NOT EXISTS (SELECT FROM decisions d WHERE d.alert = a.id)"
            )
            == 0
        )
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM triggers t WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.id = t.id)"
            )
            == 0
        )
        for body in bodies:
            [decision] = process.push(*body["alerts"])
            assert decision["trigger_id"] is not None
        triggers = await connection.fetch("SELECT group_key, count(*) AS n FROM triggers GROUP BY group_key")
        assert [row["n"] for row in triggers] == [1] * 5
        counts = dict(await connection.fetch("SELECT fingerprint, count FROM alerts"))
        await connection.close()
        assert counts.keys() == {f"{mark}-{n}/0" for n in ("before", *range(4))}
        assert counts[f"{mark}-before/0"] == 1
        assert all(1 <= n <= 2 for n in counts.values()), "at least what was acknowledged, at most what was received"


async def test_readyz_and_webhooks_of_a_database_that_is_not_migrated(servers: TestServers, tmp_path: Path) -> None:
    process = Process(tmp_path, {"database_url": servers.fresh_database(), "redis_url": servers.valkey.url})
    async with running(process, status=503), plain.client(timeout=15) as client:
        probe = (await client.get(f"{process.url}/readyz")).json()
        assert probe["status"] == "failing"
        assert probe["checks"]["postgres"] == "not migrated: run `trigger-gateway migrate`"
        answer = await client.post(process.url + WEBHOOK, json={"alerts": [alert("m")]})
        assert answer.status_code == 503
        environment = {"database_url": process.variables["database_url"], "redis_url": servers.valkey.url}
        migrated = Process(tmp_path, environment, arguments=("migrate",))
        migrated.begin()
        assert migrated.server is not None
        assert await asyncio.to_thread(migrated.server.process.wait, 60) == 0
        await process.ready()
        assert [d["action"] for d in process.push(alert("m"))] == ["fire"]


# Valkey.


def hang_valkey(servers: TestServers, own_path: Path) -> Callable[[], Any]:
    pid = pid_of(own_path, "valkey")
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def kill_valkey(servers: TestServers, own_path: Path) -> Callable[[], Any]:
    os.kill(pid_of(own_path, "valkey"), signal.SIGKILL)
    process = servers.valkey._process
    assert process is not None
    process.wait(timeout=10)
    return servers.valkey.ensure_running


@pytest.mark.slow
@pytest.mark.parametrize("lose", [pytest.param(kill_valkey, id="stopped"), pytest.param(hang_valkey, id="hung")])
async def test_without_valkey_no_error_answers_no_second_trigger_and_no_added_second(
    servers: TestServers,
    own_path: Path,
    database: str,
    tmp_path: Path,
    lose: Callable[[TestServers, Path], Callable[[], Any]],
) -> None:
    number, groups = size(120, 5_000), 10
    async with gateway(servers, database, tmp_path) as process:
        storm = Storm([process.url], random.Random(seed()))
        mark = secrets.token_hex(4)
        bodies = [storm.body(groups, 3, mark) for _ in range(number)]
        await storm.rage(bodies, senders=4)
        usual, storm.slowest = storm.slowest, 0.0
        bring_back = lose(servers, own_path)
        try:
            await storm.rage(bodies, senders=4)
            during = storm.slowest
            degraded = process.get("/readyz")
        finally:
            await asyncio.to_thread(bring_back)
        print({"slowest_with_valkey": round(usual, 3), "slowest_without": round(during, 3), "requests": number})
        assert storm.statuses == {"202": 2 * number}, storm.statuses
        assert during - usual < ADDED_SECONDS, f"the slowest request took {during:.2f} s, {usual:.2f} s with Valkey"
        assert degraded["status"] == "degraded"
        assert degraded["checks"]["redis"].startswith("away (standalone: ")

        async def well() -> bool:
            return bool(process.get("/readyz")["status"] == "ok")

        await wait_until("Valkey to be used again", well, within=30)
        await storm.rage(bodies[:20], senders=4)
        assert storm.statuses == {"202": 2 * number + 20}
        found = await _counts(database)
        assert found == dict(storm.acknowledged), "nothing failed, so every count is exact"
        connection = await asyncpg.connect(database)
        triggers = await connection.fetch("SELECT count(*) AS n FROM triggers GROUP BY group_key")
        await connection.close()
        assert {row["n"] for row in triggers} == {1}


async def _counts(database: str) -> dict[str, int]:
    connection = await asyncpg.connect(database)
    try:
        rows = await connection.fetch("SELECT fingerprint, sum(count)::bigint AS n FROM alerts GROUP BY fingerprint")
    finally:
        await connection.close()
    return {row["fingerprint"]: row["n"] for row in rows}


async def test_a_gateway_that_starts_without_valkey_serves_degraded(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    process = Process(tmp_path, {"database_url": database, "redis_url": "redis://127.0.0.1:1/0"})
    async with running(process):
        assert process.get("/readyz")["status"] == "degraded"
        mark = secrets.token_hex(4)
        assert [d["action"] for d in process.push(alert(mark), alert(mark, instance="1"))] == ["fire", "fire"]
        assert [d["reason"] for d in process.push(alert(mark))] == ["duplicate"]
