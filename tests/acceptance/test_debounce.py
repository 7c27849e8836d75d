"""Waiting for calm: what flaps starts nothing, what comes together starts one run that knows of all of it."""

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.world import FakeAlert, World, policy, reasons
from tests.servers import TestServers

DEBOUNCE = policy("debounce: 10m")


async def test_a_flap_inside_the_debounce_starts_nothing_and_says_so(servers: TestServers, database: str) -> None:
    async with World(servers, database, DEBOUNCE) as world:
        world.airflow.add_dag("retrain_model")
        for _ in range(3):
            alert = world.alert(model="churn")
            [held] = await world.push(alert)
            assert (held["action"], held["reason"]) == ("hold", "debouncing")
            await world.pass_by(minutes=6)
            assert reasons(await world.push(alert.resolved(world.clock.now()))) == [("cancel", "resolved_while_held")]
            await world.pass_by(minutes=5)
        await world.pass_by(hours=1, steps=4)
        assert not world.airflow.posts
        assert {t["state"] for t in await world.triggers()} == {"cancelled"}
        explained = await world.explain(alert.body()["fingerprint"])
        assert explained["now"]["reason"] == "resolved"
        assert "nothing is started" in explained["summary"]
        [route] = (await world.get("/api/v1/routes"))["items"]
        assert route["groups"][0]["state"] == "idle"


async def test_a_group_is_held_as_long_as_one_of_it_still_fires(servers: TestServers, database: str) -> None:
    async with World(servers, database, DEBOUNCE) as world:
        world.airflow.add_dag("retrain_model")
        a, b = world.alert(model="churn", pod="a"), world.alert(model="churn", pod="b")
        assert reasons(await world.push(a, b)) == [("hold", "debouncing"), ("hold", "joined")]
        await world.pass_by(minutes=5)
        assert reasons(await world.push(a.resolved(world.clock.now()), b)) == [
            ("ignore", "resolved"),
            ("suppress", "duplicate"),
        ]
        await world.pass_by(minutes=5)
        [post] = world.airflow.posts
        assert [x["labels"]["pod"] for x in post["conf"]["gateway"]["alerts"]] == ["b"]


