"""Settings that no other test would miss: each changes what the gateway does."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
import structlog
from redis import asyncio as redis
from typer.testing import CliRunner

from app.cli.main import app as cli
from app.kit.clock import monotonic
from tests.acceptance.test_telling import Told
from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeAirflow
from tests.integration.test_redis import Relay
from tests.servers import TestServers


@pytest.mark.parametrize(("window", "alerts"), [(120, 2), (600, 1)])
async def test_reorder_window_says_which_firings_are_one_alert(
    servers: TestServers, database: str, window: int, alerts: int
) -> None:
    async with World(servers, database, reorder_window=window) as world:
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.push(alert.moved(timedelta(minutes=5)))
        assert len(await world.alerts()) == alerts


@asynccontextmanager
async def nothing_is_written(database: str) -> AsyncIterator[None]:
    """Somebody holds the table of the groups."""
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE groups IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def post(world: World, model: str) -> httpx.Response:
    body = {"alert_id": "ModelAccuracyLow", "severity": "critical", "timestamp": "2026-11-23T11:59:00Z"}
    return await world.post("/api/v1/alerts", body | {"labels": {"model": model}})


async def test_intake_timeout_is_the_longest_that_a_sender_waits(servers: TestServers, database: str) -> None:
    async with World(servers, database, intake_timeout=0.2) as world, nothing_is_written(database):
        began = monotonic()
        answer = await post(world, "churn")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_durable")
        assert monotonic() - began < 7, "the default is 8 s"


async def test_intake_queue_is_how_many_alerts_wait(servers: TestServers, database: str) -> None:
    async with World(servers, database, intake_queue=1, intake_timeout=1.0) as world, nothing_is_written(database):
        answers = await asyncio.gather(*(post(world, f"m{n}") for n in range(6)))
        assert {a.status_code for a in answers} == {503}
        assert any("too many alerts wait" in a.json()["detail"].lower() for a in answers)


async def test_memory_ttl_is_how_long_redis_remembers(servers: TestServers, database: str) -> None:
    async with World(servers, database, memory_ttl=7.0) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        names = list(await world.redis_content())
        assert names
        async with redis.Redis.from_url(servers.valkey.url) as valkey:
            for name in names:
                assert 0 < await valkey.pttl(name) <= 7000


async def test_redis_timeout_is_the_longest_wait_for_redis(servers: TestServers, database: str) -> None:
    async with (
        Relay(servers.valkey.url) as relay,
        World(servers, database, redis_url=relay.url, redis_timeout=1.0) as world,
    ):
        alert = world.alert(model="churn")
        await world.push(alert)
        relay.flowing.clear()
        began = monotonic()
        await world.push(alert)
        assert monotonic() - began >= 1.0, "the default is 0.2 s"
        relay.flowing.set()


class Silent(FakeAirflow):
    """An Airflow that takes every request and never answers."""

    def transport(self) -> httpx.AsyncBaseTransport:
        return _Silence()


class _Silence(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        del request
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_delivery_timeout_ends_an_attempt_that_gets_no_answer(servers: TestServers, database: str) -> None:
    async with World(servers, database, delivery_timeout=0.2) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
    silent = Silent(world.clock)
    text = policy().replace("airflow.test", "silent.test")
    world = World(servers, database, text, clock=world.clock, others={"silent.test": silent}, delivery_timeout=0.2)
    async with world, asyncio.timeout(20):  # The default is 30 s.
        await world.services[0].loop("relay").step()
        [attempt] = (await world.trigger())["attempts"]
        assert attempt["code"] == "timeout"


async def test_delivery_parallel_is_how_many_attempts_are_made_at_once(servers: TestServers, database: str) -> None:
    async with World(servers, database, delivery_parallel=2) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(*(world.alert(model=f"m{n}") for n in range(5)))
        for posts in (2, 4, 5):
            await world.services[0].loop("relay").step()
            assert len(world.airflow.posts) == posts


async def test_retry_max_is_the_longest_pause_between_attempts(servers: TestServers, database: str) -> None:
    async with World(servers, database, retry_max=2.0) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.down = True
        await world.push(world.alert(model="churn"))
        await world.pass_by(seconds=60, steps=30)
        assert sum(a["count"] for a in (await world.trigger())["attempts"]) >= 25


async def test_paused_retry_is_how_often_a_paused_dag_is_looked_at(servers: TestServers, database: str) -> None:
    async with World(servers, database, paused_retry=100.0) as world:
        world.airflow.add_dag("retrain_model", paused=True)
        await world.push(world.alert(model="churn"))
        await world.settle()
        world.airflow.unpause("retrain_model")
        await world.pass_by(seconds=90, steps=9)
        assert world.airflow.posts == [], "the default is 15 s"
        await world.pass_by(seconds=10)
        assert len(world.airflow.posts) == 1


async def test_follow_interval_is_how_often_an_open_run_is_read(servers: TestServers, database: str) -> None:
    async with World(servers, database, follow_interval=300.0) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(seconds=2)  # It is read a first time soon after it was taken.
        [(_, run)] = world.airflow.runs
        world.airflow.finish(run, "success")
        await world.pass_by(seconds=240, steps=8)
        assert (await world.trigger())["state"] != "succeeded", "the default is 10 s"
        await world.pass_by(seconds=60)
        assert (await world.trigger())["state"] == "succeeded"


async def test_name_is_what_receivers_know_the_gateway_by(servers: TestServers, database: str) -> None:
    case = Told(servers, database, "failed", name="staging")
    async with case.world as world:
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=30, steps=5)
        [incident] = case.pagerduty.open()
        assert incident.key.startswith("staging/run_failed:accuracy:")


@pytest.mark.parametrize(("seconds", "status"), [(0.0, 503), (60.0, 200)])
async def test_probe_cache_is_how_long_the_answer_of_a_probe_is_kept(
    servers: TestServers, database: str, seconds: float, status: int
) -> None:
    switch = "deadman: [{name: alive, expect: heartbeat, every: 10s, grace: 5s}]\n"
    async with World(servers, database, policy() + switch, probe_cache=seconds) as world:
        await world.settle()
        await world.pass_by(seconds=14)
        assert (await world.clients[0].get("/health/deadman")).status_code == 200
        await world.pass_by(seconds=30)  # It is down now.
        assert (await world.clients[0].get("/health/deadman")).status_code == status


async def test_watchdog_interval_is_the_time_between_two_pings(servers: TestServers, database: str) -> None:
    async with World(servers, database, watchdog_url="http://outside.test/", watchdog_interval=7.0) as world:
        assert world.services[0].loop("watchman").idle == 7.0


@pytest.fixture
def logging_as_before() -> Any:
    """What a command makes of the process' logging is put back."""
    root = logging.getLogger()
    kept = (root.level, root.handlers[:])
    yield
    root.setLevel(kept[0])
    root.handlers[:] = kept[1]
    structlog.reset_defaults()


@pytest.mark.parametrize("level", ["debug", "error"])
@pytest.mark.usefixtures("logging_as_before")
def test_log_level_is_that_of_every_log(level: str, tmp_path: Any) -> None:
    CliRunner().invoke(cli, ["migrate"], env=environment(tmp_path, GATEWAY_LOG_LEVEL=level))
    assert logging.getLevelName(logging.getLogger().level) == level.upper()


@pytest.mark.parametrize("value", ["true", "false"])
@pytest.mark.usefixtures("logging_as_before")
def test_log_json_chooses_the_form_of_a_line(value: str, tmp_path: Any) -> None:
    CliRunner().invoke(cli, ["migrate"], env=environment(tmp_path, GATEWAY_LOG_JSON=value))
    [handler] = logging.getLogger().handlers
    line = handler.format(logging.LogRecord("a", logging.WARNING, "f", 1, "said", None, None))
    assert line.startswith("{") is (value == "true"), line


def environment(folder: Any, **more: str) -> dict[str, str]:
    """Of a command that comes no further than to its logging: nobody listens there."""
    return {"GATEWAY_DATA_DIR": str(folder), "GATEWAY_DATABASE_URL": "postgresql://127.0.0.1:1/none"} | more
