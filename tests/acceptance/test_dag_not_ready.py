"""A DAG that is paused, missing or broken is named, nothing is posted to it, and one run starts when it is ready."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.faults import answer
from tests.servers import TestServers

NAME = "retrain_model"


def _pause(airflow: FakeAirflow) -> None:
    airflow.add_dag(NAME, paused=True)


def _unpause(airflow: FakeAirflow) -> None:
    airflow.unpause(NAME)


def _nothing(_: FakeAirflow) -> None:
    """The DAG has never been there."""


def _deploy(airflow: FakeAirflow) -> None:
    airflow.broken_files.clear()
    airflow.add_dag(NAME)


def _gone(airflow: FakeAirflow) -> None:
    airflow.add_dag(NAME)
    airflow.remove_dag(NAME)


def _broken(airflow: FakeAirflow) -> None:
    airflow.add_dag(NAME)
    airflow.break_dag(NAME)


def _never_imported(airflow: FakeAirflow) -> None:
    airflow.add_broken_file(f"{NAME}.py")


def _repair(airflow: FakeAirflow) -> None:
    airflow.repair_dag(NAME)


Step = Callable[[FakeAirflow], None]


@pytest.mark.parametrize(
    ("before", "code", "words", "after"),
    [
        pytest.param(_pause, "dag_paused", "is paused in Airflow: unpause it", _unpause, id="paused"),
        pytest.param(_nothing, "dag_missing", "Airflow has no DAG 'retrain_model'", _deploy, id="never there"),
        pytest.param(_gone, "dag_missing", "Airflow has no DAG 'retrain_model'", _repair, id="its file deleted"),
        pytest.param(_broken, "dag_broken", "No module named 'pandas'", _repair, id="its file no longer imports"),
        pytest.param(_never_imported, "dag_broken", "SyntaxError", _deploy, id="its file never imported"),
    ],
)
async def test_a_dag_that_is_not_ready_is_named_and_gets_one_run_when_it_is(
    servers: TestServers, database: str, before: Step, code: str, words: str, after: Step
) -> None:
    async with World(servers, database) as world:
        before(world.airflow)
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        await world.pass_by(hours=1, steps=4)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["blocked"]) == ("pending", code)
        assert words in trigger["detail"]
        assert [(a["result"], a["code"]) for a in trigger["attempts"]] == [("retry", code)], "equal attempts are folded"
        explained = await world.explain(trigger["id"])
        assert words in explained["summary"]
        assert words in (await world.explain(alert.body()["fingerprint"]))["summary"]
        assert not world.airflow.calls("trigger"), "nothing is posted to a DAG that cannot run"
        after(world.airflow)
        await world.pass_by(minutes=30, steps=3)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(world.airflow.posts) == 1


async def test_a_paused_dag_has_no_deadline_and_one_run_starts_weeks_later(servers: TestServers, database: str) -> None:
    async with World(servers, database, delivery_deadline=600) as world:
        world.airflow.add_dag(NAME, paused=True)
        alert = world.alert(model="churn")
        for _ in range(6):
            await world.push(alert)
            await world.pass_by(days=4, steps=2)
        assert (await world.trigger())["blocked"] == "dag_paused"
        world.airflow.unpause(NAME)
        await world.pass_by(minutes=10, steps=4)
        assert (await world.trigger())["state"] == "running"
        # The cooldown counts again from Airflow's acceptance: the weeks of waiting did not use it up.
        await world.pass_by(hours=1)
        await world.push(world.alert(model="churn", pod="b"))
        await world.pass_by(hours=1, steps=2)
        assert len(world.airflow.posts) == 1


async def test_a_missing_dag_kills_its_trigger_after_the_deadline_by_name(servers: TestServers, database: str) -> None:
    async with World(servers, database, delivery_deadline=120) as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=5, steps=10)
        trigger = await world.trigger()
        assert trigger["state"] == "dead"
        assert "Airflow has no DAG" in trigger["detail"]
        assert timedelta(seconds=120) < _lived(trigger) < timedelta(seconds=220)


def _lived(trigger: dict[str, str]) -> timedelta:
    return datetime.fromisoformat(trigger["ended_at"]) - datetime.fromisoformat(trigger["created_at"])


async def test_a_dag_paused_after_its_run_was_taken_is_unpaused_to_the_same_run(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag(NAME)
        world.airflow.components["scheduler"] = "unhealthy"
        await world.push(world.alert(model="churn"))
        await world.settle()
        world.airflow.pause(NAME)
        world.airflow.components["scheduler"] = "healthy"
        await world.pass_by(hours=2, steps=4)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["dag_run_state"]) == ("submitted", "queued")
        assert "paused" in trigger["detail"]
        world.airflow.unpause(NAME)
        await world.pass_by(minutes=30, steps=2)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(world.airflow.posts) == 1


async def test_paused_dags_take_turns_with_the_others(servers: TestServers, database: str) -> None:
    """More of them than one round delivers, each back before all had their turn, and all older than the healthy one."""
    text = policy().replace("id: retrain_model", 'id: "dag_{{group.model}}"')
    async with World(servers, database, text) as world:
        for i in range(56):
            world.airflow.add_dag(f"dag_m{i}")
            world.airflow.pause(f"dag_m{i}")
        world.airflow.add_dag("dag_ok")
        await world.push(*[world.alert(model=f"m{i}") for i in range(56)])
        relay = world.services[0].loop("relay")
        for _ in range(9):
            await relay.step()
        world.clock.pass_by(timedelta(seconds=16))
        await world.push(world.alert(model="ok"))
        for _ in range(10):
            await relay.step()
            world.clock.pass_by(timedelta(seconds=3))
        assert [post["conf"]["gateway"]["group"] for post in world.airflow.posts] == [{"model": "ok"}]


async def test_a_dag_that_a_proxy_refuses_to_show_is_given_up_in_the_end(servers: TestServers, database: str) -> None:
    """Nothing was ever posted, and Airflow answers: the deadline runs."""
    async with World(servers, database, delivery_deadline=600) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(answer(400, {"detail": "Bad Request"}), on="dag", times=None)
        await world.push(world.alert(model="churn"))
        await world.pass_by(minutes=5, steps=10)
        assert (await world.trigger())["state"] == "pending"
        await world.pass_by(minutes=15, steps=30)
        assert (await world.trigger())["state"] == "dead"
        assert world.airflow.posts == []
