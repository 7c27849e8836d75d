"""Every no has a name: `explain` answers for every alert ever acknowledged, and reset is a person's yes."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.acceptance.world import FakeAlert, World, policy, reasons
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.servers import TestServers

MIXED = (
    policy("debounce: 5m", cooldown="6h")
    + """
  - name: drift
    match: ['alertname="Drift"']
    group_by: [model]
    cooldown: 1h
    refire: false
    dag: {id: retrain_drift}
"""
)


def _verdict(explained: dict[str, Any]) -> tuple[str, str]:
    return explained["now"]["action"], explained["now"]["reason"]


async def test_every_acknowledged_alert_of_a_mixed_day_is_explained(servers: TestServers, database: str) -> None:
    clock = ManualClock()
    airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=20), outcome=lambda r: _outcome(r.dag_run_id))
    async with World(servers, database, MIXED, replicas=2, clock=clock, airflow=airflow) as world:
        airflow.add_dag("retrain_model")
        names = ["ModelAccuracyLow", "Drift", "Unrelated"]
        sent = 0
        for hour in range(10):
            alerts = [world.alert(names[n % 3], model=f"m{(n + hour) % 4}", pod=f"p{n % 2}") for n in range(6)]
            if hour % 2:
                alerts = [a.resolved(world.clock.now()) for a in alerts[:3]] + alerts[3:]
            if hour == 4:
                airflow.add_dag("retrain_drift", paused=True)
            if hour == 6:
                airflow.unpause("retrain_drift")
            decisions = await world.push(*alerts, to=hour % 2)
            assert len(decisions) == 6
            sent += 6
            await world.pass_by(minutes=(3, 40, 61)[hour % 3], steps=2)
        found = await world.alerts()
        assert sum(a["count"] for a in found) == sent
        reasons_seen = {d["reason"] for a in found for d in a["decisions"]}
        assert {"new_alert", "debouncing", "no_route", "resolved", "in_flight", "cooldown"} <= reasons_seen
        for alert in found:
            explained = await world.explain(alert["id"])
            assert explained["summary"]
            assert explained["would_fire"]
            assert explained["now"]["detail"]
            assert explained["decisions"][-1]["detail"]
        for trigger in await world.triggers():
            explained = await world.explain(trigger["id"])
            assert explained["summary"].startswith(trigger["state"])
            assert explained["decisions"]
        await _no_two_runs_of_a_group_at_once(world)


def _outcome(run_id: str) -> str:
    return "failed" if int(run_id[-1], 16) % 3 == 0 else "success"


async def _no_two_runs_of_a_group_at_once(world: World) -> None:
    by_group: dict[str, list[dict[str, Any]]] = {}
    for trigger in reversed(await world.triggers()):
        if trigger["fired_at"]:
            by_group.setdefault(f"{trigger['route']} {trigger['group']}", []).append(trigger)
    for triggers in by_group.values():
        for earlier, later in pairwise(triggers):
            assert earlier["ended_at"] is not None
            assert earlier["ended_at"] <= later["fired_at"]


async def test_explain_says_what_is_in_the_way_at_each_station(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        a, b = world.alert(model="churn", pod="a"), world.alert(model="churn", pod="b")
        stray = world.alert("SomethingElse")
        await world.push(a, stray)

        async def now_of(alert: FakeAlert) -> tuple[str, str]:
            return _verdict(await world.explain(alert.body()["fingerprint"]))

        assert await now_of(stray) == ("ignore", "no_route")
        assert await now_of(a) == ("suppress", "duplicate")
        assert "debounce of 10m" in (await world.explain(a.body()["fingerprint"]))["would_fire"]
        await world.pass_by(minutes=10)
        await world.push(b)
        assert await now_of(b) == ("suppress", "in_flight")
        assert "has ended" in (await world.explain(b.body()["fingerprint"]))["would_fire"]
        await world.pass_by(minutes=30, steps=2)
        assert await now_of(b) == ("suppress", "cooldown")
        assert await now_of(a) == ("suppress", "duplicate")
        explained = await world.explain("ModelAccuracyLow")
        assert explained["group"]["state"] == "cooldown"
        assert "2026-11-24T12:10" in explained["would_fire"]
        await world.push(b.resolved(world.clock.now()))
        assert await now_of(b) == ("ignore", "resolved")
        assert (await world.explain("ModelAccuracyLow"))["alert"]["labels"] == a.body()["labels"], "a still fires"
        missing = await world.clients[0].get("/api/v1/explain/never-heard-of")
        assert missing.status_code == 404


@pytest.mark.parametrize(
    "alert_id", ["01a20967-2119-717a-bc81-761cac4c96d5", "0123456789abcdef0123456789abcdef", "a b/c", "ünïcode"]
)
async def test_an_alert_is_explained_by_whatever_its_sender_calls_it(
    servers: TestServers, database: str, alert_id: str
) -> None:
    async with World(servers, database) as world:
        body = {"alert_id": alert_id, "severity": "critical", "timestamp": "2026-11-23T11:59:00Z"}
        answer = await world.post("/api/v1/alerts", body)
        [decision] = answer.json()["decisions"]
        for name in (alert_id, decision["fingerprint"]):
            explained = await world.explain(name.replace("/", "%2F") if name == alert_id else name)
            assert explained["alert"]["alert_id"] == alert_id
            assert _verdict(explained) == ("ignore", "no_route")


RESET = {"group": {"model": "churn"}}


async def test_reset_lets_what_still_fires_fire_at_once(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        await world.pass_by(minutes=30, steps=2)
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        answer = await world.post("/api/v1/routes/accuracy/reset", RESET)
        assert (answer.status_code, answer.json()["cooldown_until"]) == (200, None)
        await world.settle()
        assert len(world.airflow.posts) == 2
        assert (await world.triggers())[0]["reason"] == "still_firing"
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        await world.pass_by(hours=5, steps=5)
        assert len(world.airflow.posts) == 2, "a reset counts once"


async def test_reset_during_a_run_doubles_nothing_and_counts_when_the_run_has_ended(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        assert (await world.post("/api/v1/routes/accuracy/reset", RESET)).status_code == 200
        await world.pass_by(minutes=15, steps=3)
        assert len(world.airflow.posts) == 1
        await world.pass_by(minutes=15, steps=3)
        assert len(world.airflow.posts) == 2
        assert world.airflow.most_open == 1


@pytest.mark.parametrize(
    ("route", "group", "status"),
    [
        pytest.param("nowhere", {"model": "churn"}, 404, id="no such route"),
        pytest.param("accuracy", {"model": "never-seen"}, 404, id="no such group"),
        pytest.param("accuracy", {}, 422, id="a label too few"),
        pytest.param("accuracy", {"model": "churn", "pod": "a"}, 422, id="a label too many"),
    ],
)
async def test_a_reset_of_what_is_not_there_is_refused(
    servers: TestServers, database: str, route: str, group: dict[str, str], status: int
) -> None:
    async with World(servers, database) as world:
        await world.push(world.alert(model="churn"))
        answer = await world.post(f"/api/v1/routes/{route}/reset", {"group": group})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
