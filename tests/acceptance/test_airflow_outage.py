"""Airflow away, or refusing: nothing is lost, nothing dies of an outage, nothing bursts afterwards."""

from datetime import timedelta

import pytest

from tests.acceptance.world import World
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import meanwhile
from tests.servers import TestServers


async def test_airflow_down_for_hours_then_up_gets_one_run_a_group_without_a_burst(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(servers, database, delivery_deadline=600) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.down = True
        alerts = [world.alert(model=f"model-{n:02}") for n in range(20)]
        await world.push(*alerts)
        await world.pass_by(hours=8, steps=16)
        waiting = await world.triggers()
        assert {t["state"] for t in waiting} == {"pending"}
        waits = [r for r in caplog.records if r.getMessage() == "a delivery waits"]
        assert len(waits) == len({getattr(r, "item", None) for r in waits}), "each trigger tells once that it waits"
        assert {getattr(r, "code", None) for r in waits} == {"connect"}
        assert not [r for r in caplog.records if r.getMessage() == "a delivery is dead"]

        world.airflow.calm()
        rounds = await _rounds(world)
        assert rounds[:3] == [1, 2, 4], "the breaker lets more through only as Airflow shows that it can"
        assert sum(rounds) == len(world.airflow.posts) == 20
        await world.pass_by(hours=1, steps=4)
        assert {t["state"] for t in await world.triggers()} == {"succeeded"}
        assert len(world.airflow.posts) == 20


async def _rounds(world: World) -> list[int]:
    """Requests for a run in each round of the relay that sends any, from now on until all are there."""
    rounds = []
    for _ in range(200):
        before = len(world.airflow.posts)
        again = await world.services[0].loop("relay").step()
        if len(world.airflow.posts) > before:
            rounds.append(len(world.airflow.posts) - before)
        if not again:
            world.clock.pass_by(timedelta(seconds=5))
        if len(world.airflow.posts) == 20:
            return rounds
    raise AssertionError(f"Airflow never got them all: {rounds}")


async def test_a_trigger_that_was_never_tried_is_explained_by_the_outage_that_another_one_met(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.down = True
        await world.push(world.alert(model="first"))
        await world.settle()
        await world.push(world.alert(model="second"))
        await world.settle()
        second, first = await world.triggers()
        assert (first["blocked"], second["blocked"]) == ("connect", None)
        assert "waits for Airflow" in (await world.explain(second["id"]))["summary"]
        world.airflow.calm()
        await world.pass_by(minutes=5, steps=5)
        assert "waits" not in (await world.explain(second["id"]))["summary"]


async def test_a_token_that_expires_between_two_requests_costs_nothing(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(meanwhile(world.airflow.expire_tokens), on="trigger")
        await world.push(world.alert(model="churn"))
        await world.settle()
        assert [seen.status for seen in world.airflow.calls("trigger")] == [401, 200]
        await world.pass_by(minutes=5)
        world.airflow.rotate_secret()
        await world.pass_by(minutes=20)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(world.airflow.posts) == 1


async def test_tokens_that_live_shorter_than_a_run_are_renewed_while_it_is_followed(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock()
    airflow = FakeAirflow(clock, auto_finish=timedelta(hours=5), token_life=timedelta(hours=1))
    async with World(servers, database, clock=clock, airflow=airflow) as world:
        airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(hours=6, steps=12)
        assert (await world.trigger())["state"] == "succeeded"
        assert not [seen for seen in airflow.seen if seen.status == 401], "a token is renewed before it ends"


async def test_a_wrong_password_is_named_and_one_run_starts_when_it_is_repaired(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.users["gateway"] = "another"
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        await world.pass_by(hours=1, steps=6)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["blocked"]) == ("pending", "token_rejected")
        explained = await world.explain(trigger["id"])
        assert explained["summary"].startswith("pending: ")
        assert "airflow.auth" in explained["summary"]
        world.airflow.users["gateway"] = "gateway"
        await world.pass_by(minutes=10, steps=5)
        assert (await world.trigger())["state"] in ("submitted", "running")
        assert len(world.airflow.posts) == 1


async def test_a_forbidden_role_is_named_and_kills_only_after_the_deadline_of_answers(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, delivery_deadline=300) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.viewers.add("gateway")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        await world.pass_by(minutes=4, steps=8)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["blocked"]) == ("pending", "forbidden")
        assert "role" in trigger["detail"]

        world.airflow.down = True
        await world.pass_by(hours=12, steps=4)
        assert (await world.trigger())["state"] == "pending", "time without an answer is not counted"
        world.airflow.down = False
        await world.pass_by(seconds=40, steps=4)
        assert (await world.trigger())["state"] == "pending"
        await world.push(alert)
        await world.pass_by(minutes=3, steps=6)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["outcome"]) == ("dead", "dead")
        assert trigger["attempts"][-1]["code"] == "forbidden"
        explained = await world.explain(alert.body()["fingerprint"])
        assert explained["now"]["reason"] == "cooldown"
        assert "died" in explained["now"]["detail"]
        assert explained["group"]["last_outcome"] == "dead"

        # A dead trigger releases the cooldown: after the backoff the alert fires again.
        world.airflow.viewers.clear()
        await world.pass_by(minutes=31)
        await world.pass_by(seconds=10)
        assert len(world.airflow.posts) == 1
        assert sorted(t["state"] for t in await world.triggers()) == ["dead", "running"]


async def test_a_gateway_that_was_away_itself_does_not_count_its_absence_as_answers(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, delivery_deadline=3600) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.viewers.add("gateway")
        await world.push(world.alert(model="churn"))
        await world.settle()
        world.clock.pass_by(timedelta(hours=10))  # Nobody runs.
        await world.settle()
        await world.pass_by(minutes=5, steps=5)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["blocked"]) == ("pending", "forbidden")


async def _die(world: World) -> str:
    """One trigger, dead because the role was refused for too long."""
    world.airflow.viewers.add("gateway")
    await world.push(world.alert(model="churn"))
    await world.settle()
    await world.pass_by(minutes=3, steps=6)
    trigger = await world.trigger()
    assert trigger["state"] == "dead"
    world.airflow.viewers.clear()
    return str(trigger["id"])


async def test_a_dead_trigger_comes_back_by_redrive(servers: TestServers, database: str) -> None:
    async with World(servers, database, delivery_deadline=60) as world:
        world.airflow.add_dag("retrain_model")
        ident = await _die(world)
        answer = await world.post(f"/api/v1/triggers/{ident}/redrive", {})
        assert (answer.status_code, answer.json()["state"]) == (200, "pending")
        await world.settle()
        await world.pass_by(minutes=30, steps=3)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["outcome"], trigger["ended_at"] is not None) == ("succeeded", "success", True)
        again = await world.post(f"/api/v1/triggers/{ident}/redrive", {})
        assert (again.status_code, again.json()["state"]) == (409, "succeeded")
        [route] = (await world.get("/api/v1/routes"))["items"]
        assert (route["groups"][0]["state"], route["groups"][0]["failures_in_a_row"]) == ("cooldown", 0)
        assert len(world.airflow.posts) == 1


