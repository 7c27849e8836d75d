"""A body with many alerts is decided in parts, so that it does not hold up the bodies of others."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.integration.api import ALERTMANAGER, notification, opened, problem, token_of, webhook_alert, word
from tests.integration.submitting import scalar
from tests.integration.test_body_budget import sent
from tests.servers import TestServers

GROUPS, EACH = 40, 30  # Three parts: sixteen groups, sixteen, and eight.
FIRST_PART = 16 * EACH


def large(mark: str) -> list[Any]:
    """Alerts whose groups stand mixed."""
    return [webhook_alert(model=f"{mark}-{n % GROUPS}", place=str(n)) for n in range(GROUPS * EACH)]


@asynccontextmanager
async def groups_locked(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Nothing is written until this ends."""
    holder = await asyncpg.connect(database)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE groups IN ACCESS EXCLUSIVE MODE")
            yield holder
    finally:
        await holder.close()


async def until_it_waits(holder: asyncpg.Connection) -> None:
    async with asyncio.timeout(20):
        while not await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"):  # noqa: ASYNC110 (Postgres tells nobody.)
            await asyncio.sleep(0.01)


async def test_its_answer_stands_in_its_order_and_its_groups_fire_as_a_whole(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        mark = word()
        alerts: list[object] = [*large(mark)]
        alerts.insert(700, {"labels": "none"})
        end = {"status": "resolved", "endsAt": world.clock.now().isoformat(), "fingerprint": "other"}
        alerts.append(webhook_alert(model=f"{mark}-0") | end)
        answer = await world.post(ALERTMANAGER, notification(*alerts))
        assert answer.status_code == 202, answer.text
        decisions = answer.json()["decisions"]
        asked = [alert["fingerprint"] for alert in alerts if isinstance(alert, dict) and "fingerprint" in alert]
        assert [each["fingerprint"] for each in decisions] == asked
        assert [each["index"] for each in answer.json()["quarantined"]] == [700]
        assert {(each["action"], each["reason"]) for each in decisions[:-1]} == {("fire", "new_alert")}
        assert decisions[-1]["action"] == "ignore"
        triggers = {each["group"]["model"]: set[str]() for each in decisions}
        for each in decisions[:-1]:
            triggers[each["group"]["model"]].add(each["trigger_id"])
        assert len(triggers) == GROUPS
        assert all(len(found) == 1 for found in triggers.values())
        assert await scalar(world.services[0], "SELECT count(*) FROM triggers") == GROUPS
        again = await world.post(ALERTMANAGER, notification(*alerts))
        assert {each["reason"] for each in again.json()["decisions"][:-1]} == {"duplicate"}
        assert (
            await scalar(world.services[0], "SELECT sum(count) FROM alerts WHERE fingerprint <> 'other'")
            == 2 * GROUPS * EACH
        )


def unreadable(mark: str) -> list[Any]:
    """One alert among entries that are none."""
    return [webhook_alert(model=mark), *([1] * 1200)]


@pytest.mark.parametrize("body", [large, unreadable])
async def test_small_notifications_are_answered_while_a_large_one_is_decided(
    servers: TestServers, database: str, body: Callable[[str], list[Any]]
) -> None:
    async with opened(servers, database) as world:
        ended: list[str] = []

        async def post(name: str, *alerts: object) -> None:
            answer = await world.post(ALERTMANAGER, notification(*alerts))
            assert answer.status_code == 202, answer.text
            ended.append(name)

        async with groups_locked(database) as holder:
            sending = [asyncio.create_task(post("large", *body(word())))]
            await until_it_waits(holder)
            sending += [asyncio.create_task(post("small", webhook_alert(model=word()))) for _ in range(3)]
            done, _ = await asyncio.wait(sending, timeout=0.2)
            assert not done
        await asyncio.gather(*sending)
        assert ended == ["small"] * 3 + ["large"]


async def test_what_cannot_be_read_is_told_and_kept_though_it_stands_in_many_parts(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, quarantine_rows=2_000) as world:
        entries = [webhook_alert(model=word()), *range(700), webhook_alert(model=word()), *range(700, 1_400)]
        answer = await world.post(ALERTMANAGER, notification(*entries))
        assert answer.status_code == 202, answer.text
        assert [each["action"] for each in answer.json()["decisions"]] == ["fire", "fire"]
        bad = [at for at, entry in enumerate(entries) if isinstance(entry, int)]
        assert [each["index"] for each in answer.json()["quarantined"]] == bad
        assert await scalar(world.services[0], "SELECT count(*) FROM quarantine") == len(bad)
        assert await scalar(world.services[0], "SELECT count(*) FROM alerts") == 2


async def test_the_bodies_of_one_token_leave_room_for_those_of_another(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    """Large bodies and those with few alerts have one share, and a first body has no room beyond it."""
    token, other = token_of(tmp_path, "ingest"), token_of(tmp_path, "ingest")
    async with opened(servers, database, tokens_file=tmp_path / "tokens", intake_queue=2_000) as world:

        async def post(headers: dict[str, str], *alerts: object) -> httpx.Response:
            body = json.dumps(notification(*alerts)).encode()
            return await world.clients[0].post(ALERTMANAGER, content=body, headers=headers)

        async with groups_locked(database) as holder:
            sending = [asyncio.create_task(post(other, webhook_alert(model=word())))]
            await until_it_waits(holder)
            mark, batcher = word(), world.services[0].intake.batcher
            group = [webhook_alert(model=mark, place=str(n)) for n in range(900)]
            sending.append(asyncio.create_task(post(token, *group)))
            async with asyncio.timeout(20):
                while not batcher.stuck(-1):  # noqa: ASYNC110 (nothing tells that a job waits)
                    await asyncio.sleep(0.01)
            more = asyncio.create_task(post(token, webhook_alert(model=word()), *([1] * 3_000)))
            await asyncio.wait({more}, timeout=2)
            victim = asyncio.create_task(post(other, webhook_alert(model=word())))
            done, _ = await asyncio.wait({victim}, timeout=0.3)
            assert not done, victim.result().text
        assert [answer.status_code for answer in await asyncio.gather(*sending, victim)] == [202] * 3
        assert "of one sender" in problem(await more, 503, "not_durable")["detail"]


async def test_of_a_sender_that_goes_away_only_the_part_under_way_is_written(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    token = token_of(tmp_path, "admin")
    async with opened(servers, database, tokens_file=tmp_path / "tokens") as world:
        world.clients[0].headers.update(token)
        gone = asyncio.Event()
        body = json.dumps(notification(*large(word()))).encode()
        async with groups_locked(database) as holder:
            sending = asyncio.create_task(sent(world, body, gone))
            await until_it_waits(holder)
            gone.set()
            async with asyncio.timeout(7):  # It would wait for 8 s.
                assert await sending == 400  # Nobody reads it.
        answer: httpx.Response = await world.post(ALERTMANAGER, notification(webhook_alert(model=word())))
        assert answer.status_code == 202
        assert await scalar(world.services[0], "SELECT count(*) FROM alerts") == FIRST_PART + 1


async def test_a_large_body_that_postgres_does_not_take_in_time_is_refused_as_a_whole_and_may_come_again(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, intake_timeout=1.0) as world:
        alerts = large(word())
        async with groups_locked(database):
            answer = await world.post(ALERTMANAGER, notification(*alerts))
            assert (answer.status_code, answer.json()["code"]) == (503, "not_durable")
        async with asyncio.timeout(60):  # A busy machine needs several tries, and each one decides some parts.
            while (answer := await world.post(ALERTMANAGER, notification(*alerts))).status_code == 503:
                pass
        assert answer.status_code == 202
        assert len(answer.json()["decisions"]) == len(alerts)
        assert await scalar(world.services[0], "SELECT count(*) FROM alerts") == len(alerts)
        assert await scalar(world.services[0], "SELECT count(*) FROM triggers") == GROUPS
