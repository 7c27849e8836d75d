"""A batch that is not durable in time says which stage took how long, and what Postgres waited for."""

import asyncio
import logging
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import get_args

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from app.bootstrap.parts import Services
from app.intake.stages import Stage, Stages
from app.kit.clock import monotonic
from app.kit.db import backend_pid, open_engine
from app.kit.errors import NotDurable
from app.kit.metrics import Metrics
from demo.processes import wait_until
from tests.acceptance.world import World
from tests.integration.submitting import counts, direct, metric, model, run, scalar, submit, submit_within
from tests.integration.test_redis import Relay
from tests.servers import TestServers


class PostgresRelay(Relay):
    """A network in front of Postgres."""

    async def __aenter__(self) -> "PostgresRelay":
        await super().__aenter__()
        port = self._server.sockets[0].getsockname()[1]
        self.url = self._target._replace(
            netloc=f"{self._target.username}:{self._target.password}@127.0.0.1:{port}"
        ).geturl()
        return self


Stall = Callable[[Services, str], AbstractAsyncContextManager[None]]

_SLOW = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$"

_DEFERRED = (
    "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON alerts DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION slow()"
)


@asynccontextmanager
async def somebody_holds_a_lock(services: Services, database: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(database, server_settings={"application_name": "a person"})
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE groups IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def a_statement_is_slow(services: Services, database: str) -> AsyncIterator[None]:
    await run(services, _SLOW, "CREATE TRIGGER slow AFTER INSERT ON alerts FOR EACH STATEMENT EXECUTE FUNCTION slow()")
    yield


@asynccontextmanager
async def a_commit_is_slow(services: Services, database: str) -> AsyncIterator[None]:
    await run(services, _SLOW, _DEFERRED)
    yield


@pytest.mark.parametrize(
    ("stall", "words"),
    [
        pytest.param(
            somebody_holds_a_lock,
            r"lock \d\.\d s \(waits for a lock of pid \d+, a person, idle in transaction, in its transaction for \d+ s\)",
            id="lock",
        ),
        pytest.param(a_statement_is_slow, r"statement \d\.\d s \(Postgres waits for Timeout PgSleep\)", id="statement"),
        pytest.param(a_commit_is_slow, r"commit \d\.\d s \(Postgres waits for Timeout PgSleep\)", id="commit"),
    ],
)
async def test_a_stall_names_its_stage_and_its_cause(
    servers: TestServers, database: str, stall: Stall, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(servers, database) as world:
        services = world.services[0]
        async with stall(services, database):
            with pytest.raises(NotDurable) as given_up:
                await submit_within(services, 2.5, direct(world, "a", model=model()))
        assert re.fullmatch(rf"Postgres did not take the alerts in time: (.*, )?{words}(;.*)?", str(given_up.value))
    [late] = [r for r in caplog.records if r.message == "a batch was late"]
    assert late.levelno == logging.WARNING
    assert words.partition(" ")[0] in late.__dict__["stages"]


async def test_alerts_that_wait_behind_a_stall_name_it_too(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        services = world.services[0]
        async with somebody_holds_a_lock(services, database):
            first = asyncio.create_task(submit_within(services, 2.5, direct(world, "a", model=model())))
            await asyncio.wait([first], timeout=0.1)
            with pytest.raises(NotDurable) as second:
                await submit_within(services, 2.5, direct(world, "b", model=model()))
            await asyncio.gather(first, return_exceptions=True)
    assert re.search(
        r"in time: queue [2-9]\.\d s, behind a batch with .*lock \d\.\d s \(waits for a lock of pid", str(second.value)
    )


async def test_a_connection_that_cannot_be_opened_is_the_stage_pool(servers: TestServers, database: str) -> None:
    async with PostgresRelay(database) as relay, World(servers, relay.url) as world:
        relay.flowing.clear()
        with pytest.raises(NotDurable, match=r"pool \d\.\d s \(1 of 2 connections are in use or being opened\)"):
            await submit_within(world.services[0], 2.5, direct(world, "a", model=model()))
        relay.flowing.set()


async def test_a_sender_reads_the_stage_in_the_problem(servers: TestServers, database: str) -> None:
    async with World(servers, database, intake_timeout=2.5) as world:
        async with somebody_holds_a_lock(world.services[0], database):
            answer = await world.post("/api/v1/webhooks/alertmanager", {"alerts": [world.alert(model=model()).body()]})
        assert answer.status_code == 503
        assert re.search(
            r"in time: .*lock \d\.\d s \(waits for a lock .*\).*\. Send them again\.$", answer.json()["detail"]
        )


async def test_a_gateway_that_stands_still_says_that_it_was_not_postgres(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        services = world.services[0]
        async with somebody_holds_a_lock(services, database):
            waiting = asyncio.create_task(submit_within(services, 2.5, direct(world, "a", model=model())))
            await asyncio.wait([waiting], timeout=0.1)
            until = monotonic() + 2.5
            while monotonic() < until:
                pass  # Nothing else of this process runs.
            with pytest.raises(NotDurable, match=r"; the gateway itself stood still for [1-9]\.\d s of it$"):
                await waiting


async def test_every_stage_is_measured(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        services, alert = world.services[0], direct(world, "a", model=model())
        for _ in range(3):  # Decided in two transactions, and then counted by one statement.
            await submit(services, alert)
        value = services.core.metrics.registry.get_sample_value
        counts = {stage: value("gateway_intake_seconds_count", {"stage": stage}) for stage in get_args(Stage)}
        expected = {"queue": 3, "memory": 3, "decide": 3, "pool": 3, "lock": 2, "statement": 3, "commit": 2}
        assert counts == expected


@contextmanager
def standing_still(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


_OURS = (
    "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'trigger-gateway'"
)


async def test_a_connection_that_stands_still_before_its_commit_costs_neither_a_503_nor_a_second_count(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        services, alert = world.services[0], direct(world, "a", model=model())
        await submit(services, alert)
        with standing_still(await scalar(services, _OURS)):
            [decision] = await submit(services, replace(alert, severity="warning"))
        assert (decision.decision.action, decision.decision.reason) == ("suppress", "duplicate")
        assert metric(services, "gateway_batch_retries_total") == 1
        assert (await counts(services)) == {"a": 2}


async def test_a_commit_that_is_not_answered_is_not_tried_again(servers: TestServers, database: str) -> None:
    """Nobody knows whether it is written: the sender comes again."""
    async with World(servers, database) as world:
        services = world.services[0]
        await run(services, _SLOW.replace("pg_sleep(3)", "pg_sleep(7)"), _DEFERRED)
        await run(
            services, f'ALTER DATABASE "{database.rsplit("/", 1)[1].partition("?")[0]}" SET statement_timeout = 0'
        )
        with pytest.raises(NotDurable, match=r"Postgres does not answer: .*commit 6\.\d s"):
            await submit(services, direct(world, "a", model=model()))
        assert metric(services, "gateway_batch_retries_total") == 0


@asynccontextmanager
async def two_connections(database: str) -> AsyncIterator[tuple[PostgresRelay, AsyncEngine, Stages]]:
    """A batch's connections, behind a network that can hang, and its stages. Both connections are open, and free."""
    async with PostgresRelay(database) as relay:
        engine = open_engine(relay.url, pool_size=2)
        async with engine.connect(), engine.connect():
            pass
        stages = Stages(engine, Metrics())
        stages.begin(monotonic())
        yield relay, engine, stages
        stages.end()
        await engine.dispose()


def uses(engine: AsyncEngine, in_use: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many connections are in use; the question takes one of them."""
    pool = engine.pool
    assert isinstance(pool, QueuePool)

    async def checked_out() -> bool:
        return pool.checkedout() == in_use

    return checked_out


async def test_a_closed_connection_gives_no_cause_and_the_next_stage_gets_one(database: str) -> None:
    async with two_connections(database) as (_, engine, stages):
        began = monotonic()
        async with engine.connect() as batch:
            pass
        stages.enter("statement", batch)
        await wait_until("the first question", lambda: _done(monotonic() - began > 1.5), within=30, interval=0.05)
        async with engine.connect() as batch:
            stages.enter("commit", batch)
            await wait_until(
                "its cause", lambda: _done("stands still)" in stages.explain(began)), within=30, interval=0.05
            )
        words = stages.explain(began)
    assert re.search(r"statement \d\.\d s, commit \d\.\d s \(Postgres waits for the gateway", words), words


async def _done(is_so: bool) -> bool:
    return is_so


async def test_a_connection_that_is_closed_during_the_question_gives_no_cause(database: str) -> None:
    async with two_connections(database) as (relay, engine, stages):
        began = monotonic()
        async with engine.connect() as batch:
            stages.enter("statement", batch)
            relay.flowing.clear()
            await wait_until("the question", uses(engine, 2), within=30, interval=0.01)
            await batch.invalidate()
        await wait_until("its end", uses(engine, 0), within=30, interval=0.01)
        words = stages.explain(began)
        relay.flowing.set()
    assert re.search(r"statement \d\.\d s$", words), words


async def test_a_question_that_is_given_up_takes_its_connection_with_it(database: str) -> None:
    """Its request to cancel could hit the next statement on that connection: a batch that is well."""
    async with two_connections(database) as (relay, engine, stages), engine.connect() as batch:
        async with engine.connect() as spare:
            pid = backend_pid(spare)
        stages.enter("statement", batch)
        relay.flowing.clear()
        await wait_until("the question", uses(engine, 2), within=30, interval=0.01)
        stages.end()
        await wait_until("its end", uses(engine, 1), within=30, interval=0.01)
        relay.flowing.set()
        async with engine.connect() as following:
            assert backend_pid(following) != pid
