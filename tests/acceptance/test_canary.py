"""The canary as it is shipped: by the clock through the whole path, its time measured, its absence told once."""

from datetime import timedelta
from pathlib import Path

import yaml

from tests.acceptance.test_deadman import incidents, state, switch
from tests.acceptance.world import World
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.pagerduty import KEY, FakePagerDuty
from tests.integration.test_api_metrics import shown
from tests.servers import TestServers

SHIPPED = yaml.safe_load((Path(__file__).parents[2] / "examples/policy-full.yaml").read_text())
TOOK = 'gateway_last_success_duration_seconds{route="canary"}'


def canary_policy() -> str:
    """Nothing but what of examples/policy-full.yaml is the canary's, and the one whom its switch tells."""
    sections = {
        key: [e for e in SHIPPED[key] if e.get("name") == "canary"] for key in ("routes", "schedules", "deadman")
    }
    airflow = {
        "name": "default",
        "url": "http://airflow.test:8080",
        "auth": {"username": "gateway", "password": "gateway"},
    }
    oncall = {"name": "oncall", "pagerduty": {"routing_key": KEY, "url": FakePagerDuty.url}}
    return yaml.safe_dump({"version": 1, "airflow": [airflow], "receivers": [oncall]} | sections)


async def test_a_canary_that_comes_through_is_measured_and_one_that_does_not_is_told_once(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock()
    pagerduty = FakePagerDuty(clock)
    airflow = FakeAirflow(clock, auto_finish=timedelta(seconds=20))
    others = {pagerduty.host: pagerduty}
    async with World(servers, database, canary_policy(), airflow=airflow, clock=clock, others=others) as world:
        world.airflow.add_dag("canary")
        await world.settle()
        for _ in range(2):
            await world.pass_by(minutes=15)  # On the quarter, to the second.
            await world.pass_by(minutes=1)
        first, second = await world.triggers(route="canary")
        assert {(t["reason"], t["state"]) for t in (first, second)} == {("scheduled", "succeeded")}
        await world.services[0].loop("gauges").step()
        assert (await shown(world))[TOOK] == 60  # It was looked at a minute later.
        assert await state(world, "canary") == "up"

        world.airflow.pause("canary")
        await world.pass_by(minutes=48, steps=8)
        assert await state(world, "canary") == "down"
        explanation = (await switch(world, "canary"))["explanation"]
        assert explanation.startswith("No successful run of the gateway's of route canary for ")
        assert "paused" in explanation
        assert await incidents(world, "canary") == [("deadman:canary", False)]
        [incident] = pagerduty.open()
        assert incident.key.endswith("/deadman:canary")

        world.airflow.unpause("canary")
        await world.pass_by(minutes=3, steps=3)
        assert (await state(world, "canary"), await incidents(world, "canary")) == ("up", [("deadman:canary", True)])
        assert (len(pagerduty.opened), pagerduty.open()) == (1, [])
        await world.services[0].loop("gauges").step()
        assert (await shown(world))[TOOK] > 300  # What examples/rules/gateway.yml calls slow.