async def test_a_redriven_trigger_that_had_arrived_after_all_is_found_and_not_doubled(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, delivery_deadline=60) as world:
        world.airflow.add_dag("retrain_model")
        ident = await _die(world)
        # Somebody starts by hand what the gateway could not, with its id and its conf.
        trigger = await world.trigger()
        body = {"dag_run_id": trigger["dag_run_id"], "logical_date": None, "conf": {"gateway": {"trigger_id": ident}}}
        headers = {"Authorization": f"Bearer {world.airflow.mint('gateway')}"}
        async with world.airflow_client() as airflow:
            posted = await airflow.post("/api/v2/dags/retrain_model/dagRuns", json=body, headers=headers)
        assert posted.status_code == 200
        await world.post(f"/api/v1/triggers/{ident}/redrive", {})
        await world.settle()
        await world.pass_by(minutes=30, steps=3)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(world.airflow.posts) == len(world.airflow.runs) == 1


async def test_a_dead_trigger_is_not_redriven_beside_the_one_that_followed_it(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, delivery_deadline=60) as world:
        world.airflow.add_dag("retrain_model")
        ident = await _die(world)
        await world.pass_by(minutes=31)
        await world.pass_by(seconds=10)
        assert sorted(t["state"] for t in await world.triggers()) == ["dead", "running"]
        answer = await world.post(f"/api/v1/triggers/{ident}/redrive", {})
        assert (answer.status_code, answer.json()["reason"]) == (409, "in_flight")
        assert world.airflow.most_open == 1
