"""A request of a person that meets a lock for longer than the lock_timeout is tried again, not answered 503."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx

from app.kit.db import transaction
from app.notices.model import Notice, Severity
from tests.acceptance import promotions
from tests.acceptance.world import World
from tests.fakes.clock import ManualClock
from tests.fakes.pagerduty import KEY, FakePagerDuty
from tests.integration.api import POLICY, opened
from tests.integration.pruned import sql
from tests.servers import TestServers

RECEIVERS = f'receivers: [{{name: oncall, pagerduty: {{routing_key: {KEY}, url: "{FakePagerDuty.url}"}}}}]\n'
SWITCHES = "deadman: [" + ", ".join(f"{{name: {name}, expect: heartbeat, every: 1d}}" for name in "abc") + "]\n"


@asynccontextmanager
async def locked(database: str, table: str, most: int) -> AsyncIterator[None]:
    """Nobody can write the table until each of `most` transactions has waited for its lock_timeout once."""
    async with sql(database) as holder, sql(database) as watcher:
        held = holder.transaction()
        await held.start()
        await holder.execute(f"LOCK TABLE {table} IN SHARE MODE")

        async def release() -> None:
            first: set[Any] = set()
            while len(first) < most:
                first |= await waiting(watcher)
            while first & await waiting(watcher):
                pass
            await held.rollback()

        releasing = asyncio.create_task(release())
        yield
        await asyncio.wait_for(releasing, 20)


async def waiting(connection: asyncpg.Connection) -> set[Any]:
    """The statements that wait for a lock at this moment: who, and since when."""
    await asyncio.sleep(0.02)
    statement = """
        SELECT pid, query_start FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
    """
    return {(row["pid"], row["query_start"]) for row in await connection.fetch(statement)}


async def notice(world: World, key: str, *, died: bool = False) -> str:
    """The id of an open incident; `died`: its receiver refused it for good."""
    services = world.services[0]
    async with transaction(services.core.engine) as conn:
        found = Notice(key, "test", Severity.INFO, "title", "detail")
        await services.notices.requests._incidents.open(conn, ["oncall"] if died else [], found, world.clock.now())
    async with sql(world.database) as connection:
        await connection.execute("UPDATE outbox SET state = 'dead' WHERE kind = 'notice'")
        return str(await connection.fetchval("SELECT id FROM notices WHERE key = $1", key))


async def test_what_people_ask_of_switches_and_incidents_outlives_a_lock(servers: TestServers, database: str) -> None:
    clock = ManualClock()
    others: Any = {FakePagerDuty.host: FakePagerDuty(clock)}
    policy = POLICY + RECEIVERS + SWITCHES
    async with opened(servers, database, policy=policy, clock=clock, others=others) as world:
        await world.settle()
        await world.post("/api/v1/deadman/b/pause", {})
        ended, died = await notice(world, "ended"), await notice(world, "died", died=True)
        asked = {
            "/api/v1/deadman/a/pause": {"reason": "maintenance"},
            "/api/v1/deadman/b/resume": {},
            "/api/v1/deadman/c/forget": {},
            f"/api/v1/notices/{ended}/resolve": {"reason": "seen to"},
            f"/api/v1/notices/{died}/redrive": {},
            "/api/v1/routes/once/pause": {"reason": "maintenance"},
            "/api/v1/routes/drift/reset": {"group": {"model": "churn"}},
        }
        await world.push(world.alert("Drift", model="churn"))
        async with locked(database, "audit", len(asked)):
            answers = await asyncio.gather(*(world.post(path, body) for path, body in asked.items()))
        assert {path: answer.status_code for path, answer in zip(asked, answers, strict=True)} == dict.fromkeys(
            asked, 200
        )
        async with sql(database) as connection:
            assert await connection.fetchval("SELECT count(*) FROM audit") == len(asked) + 1
        flips = (await world.clients[0].get("/metrics")).text
        assert 'gateway_deadman_flips_total{state="paused"} 2.0' in flips, "each flip is counted once"


async def test_a_promotion_outlives_a_lock(servers: TestServers, database: str) -> None:
    async with promotions.opened(servers, database) as gates:
        version = gates.mlflow.add("churn", {"f1": 0.85})
        answer = await while_locked(database, "promotions", gates.ask(version))
        assert answer.status_code == 200, answer.text
        back = f"/api/v1/promotions/{answer.json()['id']}/rollback"
        answer = await while_locked(database, "promotions", gates.world.post(back, {}))
        assert answer.status_code == 200, answer.text
        worse = gates.mlflow.add("churn", {"f1": 0.1})
        assert (await while_locked(database, "notices", gates.ask(worse))).status_code == 409
        counted = (await gates.world.clients[0].get("/metrics")).text
        for state in ("promoted", "rolled_back", "blocked"):
            assert f'gateway_promotions_total{{state="{state}"}} 1.0' in counted


async def while_locked(database: str, table: str, asking: Any) -> httpx.Response:
    async with locked(database, table, 1):
        answer: httpx.Response = await asking
    return answer
