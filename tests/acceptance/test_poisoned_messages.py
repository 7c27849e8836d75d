"""A message that a receiver fails on, and a record that MLflow fails on: others go on, and it ends with its reason."""

from datetime import datetime, timedelta

import pytest

from mlflow_spool.errors import NoAnswer
from mlflow_spool.records import Answer, Call
from tests.acceptance.test_metadata import WITH_MLFLOW, held, report
from tests.acceptance.test_telling import RECEIVERS
from tests.acceptance.world import World, policy
from tests.fakes import faults
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer, drop, timeout
from tests.fakes.mlflow import MlflowSite
from tests.fakes.pagerduty import FakePagerDuty
from tests.servers import TestServers
from tests.sizes import size
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault

ALONE = {"500": answer(500), "502": answer(502), "no answer": timeout(), "a lost connection": drop()}
CHOSEN = size(["502", "no answer"], list(ALONE))


@pytest.mark.parametrize("fault", [ALONE[name] for name in CHOSEN], ids=CHOSEN)
async def test_a_message_that_always_fails_holds_up_no_other_and_is_dead_and_named(
    servers: TestServers, database: str, fault: faults.Fault
) -> None:
    clock = ManualClock()
    pagerduty = FakePagerDuty(clock)
    airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=20), outcome=lambda _run: "failed")
    airflow.add_dag("retrain_model")
    text = policy("on_failure: keep") + RECEIVERS
    others = {pagerduty.host: pagerduty}
    async with World(
        servers, database, text, clock=clock, airflow=airflow, others=others, delivery_deadline=600.0
    ) as world:
        pagerduty.disturb(fault, on=lambda call: "model=bad" in str(call.body), times=None)
        await world.push(world.alert(model="bad"))
        await world.pass_by(minutes=30, steps=30)
        await world.push(world.alert(model="well"))
        await world.settle()
        await world.pass_by(minutes=20, steps=20)
        await world.pass_by(seconds=16, steps=16)
        [incident] = pagerduty.opened
        assert incident.summary == "The retraining of accuracy, model=well failed"
        await world.pass_by(minutes=15, steps=30)
        notices = (await world.get("/api/v1/notices"))["items"]
        [well] = [notice for notice in notices if notice["labels"]["model"] == "well"]
        assert incident.opened_at - datetime.fromisoformat(well["opened_at"]) <= timedelta(seconds=5)
        [bad] = [notice for notice in notices if notice["labels"]["model"] == "bad"]
        [receiver] = bad["receivers"]
        assert receiver["opened"]["state"] == "dead"
        assert receiver["opened"]["detail"].startswith("given up after")


class Silent(FakeMlflow):
    """Gives no answer to what names `poison`, and is well otherwise."""

    poison = "loss"

    def send(self, call: Call, timeout: float) -> Answer:
        if self.poison in str(call.body):
            raise NoAnswer("no answer in time")
        return super().send(call, timeout)


async def test_a_record_without_an_answer_holds_up_no_other_stream_and_is_set_aside(
    servers: TestServers, database: str
) -> None:
    site = MlflowSite(Silent())
    async with World(servers, database, WITH_MLFLOW, others={"mlflow.test": site}) as gateway:
        await report(gateway, component="training", run="r", state="started", metrics={"loss": 0.25})
        await report(gateway, component="training", run="r", state="succeeded", metrics={"f1": 0.5})
        await gateway.pass_by(minutes=5, steps=20)
        await report(gateway, component="training", run="other", state="succeeded")
        await gateway.pass_by(seconds=10, steps=5)
        assert held(site)["runs"]["training other"]["status"] == "FINISHED"
        probe = await gateway.clients[0].get("/health/metadata")
        assert probe.status_code == 503
        assert "answer" in probe.json()["checks"]["records"]
        await gateway.pass_by(hours=2, steps=40)
        (aside,) = (await gateway.get("/api/v1/metadata"))["items"]
        assert "answer" in aside["problem"]
        assert held(site)["runs"]["training r"]["metrics"] == {"f1": [(0, 0.5)]}


async def test_an_mlflow_that_was_away_for_long_sets_nothing_aside(servers: TestServers, database: str) -> None:
    """Not even when its first answers are errors: the attempts before do not count."""
    site = MlflowSite()
    async with World(servers, database, WITH_MLFLOW, others={"mlflow.test": site}) as gateway:
        site.down = True
        await report(gateway, component="training", run="r", state="succeeded", metrics={"loss": 0.25})
        await gateway.pass_by(hours=30, steps=60)
        assert (await gateway.get("/api/v1/metadata"))["items"] == []
        site.down = False
        site.fake.plan = lambda number, _line: Fault.UNAVAILABLE if number < 2 else Fault.NONE
        await gateway.pass_by(minutes=5, steps=10)
        assert held(site)["runs"]["training r"]["status"] == "FINISHED"
