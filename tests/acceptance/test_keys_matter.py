"""Keys of the policy that no other test would miss: each changes what the gateway does."""

import pytest

from tests.acceptance.promotions import opened
from tests.acceptance.test_telling import RECEIVERS
from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.pagerduty import FakePagerDuty
from tests.servers import TestServers


@pytest.mark.parametrize(("receivers", "repeat", "events"), [("[]", "", 0), ("[oncall]", "", 1), ("[oncall]", "6h", 4)])
async def test_receivers_and_repeat_of_a_switch_say_who_is_told_and_how_often(
    servers: TestServers, database: str, receivers: str, repeat: str, events: int
) -> None:
    clock = ManualClock()
    pagerduty = FakePagerDuty(clock)
    more = f", repeat: {repeat}" if repeat else ""
    switch = f"deadman: [{{name: alive, expect: heartbeat, every: 1h, grace: 5m, receivers: {receivers}{more}}}]\n"
    text = policy() + RECEIVERS + switch
    async with World(
        servers, database, text, clock=clock, airflow=FakeAirflow(clock), others={FakePagerDuty.host: pagerduty}
    ) as world:
        await world.settle()
        await world.pass_by(hours=2)
        await world.pass_by(hours=20, steps=20)
        assert len(pagerduty.calls("event")) == events


async def test_a_switch_that_says_nothing_of_it_tells_every_receiver_again_and_again(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock()
    pagerduty = FakePagerDuty(clock)
    text = policy() + RECEIVERS + "deadman: [{name: alive, expect: heartbeat, every: 1h}]\n"
    others = {FakePagerDuty.host: pagerduty}
    async with World(servers, database, text, clock=clock, others=others, notice_repeat=6 * 3600.0) as world:
        await world.settle()
        await world.pass_by(hours=2)
        await world.pass_by(hours=20, steps=20)
        assert (await world.get("/api/v1/deadman/alive"))["receivers"] == ["oncall"]
        assert [incident.triggers for incident in pagerduty.open()] == [4]


@pytest.mark.parametrize(("model", "status"), [("churn", 200), ("churn-eu", 404), ("my-churn", 404)])
async def test_model_of_a_promotion_is_the_whole_name(
    servers: TestServers, database: str, model: str, status: int
) -> None:
    async with opened(servers, database, "promotions: [{model: churn, to: champion, rules: ['f1 >= 0.5']}]\n") as gates:
        gates.mlflow.add(model, {"f1": 0.9})
        assert (await gates.ask("1", model=model)).status_code == status
