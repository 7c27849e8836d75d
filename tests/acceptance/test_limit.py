"""`limit`: at most so many triggers of a route in a sliding time, whatever their groups, counted across replicas."""

import asyncio
from datetime import timedelta

from tests.acceptance.world import World, policy, reasons
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer as airflow_answers
from tests.integration.api import problem
from tests.servers import TestServers

THREE = policy("limit: {triggers: 3, per: 7d}\nstale_after: 30d")


async def test_the_fourth_group_waits_until_the_first_fire_leaves_the_time(servers: TestServers, database: str) -> None:
    async with World(servers, database, THREE) as world:
        world.airflow.add_dag("retrain_model")
        start = world.clock.now()
        for model in ("a", "b", "c"):
            assert reasons(await world.push(world.alert(model=model))) == [("fire", "new_alert")]
            await world.pass_by(hours=1, steps=3)
        fourth = world.alert(model="d")
        [decision] = await world.push(fourth)
        assert (decision["action"], decision["reason"]) == ("suppress", "limit")
        assert decision["until"].startswith((start + timedelta(days=7)).strftime("%Y-%m-%dT%H:%M"))
        assert "3 times in 7d" in decision["detail"]
        assert reasons(await world.push(fourth)) == [("suppress", "limit")]
        explained = await world.explain(fourth.body()["fingerprint"])
        assert explained["now"]["reason"] == "limit"
        assert "limit (3 in 7d)" in explained["would_fire"]
        for alert in ("a", "b", "c"):
            await world.push(world.alert(model=alert).resolved(world.clock.now()))
        await world.pass_by(days=6, hours=20, steps=8)
        assert len(world.airflow.posts) == 3
        await world.pass_by(hours=2, steps=2)
        assert len(world.airflow.posts) == 4, "suppressed by the limit, it fires without a new notification"


async def test_replicas_at_once_do_not_both_take_the_last_one(servers: TestServers, database: str) -> None:
    async with World(servers, database, THREE, replicas=3) as world:
        world.airflow.add_dag("retrain_model")
        alerts = [world.alert(model=f"m{n}") for n in range(24)]
        answers = await asyncio.gather(*(world.push(alert, to=n % 3) for n, alert in enumerate(alerts)))
        assert (
            sorted(reasons([d for answer in answers for d in answer]))
            == [("fire", "new_alert")] * 3 + [("suppress", "limit")] * 21
        )
        await world.settle()
        assert len(world.airflow.posts) == 3


async def test_a_held_group_at_its_end_obeys_the_limit_and_is_told(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("limit: {triggers: 1, per: 1d}\ndebounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        first, second = world.alert(model="a"), world.alert(model="b")
        assert reasons(await world.push(first, second)) == [("hold", "debouncing")] * 2
        await world.pass_by(minutes=10)
        assert len(world.airflow.posts) == 1
        states = {t["group"]["model"]: t["state"] for t in await world.triggers()}
        assert sorted(states.values()) == ["cancelled", "submitted"] or sorted(states.values()) == [
            "cancelled",
            "running",
        ]
        refused = next(model for model, state in states.items() if state == "cancelled")
        alert = first if refused == "a" else second
        explained = await world.explain(alert.body()["fingerprint"])
        assert [d["reason"] for d in explained["decisions"]] == ["debouncing", "limit"]
        for _ in range(7):  # Alertmanager says every four hours that it still fires.
            await world.pass_by(hours=4, steps=2)
            await world.push(alert)
        assert len(world.airflow.posts) == 2, "what was suppressed is not forgotten"


async def test_a_failed_run_counts_and_a_dead_trigger_does_not(servers: TestServers, database: str) -> None:
    clock = ManualClock()
    airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=5), outcome=lambda _: "failed")
    limited = policy("limit: {triggers: 1, per: 2d}")
    async with World(servers, database, limited, airflow=airflow, clock=clock) as world:
        airflow.add_dag("retrain_model")
        airflow.disturb(airflow_answers(422, {"detail": "no such conf"}), on="trigger")
        await world.push(world.alert(model="a"))
        await world.settle()
        assert (await world.trigger())["state"] == "dead"
        assert reasons(await world.push(world.alert(model="b"))) == [("fire", "new_alert")]
        await world.pass_by(hours=1, steps=6)
        assert {t["state"] for t in await world.triggers()} == {"dead", "failed"}
        assert reasons(await world.push(world.alert(model="c"))) == [("suppress", "limit")]


async def test_a_place_that_a_dead_trigger_leaves_is_taken_without_another_notification(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy("limit: {triggers: 1, per: 2d}")) as world:
        world.airflow.add_dag("retrain_model", paused=True)
        await world.push(world.alert(model="a"))
        await world.settle()
        assert reasons(await world.push(world.alert(model="b"), world.alert(model="c"))) == [("suppress", "limit")] * 2
        world.airflow.unpause("retrain_model")
        world.airflow.disturb(airflow_answers(422, {"detail": "no such conf"}), on="trigger")
        await world.pass_by(minutes=1)
        states = {t["group"]["model"]: t["state"] for t in await world.triggers()}
        assert states.pop("a") == "dead"
        assert list(states.values()) == ["submitted"], "one of the two took it; the other waits for the next"


async def test_a_redrive_obeys_the_limit_and_counts_from_then_on(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("limit: {triggers: 1, per: 2d}")) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(airflow_answers(422, {"detail": "no such conf"}), on="trigger")
        await world.push(world.alert(model="a"))
        await world.settle()
        dead = await world.trigger()
        assert dead["state"] == "dead"
        await world.pass_by(days=1, steps=1)
        second = world.clock.now()
        await world.push(world.alert(model="b"))
        await world.settle()
        redrive = f"/api/v1/triggers/{dead['id']}/redrive"
        refused = problem(await world.post(redrive, {}), 409, "wrong_state")
        assert refused["reason"] == "limit"
        assert refused["until"] == (second + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        await world.pass_by(days=2, hours=1, steps=4)
        assert (await world.post(redrive, {})).status_code == 200
        await world.settle()
        assert len(world.airflow.posts) == 2
        assert reasons(await world.push(world.alert(model="c"))) == [("suppress", "limit")], "it is of now, not of then"


async def test_a_request_obeys_the_limit_unless_it_is_forced_and_forced_ones_count(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy("limit: {triggers: 1, per: 7d}")) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="a"))
        wanted = {"route": "accuracy", "group": {"model": "b"}, "reason": "new labels"}
        refused = problem(await world.post("/api/v1/triggers", wanted), 409, "limit")
        assert refused["until"] is not None
        assert (await world.post("/api/v1/triggers", wanted | {"force": True})).status_code == 201
        await world.pass_by(days=6, hours=23, steps=4)
        assert reasons(await world.push(world.alert(model="c"))) == [("suppress", "limit")]
