"""A pause mutes a route at once, on every replica; what still fires at its end is decided then."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import asyncpg

from tests.acceptance.world import World, policy, reasons
from tests.integration.api import problem
from tests.servers import TestServers
from tests.sizes import seed, size

WHY = "the feature store is rebuilt"


async def pause(world: World, route: str = "accuracy", *, to: int = 0, **body: Any) -> Any:
    return await world.post(f"/api/v1/routes/{route}/pause", {"reason": WHY, **body}, to=to)


async def lift(world: World, route: str = "accuracy", *, to: int = 0) -> Any:
    return await world.clients[to].delete(f"/api/v1/routes/{route}/pause")


async def fired(world: World) -> int:
    """What stands in the books as fired at this moment."""
    connection = await asyncpg.connect(world.database)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM triggers WHERE fired_at IS NOT NULL"))
    finally:
        await connection.close()


async def test_nothing_fires_after_the_answer_whatever_two_replicas_are_deciding(
    servers: TestServers, database: str
) -> None:
    chance = random.Random(seed())
    between = []
    async with World(servers, database, policy("debounce: 10m"), replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        for turn in range(size(4, 60)):
            before = await fired(world)
            held = [world.alert(model=f"held{turn}-{n}") for n in range(6)]
            await world.push(*held)
            await world.pass_by(seconds=1)
            others = [world.alert(model=f"other{turn}-{n}") for n in range(6)]
            await world.push(*others)
            await world.pass_by(minutes=9, seconds=57, steps=10)
            world.clock.pass_by(timedelta(seconds=3))  # Every repeat, and every wake, fires from now on.

            async def repeat(n: int, alert: Any) -> None:
                for _ in range(chance.randrange(2000)):
                    await asyncio.sleep(0)
                await world.push(alert, to=n % 2)

            storm = [asyncio.create_task(repeat(n, alert)) for n, alert in enumerate([*held, *others])]
            wakes = [asyncio.create_task(s.loop("waker").step()) for s in world.services if turn % 2]
            for _ in range(chance.randrange(1000)):
                await asyncio.sleep(0)
            assert (await pause(world, to=turn % 2)).status_code == 200
            answered = await fired(world)
            await asyncio.gather(*storm, *wakes)
            await world.settle()
            assert await fired(world) == answered
            between.append((answered - before, 12))
            assert (await lift(world, to=(turn + 1) % 2)).status_code == 200
            await world.settle()
            assert await fired(world) - before == 12, "what was muted fires when the pause is lifted"
    print("fired before the answer, of:", between)


async def test_a_pause_reaches_what_redis_remembers(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy(cooldown="1h"), replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        await world.settle()
        await world.pass_by(minutes=40, steps=4)
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        assert (await pause(world, to=1)).status_code == 200
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")], (
            "behind the trigger that cools, as before"
        )
        world.clock.pass_by(timedelta(hours=1))
        assert reasons(await world.push(alert)) == [("suppress", "muted")]
        assert reasons(await world.push(alert, to=1)) == [("suppress", "muted")]
        assert (await lift(world)).status_code == 200
        await world.services[1].loop("waker").step()
        await world.settle()
        assert len(world.airflow.posts) == 2


async def test_a_hold_that_ends_in_a_pause_is_decided_again_at_its_end(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        until = (world.clock.now() + timedelta(hours=2)).isoformat()
        paused = (await pause(world, until=until)).json()
        assert (paused["route"], paused["reason"], paused["by"]) == ("accuracy", WHY, "anonymous")
        assert (await world.trigger())["state"] == "held"
        await world.pass_by(minutes=10)
        cancelled = await world.trigger()
        assert (cancelled["state"], f"anonymous has paused it: {WHY}" in cancelled["detail"]) == ("cancelled", True)
        await world.pass_by(hours=1, minutes=49)
        assert world.airflow.posts == []
        await world.pass_by(minutes=1)
        assert len(world.airflow.posts) == 1


async def test_a_pause_is_shown_and_explained(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        [shown] = (await world.get("/api/v1/routes"))["items"]
        assert (shown["pause"], shown["muted"]) == (None, None)
        until = (world.clock.now() + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        await pause(world, "-")
        await pause(world, until=until)
        alert = world.alert(model="churn")
        [decision] = await world.push(alert)
        assert (decision["reason"], decision["until"]) == ("muted", None)
        assert decision["detail"] == f"muted, without a known end: anonymous has paused it: {WHY}"
        [shown] = (await world.get("/api/v1/routes"))["items"]
        assert (shown["pause"]["until"], shown["muted"]["until"]) == (until, None)
        explained = await world.explain(alert.body()["fingerprint"])
        assert explained["now"]["reason"] == "muted"
        assert explained["would_fire"].startswith("The mute of its route must end")
        assert (await lift(world, "-")).status_code == 200
        assert (await world.explain(alert.body()["fingerprint"]))["now"]["until"] == until
        await world.settle()
        assert world.airflow.posts == []
        await world.pass_by(hours=2)
        assert len(world.airflow.posts) == 1


async def test_a_pause_outlives_every_process(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await pause(world)
        await world.restart(policy())
        await world.flush_redis()
        assert reasons(await world.push(world.alert(model="churn"))) == [("suppress", "muted")]
        body = {"route": "accuracy", "group": {"model": "churn"}, "reason": "a person asks all the same"}
        assert (await world.post("/api/v1/triggers", body)).status_code == 201


async def test_what_cannot_be_paused_is_told(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        problem(await pause(world, "nothing"), 404, "not_found")
        problem(await lift(world), 404, "not_found")
        problem(await lift(world, "-"), 404, "not_found")
        problem(await pause(world, until=world.clock.now().isoformat()), 422, "invalid")
        problem(await pause(world, until="tomorrow"), 422, "invalid")
        problem(await pause(world, reason=""), 422, "invalid")
        problem(await pause(world, reason="\x00"), 422, "invalid")
        problem(await pause(world, reason="\ud800"), 422, "invalid")
        soon = (world.clock.now() + timedelta(minutes=1)).isoformat()
        assert (await pause(world, until=soon)).status_code == 200
        world.clock.pass_by(timedelta(minutes=1))
        problem(await lift(world), 404, "not_found")
        connection = await asyncpg.connect(world.database)
        rows = await connection.fetch("SELECT caller, action, subject FROM audit")
        await connection.close()
        assert [tuple(row.values()) for row in rows] == [("anonymous", "pause", "route accuracy")]
