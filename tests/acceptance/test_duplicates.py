"""One DAG run a group and cooldown, however often, from wherever and in whatever order the alert arrives."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.acceptance.world import World, policy, reasons
from tests.servers import TestServers


async def test_two_alertmanagers_telling_two_replicas_the_same_start_one_dag_run(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        assert reasons(await world.push(alert, to=0)) == [("fire", "new_alert")]
        assert reasons(await world.push(alert, to=1)) == [("suppress", "duplicate")]
        await world.pass_by(hours=1, steps=4)
        assert reasons(await world.push(alert, to=1)) == [("suppress", "duplicate")]
        await world.settle()
        assert len(world.airflow.posts) == 1
        [found] = await world.alerts()
        assert found["count"] == 3


async def test_two_alertmanagers_telling_two_replicas_at_the_same_moment_start_one_dag_run_a_group(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        models = [f"model-{n}" for n in range(6)]
        alerts = [world.alert(model=m) for m in models]
        answers = await asyncio.gather(
            *(world.push(a, to=to) for a in alerts for to in (0, 1)),
            world.push(*alerts, to=0),
            world.push(*reversed(alerts), to=1),
        )
        fired = [d["trigger_id"] for decisions in answers for d in decisions if d["action"] == "fire"]
        assert len(set(fired)) == len(await world.triggers()) == 6
        await asyncio.gather(*(s.loop("relay").step() for s in world.services))
        await world.settle()
        assert sorted(p["conf"]["gateway"]["group"]["model"] for p in world.airflow.posts) == models
        assert [a["count"] for a in await world.alerts()] == [4] * 6


async def test_two_prometheus_replicas_that_move_starts_at_are_one_alert(servers: TestServers, database: str) -> None:
    async with World(servers, database, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn", ago=timedelta(minutes=1))
        await world.push(alert, to=0)
        for n in range(6):
            other = alert.moved(timedelta(seconds=(17, -9, 15, 0, -30, 31)[n]))
            assert reasons(await world.push(other, to=n % 2)) == [("suppress", "duplicate")]
            await world.pass_by(minutes=10)
        [found] = await world.alerts()
        assert found["count"] == 7
        assert found["starts_at"] == (alert.starts_at - timedelta(seconds=30)).isoformat().replace("+00:00", "Z")
        assert len(world.airflow.posts) == 1


@pytest.mark.parametrize("gap", [timedelta(seconds=40), timedelta(minutes=5)], ids=["within the window", "after it"])
async def test_a_partition_that_resolves_and_fires_again_with_the_same_start_leads_to_one_run(
    servers: TestServers, database: str, gap: timedelta
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(minutes=10)
        assert reasons(await world.push(alert.resolved(world.clock.now()))) == [("ignore", "resolved")]
        await world.pass_by(seconds=gap.total_seconds())
        await world.push(alert)
        await world.pass_by(hours=2, steps=4)
        assert len(world.airflow.posts) == 1
        [found] = await world.alerts()
        assert (found["status"], found["count"]) == ("firing", 3)


async def test_a_firing_that_its_resolved_overtook_leaves_the_alert_resolved_when_another_resolved_follows(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn", ago=timedelta(minutes=1))
        await world.push(alert)
        await world.pass_by(minutes=1)
        end = world.clock.now()
        assert reasons(await world.push(alert.resolved(end))) == [("cancel", "resolved_while_held")]
        assert reasons(await world.push(alert)) == [("ignore", "resolved")]
        await world.pass_by(minutes=1)
        assert reasons(await world.push(alert.resolved(end))) == [("ignore", "resolved")]
        await world.pass_by(hours=1, steps=6)
        assert not world.airflow.posts
        [found] = await world.alerts()
        assert found["status"] == "resolved"


Fault = Callable[[World], Awaitable[None]]


async def _flush(world: World) -> None:
    await world.flush_redis()


async def _nothing(world: World) -> None:
    """Redis stays as it is."""


@pytest.mark.parametrize("between", [_nothing, _flush], ids=["redis is well", "redis is flushed between any two steps"])
async def test_the_whole_way_is_the_same_whatever_redis_remembers(
    servers: TestServers, database: str, between: Fault
) -> None:
    async with World(servers, database, policy("debounce: 10m"), replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        churn, fraud = world.alert(model="churn", pod="a"), world.alert(model="churn", pod="b")
        decided = []
        for n, (alerts, minutes) in enumerate(
            [((churn,), 4), ((churn, fraud), 4), ((fraud,), 4), ((churn, fraud), 60)]
        ):
            decided += reasons(await world.push(*alerts, to=n % 2))
            await between(world)
            await world.pass_by(minutes=minutes)
            await between(world)
        held = [("hold", "debouncing"), ("suppress", "duplicate"), ("hold", "joined"), ("suppress", "duplicate")]
        assert decided == [*held, ("suppress", "duplicate"), ("suppress", "duplicate")]
        assert len(world.airflow.posts) == 1
        assert (await world.trigger())["state"] == "succeeded"


async def test_an_older_memory_starts_no_second_run(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        memories = [await world.redis_content()]
        decided = []
        for minutes in (5, 6, 30, 60):
            decided += reasons(await world.push(alert))
            memories.append(await world.redis_content())
            await world.pass_by(minutes=minutes)
            memories.append(await world.redis_content())
        for memory in memories:  # Also: a replica that died between its commit and telling Redis.
            await world.restore_redis(memory)
            decided += reasons(await world.push(alert))
            await world.settle()
        assert set(decided[1:]) == {("suppress", "duplicate")}
        assert len(world.airflow.posts) == len(await world.triggers()) == 1
        [found] = await world.alerts()
        assert found["count"] == 4 + len(memories)


async def test_everything_works_without_redis(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("debounce: 10m"), redis_url="redis://127.0.0.1:9") as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        assert reasons(await world.push(alert)) == [("hold", "debouncing")]
        await world.pass_by(minutes=10)
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        await world.pass_by(minutes=30)
        assert (await world.trigger())["state"] == "succeeded"
        ready = await world.clients[0].get("/readyz")
        assert ready.status_code == 200
        assert "degraded" in ready.text
