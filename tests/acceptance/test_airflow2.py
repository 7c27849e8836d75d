"""Airflow 2 (`api: v1`): the same stories as with Airflow 3, told to another API."""

from datetime import timedelta

import pytest

from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import Fault, answer, limbo, timeout
from tests.servers import TestServers


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def airflow(clock: ManualClock) -> FakeAirflow:
    fake = FakeAirflow(clock, auto_finish=timedelta(minutes=20), api="v1")
    fake.add_dag("retrain_model")
    return fake


def world_of(servers: TestServers, database: str, airflow: FakeAirflow, clock: ManualClock, route: str = "") -> World:
    return World(servers, database, policy(route, airflow="api: v1"), airflow=airflow, clock=clock)


async def test_an_alert_starts_one_run_without_a_logical_date_and_it_is_followed_to_its_end(
    servers: TestServers, database: str, airflow: FakeAirflow, clock: ManualClock
) -> None:
    async with world_of(servers, database, airflow, clock) as world:
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        [post] = airflow.posts
        assert post.keys() == {"dag_run_id", "conf", "note"}
        assert post["conf"]["gateway"]["group"] == {"model": "churn"}
        assert (await world.trigger())["state"] == "submitted"
        await world.push(alert)
        await world.pass_by(minutes=30, steps=3)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["dag_run_id"]) == ("succeeded", post["dag_run_id"])
        assert not airflow.calls("login"), "Airflow 2 gives no tokens"


async def test_an_older_airflow_2_that_knows_no_note_runs_without_it_and_is_not_asked_twice(
    servers: TestServers, database: str, airflow: FakeAirflow, clock: ManualClock
) -> None:
    airflow.unknown_fields = {"note"}
    async with world_of(servers, database, airflow, clock) as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        assert (await world.trigger())["state"] == "submitted"
        assert [seen.status for seen in airflow.calls("trigger")] == [400, 200]
        await world.push(world.alert(model="fraud"))
        await world.settle()
        assert [post.keys() for post in airflow.posts] == [{"dag_run_id", "conf"}] * 2
        assert [seen.status for seen in airflow.calls("trigger")] == [400, 200, 200]


async def test_a_run_that_airflow_2_refuses_for_another_reason_is_dead_by_name_and_a_later_one_keeps_its_note(
    servers: TestServers, database: str, airflow: FakeAirflow, clock: ManualClock
) -> None:
    airflow.unknown_fields = {"conf"}
    async with world_of(servers, database, airflow, clock) as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        trigger = await world.trigger()
        assert trigger["state"] == "dead"
        assert trigger["detail"].startswith("Airflow answered 400 to the trigger of DAG 'retrain_model'")
        airflow.unknown_fields = set()
        await world.push(world.alert(model="fraud"))
        await world.settle()
        [post] = airflow.posts
        assert "note" in post


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(timeout(), id="a timeout after it arrived"),
        pytest.param(answer(500, "<h1>Ooops!</h1>"), id="the web page of a failure"),
        pytest.param(limbo(), id="a timeout, and it arrives later"),
    ],
)
async def test_an_unclear_answer_is_read_back_and_leads_to_one_run(
    servers: TestServers, database: str, airflow: FakeAirflow, clock: ManualClock, fault: Fault
) -> None:
    async with world_of(servers, database, airflow, clock) as world:
        airflow.disturb(fault, on="trigger")
        await world.push(world.alert(model="churn"))
        await world.settle()
        airflow.land()
        await world.pass_by(minutes=40, steps=8)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(airflow.posts) == 1


async def test_a_broken_dag_is_named_and_gets_one_run_when_it_is_mended(
    servers: TestServers, database: str, airflow: FakeAirflow, clock: ManualClock
) -> None:
    async with world_of(servers, database, airflow, clock) as world:
        airflow.break_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        trigger = await world.trigger()
        assert trigger["blocked"] == "dag_broken"
        assert "/opt/airflow/dags/retrain_model.py" in trigger["detail"]
        assert "No module named 'pandas'" in trigger["detail"]
        airflow.repair_dag("retrain_model")
        await world.pass_by(minutes=30, steps=3)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(airflow.posts) == 1


async def test_a_login_that_is_not_taken_and_a_role_that_is_missing_have_names_of_their_own(
    servers: TestServers, database: str, airflow: FakeAirflow, clock: ManualClock
) -> None:
    async with world_of(servers, database, airflow, clock) as world:
        airflow.users["gateway"] = "another"
        await world.push(world.alert(model="churn"))
        await world.settle()
        trigger = await world.trigger()
        assert trigger["blocked"] == "token_rejected"
        assert "airflow.api.auth.backend.basic_auth" in trigger["detail"]
        airflow.users["gateway"] = "gateway"
        airflow.viewers.add("gateway")
        await world.pass_by(minutes=5)
        assert (await world.trigger())["blocked"] == "forbidden"
        airflow.viewers.clear()
        await world.pass_by(minutes=30, steps=3)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(airflow.posts) == 1


async def test_a_run_that_never_starts_is_set_to_failed_and_counts_as_lost(
    servers: TestServers, database: str, airflow: FakeAirflow, clock: ManualClock
) -> None:
    async with world_of(servers, database, airflow, clock, "run_timeout: 1h") as world:
        airflow.components["scheduler"] = "unhealthy"
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=75, steps=5)
        [ended] = airflow.runs.values()
        assert ended.state == "failed"
        assert not airflow.calls("fail_run")[0].call.query, "v1 refuses an update_mask"
        assert (await world.trigger())["state"] == "failed"
