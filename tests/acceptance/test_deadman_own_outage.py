"""The gateway itself was away: what it waited for gets the time back, except what Airflow knows anyway."""

from datetime import timedelta

from tests.acceptance.test_deadman import SWITCHES, incidents, start, state
from tests.acceptance.world import POLICY, World
from tests.servers import TestServers


async def test_an_outage_of_ours_is_no_outage_of_what_was_awaited(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.push(world.alert("Watchdog"))
        await world.pass_by(minutes=1)
        world.outage(hours=5)
        await world.settle()
        assert await state(world, "prometheus-alive") == "up"
        await world.settle()  # The time is given back once.
        await world.pass_by(minutes=4)
        assert await state(world, "prometheus-alive") == "grace"
        await world.pass_by(minutes=2)
        assert await state(world, "prometheus-alive") == "down"


async def test_a_hold_goes_on_after_an_outage_of_ours_from_where_it_was(servers: TestServers, database: str) -> None:
    async with World(servers, database, POLICY + "    debounce: 10m\n") as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(minutes=6)
        world.outage(hours=1)
        await world.settle()
        assert [trigger["state"] for trigger in await world.triggers()] == ["held"]
        [decision] = await world.push(alert)
        assert decision["reason"] == "duplicate"
        assert decision["until"] is not None
        await world.pass_by(minutes=3)
        assert world.airflow.posts == []
        await world.pass_by(minutes=1)
        assert len(world.airflow.posts) == 1


async def test_a_hold_that_ended_while_we_were_away_starts_nothing_when_its_end_arrives(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, POLICY + "    debounce: 10m\n") as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(minutes=6)
        world.outage(hours=1)
        await world.settle()
        await world.push(alert.resolved(world.clock.now() - timedelta(minutes=30)))
        await world.pass_by(minutes=20, steps=4)
        assert world.airflow.posts == []


async def test_a_retrain_that_ended_while_we_were_away_is_found_before_it_is_missed(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, SWITCHES) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.pass_by(days=7)
        await start(world, {"model": "churn"})
        world.outage(days=2)
        await world.services[0].loop("watch").step()
        assert await state(world, "churn-retrained") in ("new", "grace")
        await world.settle()
        assert await state(world, "churn-retrained") == "up"
        assert await incidents(world, "churn-retrained") == []


async def test_an_outage_of_ours_gives_a_retrain_no_more_time(servers: TestServers, database: str) -> None:
    """It ended, or not, whether we were there or not: Airflow knows."""
    async with World(servers, database, SWITCHES) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.pass_by(days=1)
        world.outage(days=2)
        await world.settle()
        await world.pass_by(days=4, hours=12, seconds=-10)
        assert await state(world, "churn-retrained") == "grace"
        await world.pass_by(seconds=10)
        assert await state(world, "churn-retrained") == "down"
