"""The probation of a promotion, from outside: an alert takes the alias back, or it does not, and people are paged."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from tests.acceptance.promotions import Gates, seen
from tests.acceptance.world import FakeAlert, World
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.mlflow_registry import FakeMlflowRegistry
from tests.fakes.pagerduty import KEY, FakePagerDuty
from tests.servers import TestServers

TERMS = (
    "for: 24h, match: ['alertname=~\"Model.*\"'], group: {model: '{{version.model}}'}, debounce: 10m, then: rollback"
)
HEAD = f"""
version: 1
airflow: [{{name: default, url: "http://airflow.test:8080", auth: {{username: gateway, password: gateway}}}}]
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    debounce: 20m
    cooldown: 24h
    dag: {{id: retrain_model}}
mlflow: {{tracking_uri: "http://mlflow.test:5000"}}
receivers:
  - {{name: oncall, pagerduty: {{routing_key: {KEY}, url: "{FakePagerDuty.url}"}}}}
promotions:
  - model: churn.*
    to: champion
    rules: ['f1 > 0.5']
"""
SECOND = timedelta(seconds=1)


def policy(terms: str = TERMS) -> str:
    return HEAD + (f"    probation: {{{terms}}}\n" if terms else "")


@asynccontextmanager
async def opened(
    servers: TestServers, database: str, text: str = policy(), *, replicas: int = 1
) -> AsyncIterator[Gates]:
    clock = ManualClock()
    mlflow, pagerduty = FakeMlflowRegistry(clock), FakePagerDuty(clock)
    airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=20))
    airflow.add_dag("retrain_model")
    others: Any = {"mlflow.test": mlflow, FakePagerDuty.host: pagerduty}
    async with World(servers, database, text, replicas=replicas, clock=clock, airflow=airflow, others=others) as world:
        yield Gates(world, mlflow, pagerduty)


async def promoted(gates: Gates, model: str = "churn", **more: Any) -> dict[str, Any]:
    """Version 1 was champion, and version 2 has just become it."""
    [promotion] = await all_promoted(gates, model, **more)
    return promotion


async def all_promoted(gates: Gates, *models: str, **more: Any) -> list[dict[str, Any]]:
    """The same for several models, at the same moment."""
    for model in models:
        for f1 in (0.85, 0.9):
            gates.mlflow.add(model, {"f1": f1}, **more)
    await gates.world.settle()
    for model in models:
        await gates.promote("1", model=model)
    await gates.world.pass_by(minutes=1)
    return [await gates.promote("2", model=model) for model in models]


async def fires(gates: Gates, name: str = "ModelAccuracyLow", **labels: str) -> FakeAlert:
    """An alert begins, and its first notification arrives."""
    named: dict[str, Any] = {"model": "churn"} | labels
    alert = gates.world.alert(name, **named)
    await gates.world.push(alert)
    return alert


async def probation(gates: Gates, promotion: dict[str, Any]) -> Any:
    return (await gates.world.get(f"/api/v1/promotions/{promotion['id']}"))["probation"]


async def rollbacks(gates: Gates) -> list[str]:
    """The states of all rollbacks, the oldest first."""
    return [row["state"] for row in await gates.rows() if row["kind"] == "rollback"]


async def metrics(gates: Gates) -> list[str]:
    text = (await gates.world.clients[0].get("/metrics")).text
    return [line for line in text.splitlines() if line.startswith("gateway_probations_total{")]


async def test_an_alert_that_lasts_gives_the_alias_back_once_and_people_are_paged(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        promotion = await promoted(gates)
        assert promotion["probation"]["state"] == "watching"
        await gates.world.pass_by(minutes=5)
        await fires(gates)
        await gates.world.pass_by(minutes=10, seconds=-1)
        waiting = await probation(gates, promotion)
        assert (waiting["state"], gates.champion()) == ("watching", "2")
        assert waiting["detail"].startswith(
            "ModelAccuracyLow began 5m after the promotion; it speaks against version 2 if"
        )
        assert gates.pagerduty.opened == []
        await gates.world.pass_by(seconds=1)
        assert gates.champion() == "1"
        assert gates.mlflow.tags("churn", "2")["validation_status"] == "rolled_back"
        [back] = [row for row in await gates.rows() if row["kind"] == "rollback"]
        reason = "its probation failed: ModelAccuracyLow began 5m after the promotion, and lasted 10m"
        assert (back["state"], back["target"], back["requested_by"], back["reason"], back["rollback_of"]) == (
            "rolled_back",
            "1",
            "the probation",
            reason,
            promotion["id"],
        )
        [alert] = await gates.world.alerts()
        found = await probation(gates, promotion)
        assert (found["state"], found["alert"]) == ("rolled_back", alert["id"])
        assert found["detail"] == f"{reason}; version 1 holds champion again"
        [incident] = gates.pagerduty.open()
        assert incident.summary == "Version 2 of churn failed its probation: version 1 is champion again"
        assert (incident.severity, incident.details["detail"]) == ("warning", found["detail"])
        assert await metrics(gates) == [
            'gateway_probations_total{state="over"} 1.0',
            'gateway_probations_total{state="rolled_back"} 1.0',
        ], "that of version 1 ended with the promotion of version 2"
        await fires(gates, "ModelErrors")
        await gates.world.pass_by(hours=30, steps=2)
        assert (gates.champion(), await rollbacks(gates)) == ("1", ["rolled_back"])
        assert [i.summary for i in gates.pagerduty.opened if "probation" in i.summary] == [incident.summary]


async def test_the_next_promotion_resolves_the_incident(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        await promoted(gates)
        await gates.world.pass_by(minutes=1)
        await fires(gates)
        await gates.world.pass_by(minutes=10)
        gates.mlflow.add("churn", {"f1": 0.95})
        await gates.promote("3")
        await gates.world.settle()
        assert (gates.pagerduty.open(), len(gates.pagerduty.opened)) == ([], 1)


async def test_an_alert_counts_from_one_second_after_the_promotion_to_the_end_of_for(
    servers: TestServers, database: str
) -> None:
    day = timedelta(hours=24)
    #: When an alert begins, and whether the version goes back.
    cases = {
        "churn-with-it": (timedelta(0), False),
        "churn-a-second-after-it": (SECOND, True),
        "churn-a-second-before-the-end": (day - SECOND, True),
        "churn-with-the-end": (day, False),
    }
    async with opened(servers, database) as gates:
        promotions = await all_promoted(gates, *cases)
        for model, (after, _) in cases.items():
            promoted_at = datetime.fromisoformat(promotions[0]["ended_at"])
            gates.world.clock.pass_by(promoted_at + after - gates.world.clock.now())
            await gates.world.watched()
            await fires(gates, model=model)
            if after == SECOND:
                await gates.world.pass_by(minutes=10, steps=2)
        await gates.world.pass_by(minutes=10, steps=2)
        await gates.world.pass_by(hours=25)
        for promotion in promotions:
            _, goes_back = cases[promotion["model"]]
            state = (await probation(gates, promotion))["state"]
            assert (gates.champion(promotion["model"]), state) == (
                ("1", "rolled_back") if goes_back else ("2", "passed")
            ), promotion["model"]


async def test_an_alert_that_fires_already_does_not_count_until_it_begins_anew(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        alert = await fires(gates)
        await gates.world.pass_by(minutes=1)
        await promoted(gates)
        await gates.world.pass_by(hours=2, steps=4)
        await gates.world.push(alert)
        await gates.world.pass_by(hours=1)
        assert gates.champion() == "2"
        await gates.world.push(alert.resolved(gates.world.clock.now()))
        await gates.world.pass_by(hours=1)
        await fires(gates)
        await gates.world.pass_by(minutes=10)
        assert gates.champion() == "1"


async def test_only_an_alert_that_matches_and_is_of_the_model_counts(servers: TestServers, database: str) -> None:
    cases: list[tuple[str, str, dict[str, str], bool]] = [
        ("churn-it-matches-and-has-no-route", "ModelErrors", {}, True),
        ("churn-another-name", "Drift", {}, False),
        ("churn-another-model", "ModelErrors", {"model": "churn-another-model-eu"}, False),
        ("churn-an-alarm-of-the-gateway", "TriggerGatewayRunFailed", {"notice": "x"}, False),
    ]
    async with opened(servers, database, policy(TERMS.replace("Model.*", "(Model|Trigger).*"))) as gates:
        await all_promoted(gates, *(model for model, *_ in cases))
        await gates.world.pass_by(minutes=1)
        for model, name, labels, _ in cases:
            await fires(gates, name, **({"model": model} | labels))
        await gates.world.pass_by(minutes=10)
        for model, _, _, goes_back in cases:
            assert gates.champion(model) == ("1" if goes_back else "2"), model


async def test_the_alert_must_last_for_debounce(servers: TestServers, database: str) -> None:
    """Its own, or else that of the alert's route. An alert without a route needs none."""
    plain = TERMS.replace("debounce: 10m, ", "")
    async with opened(servers, database) as gates:
        for terms, name, minutes in (
            (TERMS, "ModelAccuracyLow", 10),
            (plain, "ModelAccuracyLow", 20),
            (plain, "ModelErrors", 0),
        ):
            assert (await gates.world.reload(policy(terms))).status_code == 200
            model = f"churn-{name}-{minutes}"
            await promoted(gates, model)
            await gates.world.pass_by(minutes=1)
            if minutes:
                first = await fires(gates, name, model=model)
                await gates.world.pass_by(minutes=minutes, seconds=-1)
                await gates.world.push(first.resolved(gates.world.clock.now()))
                await gates.world.pass_by(minutes=30)
                assert gates.champion(model) == "2", "it ended a second before"
            await fires(gates, name, model=model)
            await gates.world.pass_by(minutes=minutes, seconds=15 if not minutes else 0)
            assert gates.champion(model) == "1", model


