"""Our own outages: none raises an alarm, none ends one, and what is said just before or first after one counts."""

from datetime import timedelta

import pytest

from tests.acceptance.test_deadman import SWITCHES, flips, incidents, state
from tests.acceptance.world import POLICY, World
from tests.servers import TestServers


async def test_a_switch_that_is_down_stays_down_over_an_outage_of_ours(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.pass_by(days=8)
        before = await flips(world, "churn-retrained")
        assert before[-1] == "down"
        world.outage(minutes=5)
        await world.services[0].loop("watch").step()  # Before Airflow was read.
        await world.settle()
        await world.pass_by(minutes=2, steps=4)
        assert await flips(world, "churn-retrained") == before
        assert await incidents(world, "churn-retrained") == [("deadman:churn-retrained", False)]


@pytest.mark.parametrize("said", ["", "/start"])
async def test_what_is_said_first_after_an_outage_of_ours_gives_nothing_up(
    servers: TestServers, database: str, said: str
) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.post("/ping/export", b"")
        await world.post("/ping/export/start?rid=other", b"")
        await world.pass_by(minutes=1)
        world.outage(hours=30)
        await world.post(f"/ping/export{said}?rid=one", b"")
        await world.settle()
        assert await state(world, "export") == "up"
        assert await incidents(world, "export") == []
        await world.pass_by(minutes=59)
        assert await incidents(world, "export") == [("deadman:export", False)]  # The other run has not ended.


async def test_what_is_heard_just_before_our_end_may_come_later_too(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.pass_by(minutes=1)
        world.clock.pass_by(timedelta(seconds=2))
        await world.push(world.alert("Watchdog"))
        world.outage(minutes=30)
        await world.settle()
        assert await state(world, "prometheus-alive") == "up"
        await world.pass_by(minutes=7)
        assert await state(world, "prometheus-alive") == "down"


async def test_a_hold_that_began_just_before_our_end_goes_on_too(servers: TestServers, database: str) -> None:
    async with World(servers, database, POLICY + "    debounce: 10m\n") as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        world.clock.pass_by(timedelta(seconds=2))
        await world.push(world.alert(model="churn"))
        world.outage(hours=1)
        await world.settle()
        await world.pass_by(minutes=9)
        assert world.airflow.posts == []
        await world.pass_by(minutes=1)
        assert len(world.airflow.posts) == 1
