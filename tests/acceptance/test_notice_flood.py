"""Whoever may send alerts invents groups, and each of them fails: people get a few pages and one for the rest."""

from datetime import timedelta

from tests.acceptance.test_telling import RECEIVERS
from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.pagerduty import FakePagerDuty
from tests.servers import TestServers

NO_DAG = policy().replace("{id: retrain_model}", '{id: "no_dag_{{group.model}}"}')


async def test_thirty_groups_whose_triggers_die_are_twenty_one_incidents(servers: TestServers, database: str) -> None:
    clock = ManualClock()
    pagerduty = FakePagerDuty(clock)
    airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=20))
    async with World(
        servers, database, NO_DAG + RECEIVERS, clock=clock, airflow=airflow, others={pagerduty.host: pagerduty}
    ) as world:
        await world.push(*(world.alert(model=f"m {n}") for n in range(30)))
        await world.pass_by(minutes=1, steps=4)
        assert {trigger["state"] for trigger in await world.triggers()} == {"dead"}
        found = (await world.get("/api/v1/notices", event="trigger_dead", state="open"))["items"]
        [flood] = [item for item in found if item["key"] == "trigger_dead:accuracy:flood"]
        assert flood["title"].startswith("More than 20 groups of accuracy")
        assert len(found) == len(pagerduty.opened) == 21
        world.airflow.add_dag("retrain_model")
        await world.reload(policy() + RECEIVERS)
        await world.pass_by(hours=1, steps=2)
        await world.push(*(world.alert(model=f"m {n}", pod="new") for n in range(30)))
        await world.pass_by(minutes=10, steps=10)
        assert (await world.get("/api/v1/notices", event="trigger_dead", state="open"))["items"] == []