async def test_with_then_tell_people_are_paged_and_the_alias_stays(servers: TestServers, database: str) -> None:
    async with opened(servers, database, policy(TERMS.replace("rollback", "tell"))) as gates:
        promotion = await promoted(gates)
        await gates.world.pass_by(minutes=1)
        await fires(gates)
        await gates.world.pass_by(minutes=10)
        assert (gates.champion(), await rollbacks(gates)) == ("2", [])
        assert (await probation(gates, promotion))["state"] == "failed"
        [incident] = gates.pagerduty.open()
        assert incident.summary == "Version 2 of churn fails its probation, and is still champion"
        assert incident.severity == "error"
        await gates.world.post(f"/api/v1/promotions/{promotion['id']}/rollback", {})
        await gates.world.settle()
        assert (gates.champion(), gates.pagerduty.open()) == ("1", [])


async def test_the_route_goes_on_as_before_and_effect_and_explain_name_the_way_back(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        world = gates.world
        first = await fires(gates)
        await world.pass_by(minutes=20)
        await world.pass_by(minutes=20)
        trigger = (await world.trigger())["id"]
        await promoted(gates, tags={"gateway.trigger_id": trigger})
        await seen(world, trigger, "2")
        await world.push(first.resolved(world.clock.now()))
        await world.pass_by(hours=23)
        await fires(gates)
        await world.pass_by(minutes=10)
        assert gates.champion() == "1"
        [back] = [row for row in await gates.rows() if row["state"] == "rolled_back"]
        assert (await world.explain((await world.alerts(status="firing"))[0]["id"]))["summary"].endswith(
            f"The probation of version 2 of churn as champion is over, and the alias went back: {back['reason']}; "
            "version 1 holds champion again."
        )
        assert "the alias went back" in (await world.explain(trigger))["summary"]
        assert len(await world.triggers()) == 1
        await world.pass_by(minutes=30)
        assert len(await world.triggers()) == 2, (
            "the same alert starts a retrain when the cooldown of the first is over"
        )
        [item] = [item for item in (await world.get("/api/v1/effects"))["items"] if item["trigger_id"] == trigger]
        assert (item["effect"], item["probation"]["state"]) == ("recurred", "rolled_back")
        [sums] = (await world.get("/api/v1/effects"))["models"]
        assert (sums["rolled_back"], "1 rolled back" in sums["summary"]) == (1, True)
