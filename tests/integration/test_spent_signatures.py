"""A signature comes free again only when it is sure that nothing was written for its request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.acceptance.world import World
from tests.integration.api import ALERTMANAGER, NATIVE, notification, opened, problem, webhook_alert, word
from tests.integration.test_api_signatures import SECRETS, body_of, send, signed
from tests.integration.test_body_budget import sent
from tests.integration.test_large_bodies import groups_locked, until_it_waits
from tests.servers import TestServers

_LOSE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""


async def until_written(world: World, model: str) -> None:
    async with asyncio.timeout(20):
        while not await world.alerts(label=f"model={model}"):  # noqa: ASYNC110 (nobody is answered any more)
            await asyncio.sleep(0.01)


async def is_spent(world: World, model: str, body: bytes, headers: dict[str, str]) -> None:
    problem(await send(world, NATIVE, body, headers), 401, "bad_signature")
    [alert] = await world.alerts(label=f"model={model}")
    assert alert["count"] == 1


@asynccontextmanager
async def hung_up(
    world: World, database: str, body: bytes, headers: dict[str, str]
) -> AsyncIterator[asyncpg.Connection]:
    """The sender has hung up during the commit, which waits for a lock of this connection."""
    gone = asyncio.Event()
    async with groups_locked(database) as holder:
        sending = asyncio.create_task(sent(world, body, gone, NATIVE, headers))
        await until_it_waits(holder)
        gone.set()
        assert await sending == 400
        yield holder


async def test_who_hangs_up_during_the_commit_does_not_get_its_signature_back(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, **SECRETS, redis_timeout=5.0) as world:
        model = word()
        body = body_of(NATIVE, model)
        headers = signed(world, NATIVE, body)
        async with hung_up(world, database, body, headers):
            pass
        await until_written(world, model)
        await is_spent(world, model, body, headers)


async def test_who_is_refused_during_the_commit_does_not_get_its_signature_back_when_it_ends_well(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, **SECRETS, redis_timeout=5.0, intake_timeout=0.5) as world:
        model = word()
        body = body_of(NATIVE, model)
        headers = signed(world, NATIVE, body)
        async with groups_locked(database):
            problem(await send(world, NATIVE, body, headers), 503, "not_durable")
        await until_written(world, model)
        await is_spent(world, model, body, headers)


async def test_who_hangs_up_during_a_commit_that_fails_may_come_again(servers: TestServers, database: str) -> None:
    async with opened(servers, database, **SECRETS, redis_timeout=5.0) as world:
        body = body_of(NATIVE, word())
        headers = signed(world, NATIVE, body)
        async with hung_up(world, database, body, headers) as holder:
            problem(await send(world, NATIVE, body, headers), 401, "bad_signature")
            await holder.fetch(_LOSE)
        async with asyncio.timeout(20):
            while (answer := await send(world, NATIVE, body, headers)).status_code == 401:  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0.01)
        assert (answer.status_code, answer.json()["decisions"][0]["action"]) == (202, "fire")


async def test_who_is_told_that_a_commit_failed_may_come_again(servers: TestServers, database: str) -> None:
    async with opened(servers, database, **SECRETS, redis_timeout=5.0) as world:
        body = body_of(NATIVE, word())
        headers = signed(world, NATIVE, body)
        async with groups_locked(database) as holder:
            sending = asyncio.create_task(send(world, NATIVE, body, headers))
            await until_it_waits(holder)
            await holder.fetch(_LOSE)
            problem(await sending, 503, "not_durable")
        assert (await send(world, NATIVE, body, headers)).status_code == 202


async def test_who_hangs_up_in_the_queue_may_come_again(servers: TestServers, database: str) -> None:
    async with opened(servers, database, **SECRETS, redis_timeout=5.0) as world:
        gone = asyncio.Event()
        body = body_of(NATIVE, word())
        headers = signed(world, NATIVE, body)
        async with groups_locked(database) as holder:
            first = asyncio.create_task(world.post(ALERTMANAGER, notification(webhook_alert(model=word()))))
            await until_it_waits(holder)
            sending = asyncio.create_task(sent(world, body, gone, NATIVE, headers))
            gone.set()
            assert await sending == 400
        assert (await first).status_code == 202
        assert (await send(world, NATIVE, body, headers)).status_code == 202