async def test_alerts_that_come_during_the_debounce_share_one_run_that_carries_them_all(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, DEBOUNCE, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        decided = []
        for n, pod in enumerate("abcd"):
            decided += reasons(await world.push(world.alert(model="churn", pod=pod), to=n % 2))
            await world.pass_by(minutes=2)
        assert decided == [("hold", "debouncing")] + [("hold", "joined")] * 3
        assert (await world.trigger())["state"] == "held"
        await world.pass_by(minutes=2)
        [post] = world.airflow.posts
        assert sorted(a["labels"]["pod"] for a in post["conf"]["gateway"]["alerts"]) == list("abcd")
        trigger = await world.trigger()
        assert len(trigger["alerts"]) == 4
        assert {a["trigger_id"] for a in await world.alerts()} == {trigger["id"]}


def _size(conf: dict[str, Any]) -> int:
    return len(json.dumps(conf))


@pytest.mark.parametrize("text", [policy(), DEBOUNCE], ids=["at once", "after a debounce"])
async def test_five_hundred_alerts_start_one_run_whose_conf_stays_under_16_kb(
    servers: TestServers, database: str, text: str
) -> None:
    async with World(servers, database, text) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(*(world.alert(model="churn", pod=f"pod-{n:03}") for n in range(500)))
        await world.pass_by(minutes=10)
        [post] = world.airflow.posts
        gateway = post["conf"]["gateway"]
        assert _size(post["conf"]) <= 16 * 1024
        assert len(gateway["alerts"]) > 50
        assert len(gateway["alerts"]) + gateway["alerts_omitted"] == 500
        assert {a["trigger_id"] for a in await world.alerts()} == {(await world.trigger())["id"]}


async def test_a_held_trigger_cancelled_by_request_tells_each_alert(servers: TestServers, database: str) -> None:
    async with World(servers, database, DEBOUNCE) as world:
        world.airflow.add_dag("retrain_model")
        alerts = [world.alert(model="churn", pod=pod) for pod in "ab"]
        await world.push(*alerts)
        held = await world.trigger()
        answer = await world.post(f"/api/v1/triggers/{held['id']}/cancel", {})
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        for alert in alerts:
            explained = await world.explain(alert.body()["fingerprint"])
            last = explained["decisions"][-1]
            assert (last["action"], last["reason"], last["trigger_id"]) == ("cancel", "by_request", held["id"])
        again = await world.post(f"/api/v1/triggers/{held['id']}/cancel", {})
        assert (again.status_code, again.json()["state"]) == (409, "cancelled")
        await world.pass_by(minutes=30, steps=3)
        assert not world.airflow.posts
        # A repeat must not undo what a person has decided; a new episode is a new question.
        assert reasons(await world.push(*alerts)) == [("cancel", "by_request")] * 2
        await world.pass_by(minutes=30, steps=3)
        assert not world.airflow.posts
        await world.push(*(a.resolved(world.clock.now()) for a in alerts))
        await world.pass_by(minutes=5)
        assert reasons(await world.push(world.alert(model="churn", pod="a"))) == [("hold", "debouncing")]


async def test_an_alert_that_goes_silent_while_held_is_stale_and_starts_nothing(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy("debounce: 4h\nstale_after: 3h")) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(hours=5, steps=3)
        assert not world.airflow.posts
        assert (await world.trigger())["state"] == "cancelled"
        assert "no longer counts as firing" in (await world.explain(alert.body()["fingerprint"]))["now"]["detail"]


async def test_exactly_id_severity_and_timestamp_and_a_route_of_three_lines_start_one_run(
    servers: TestServers, database: str
) -> None:
    text = """
version: 1
airflow: [{name: default, url: "http://airflow.test:8080", auth: {username: gateway, password: gateway}}]
routes:
  - name: drift
    match: ['alertname="churn-drift"']
    dag: {id: retrain_model}
"""
    async with World(servers, database, text) as world:
        world.airflow.add_dag("retrain_model")
        body = {"alert_id": "churn-drift", "severity": "critical", "timestamp": "2026-11-23T11:59:00Z"}
        for _ in range(3):
            answer = await world.post("/api/v1/alerts", body)
            assert answer.status_code == 202
            await world.pass_by(minutes=10)
            body["timestamp"] = world.clock.now().isoformat()
        assert reasons(answer.json()["decisions"]) == [("suppress", "duplicate")]
        await world.pass_by(minutes=20)
        assert (await world.trigger())["state"] == "succeeded"
        [post] = world.airflow.posts
        [carried] = post["conf"]["gateway"]["alerts"]
        assert (carried["alert_id"], carried["severity"]) == ("churn-drift", "critical")
        assert carried["timestamp"] == "2026-11-23T11:59:00Z"
        assert (await world.explain("churn-drift"))["alert"]["count"] == 3


async def test_an_alert_told_by_severity_again_stays_the_same_native_alert(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        body = {"alert_id": "ModelAccuracyLow", "severity": "warning", "timestamp": world.clock.now().isoformat()}
        await world.post("/api/v1/alerts", body | {"labels": {"model": "churn"}})
        answer = await world.post("/api/v1/alerts", body | {"severity": "critical", "labels": {"model": "churn"}})
        assert reasons(answer.json()["decisions"]) == [("suppress", "duplicate")]
        ended = await world.post("/api/v1/alerts", body | {"status": "resolved", "labels": {"model": "churn"}})
        assert reasons(ended.json()["decisions"]) == [("ignore", "resolved")]
        [found] = await world.alerts()
        assert (found["severity"], found["status"], found["count"]) == ("critical", "resolved", 3)


async def test_a_flap_across_the_end_of_the_debounce_fires_once(servers: TestServers, database: str) -> None:
    async with World(servers, database, DEBOUNCE) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(minutes=10)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(minutes=5)
        again = FakeAlert(alert.labels, world.clock.now())
        assert reasons(await world.push(again)) == [("suppress", "in_flight")]
        await world.pass_by(hours=2, steps=6)
        assert len(world.airflow.posts) == 1
        assert (await world.explain(alert.body()["fingerprint"]))["now"]["reason"] == "cooldown"


async def test_a_firing_that_its_resolved_overtook_is_held_anew_and_fires_when_no_other_resolved_comes(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, DEBOUNCE) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.pass_by(minutes=5)
        assert reasons(await world.push(alert.resolved(world.clock.now()))) == [("cancel", "resolved_while_held")]
        await world.pass_by(seconds=30)
        assert reasons(await world.push(alert)) == [("ignore", "resolved")]
        await world.pass_by(minutes=2)
        [found] = await world.alerts()
        assert found["status"] == "firing"
        assert [(d["action"], d["reason"]) for d in found["decisions"]] == [
            ("hold", "debouncing"),
            ("cancel", "resolved_while_held"),
            ("ignore", "resolved"),
            ("hold", "debouncing"),
        ]
        await world.pass_by(minutes=9, steps=3)
        assert len(world.airflow.posts) == 1
        assert sorted(t["state"] for t in await world.triggers()) == ["cancelled", "submitted"]


@pytest.mark.parametrize("held_first", [True, False], ids=["held, then fired", "fired, then held"])
async def test_a_batch_that_holds_a_group_and_fires_another_one_starts_the_run_with_its_conf(
    servers: TestServers, database: str, held_first: bool
) -> None:
    async with World(servers, database, policy("debounce: 10m", cooldown="1h")) as world:
        world.airflow.add_dag("retrain_model")
        old = world.alert(model="fraud")
        await world.push(old)
        await world.pass_by(minutes=40, steps=4)
        world.outage(minutes=40)  # Nothing has woken the group at the end of its cooldown.
        new = world.alert(model="churn")
        decisions = await world.push(*((new, old) if held_first else (old, new)))
        assert {d["group"]["model"]: d["reason"] for d in decisions} == {"churn": "debouncing", "fraud": "still_firing"}
        await world.settle()
        assert [post["conf"]["gateway"]["group"] for post in world.airflow.posts] == [{"model": "fraud"}] * 2
        assert {t["state"] for t in await world.triggers()} == {"succeeded", "submitted", "held"}


async def test_a_debounce_ends_although_nobody_watches_the_switches(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.push(world.alert(model="churn"))
        waker = world.services[0].loop("waker")
        for _ in range(21):
            await waker.step()
            world.clock.pass_by(timedelta(seconds=30))
        await waker.step()
        assert (await world.trigger())["state"] == "pending"
