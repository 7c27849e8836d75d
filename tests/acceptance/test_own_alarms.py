"""What the gateway tells an Alertmanager of itself comes back by the webhook that brings every other alert."""

from datetime import timedelta

from tests.acceptance.world import FakeAlert, World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import Call, Reply
from tests.fakes.server import FakeServer
from tests.servers import TestServers


class FakeAlertmanager(FakeServer):
    """Takes alerts, and keeps the labels of each."""

    host = "alertmanager.test"

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.alerts: list[dict[str, str]] = []

    def operation(self, method: str, path: str) -> str:
        return "alerts"

    def answer(self, call: Call) -> Reply:
        self.alerts += [alert["labels"] for alert in call.body]
        return Reply(200, "")


async def test_an_alarm_of_its_own_that_alertmanager_sends_back_starts_nothing(
    servers: TestServers, database: str
) -> None:
    """Its route takes everything, and the run of every trigger fails."""
    clock = ManualClock()
    alertmanager = FakeAlertmanager(clock)
    text = policy(cooldown="0s").replace("""match: ['alertname="ModelAccuracyLow"']""", "match: []")
    text += "receivers: [{name: people, alertmanager: {url: 'http://alertmanager.test:9093'}}]\n"
    airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=20), outcome=lambda _: "failed")
    airflow.add_dag("retrain_model")
    others = {FakeAlertmanager.host: alertmanager}
    async with World(servers, database, text, clock=clock, airflow=airflow, others=others) as world:
        churn = world.alert(model="churn")
        await world.push(churn)
        await world.pass_by(minutes=25, steps=5)
        await world.push(churn.resolved(clock.now()))
        own = alertmanager.alerts[-1]
        assert own["alertname"] == "TriggerGatewayRunFailed"
        for _ in range(2):
            [back] = await world.push(FakeAlert(own, clock.now()))
            assert (back["action"], back["reason"], back["route"]) == ("ignore", "no_route", None)
            assert back["detail"] == "no route takes a gateway's own alarm"
            await world.pass_by(hours=1, steps=4)
        assert len(airflow.posts) == 1
        told_of = await world.explain("TriggerGatewayRunFailed")
        assert told_of["would_fire"] == "Nothing: an alarm of the gateway itself is for people and starts no DAG run."
        assert "TriggerGateway" not in (await world.get("/api/v1/routes/accuracy/explain", since="1m"))["summary"]
