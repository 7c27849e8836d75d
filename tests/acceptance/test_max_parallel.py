"""`max_parallel`: at most so many DAG runs of ours open at once; the rest waits as pending, the oldest first."""

import pytest

from tests.acceptance.world import World, policy
from tests.fakes.faults import drop, limbo, timeout
from tests.servers import TestServers

FOUR = policy(airflow="max_parallel: 4")


async def test_forty_groups_run_four_at_a_time_and_forty_in_the_end(servers: TestServers, database: str) -> None:
    async with World(servers, database, FOUR, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        names = [f"model-{n:02}" for n in range(40)]
        for name in names:
            await world.push(world.alert(model=name), to=int(name[-1]) % 2)
        await world.settle()
        states = [t["state"] for t in await world.triggers()]
        assert (states.count("pending"), len(world.airflow.posts)) == (36, 4)
        newest = (await world.triggers())[0]
        assert "max_parallel: 4" in (await world.explain(newest["id"]))["summary"]
        await world.pass_by(minutes=220, steps=22)
        assert world.airflow.most_open == 4
        assert len(world.airflow.posts) == 40
        order = [post["conf"]["gateway"]["group"]["model"] for post in world.airflow.posts]
        assert all(abs(order.index(name) - n) < 4 for n, name in enumerate(names)), "the oldest go first"
        assert {t["state"] for t in await world.triggers()} == {"succeeded"}


async def test_unclear_answers_in_the_middle_never_open_a_fifth_run(servers: TestServers, database: str) -> None:
    async with World(servers, database, FOUR, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(*(world.alert(model=f"model-{n:02}") for n in range(12)))
        world.airflow.disturb(limbo(), on="trigger")
        world.airflow.disturb(timeout(after_commit=True), on="trigger")
        world.airflow.disturb(drop(), on="trigger")
        await world.settle()
        assert len(world.airflow.open_runs()) <= 3, "a request in limbo keeps its place"
        world.airflow.land()
        await world.pass_by(minutes=5, steps=5)
        assert len(world.airflow.open_runs()) == 4
        await world.pass_by(minutes=120, steps=16)
        assert world.airflow.most_open == 4
        assert len(world.airflow.posts) == len(world.airflow.runs) == 12
        assert {t["state"] for t in await world.triggers()} == {"succeeded"}


async def test_a_replica_that_dies_with_its_claims_frees_no_place(servers: TestServers, database: str) -> None:
    async with World(servers, database, FOUR, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(*(world.alert(model=f"model-{n:02}") for n in range(8)))
        await world.die_during("trigger", replica=0)
        await world.settle()
        assert len(world.airflow.open_runs()) <= 4
        await world.pass_by(minutes=100, steps=20)
        assert world.airflow.most_open <= 4
        assert len(world.airflow.runs) == 8
        assert {t["state"] for t in await world.triggers()} == {"succeeded"}


@pytest.mark.parametrize("not_ready", ["paused", "missing"])
async def test_triggers_that_wait_for_their_dag_take_no_place_from_others(
    servers: TestServers, database: str, not_ready: str
) -> None:
    text = policy(airflow="max_parallel: 1").replace("{id: retrain_model}", '{id: "retrain_{{group.model}}"}')
    async with World(servers, database, text) as world:
        if not_ready == "paused":
            world.airflow.add_dag("retrain_a", paused=True)
        world.airflow.add_dag("retrain_b")
        await world.push(world.alert(model="a"))
        await world.push(world.alert(model="b"))
        await world.pass_by(minutes=30, steps=10)
        by_model = {t["group"]["model"]: t["state"] for t in await world.triggers()}
        assert by_model == {"a": "pending", "b": "succeeded"}


async def test_a_lost_run_keeps_its_place_until_airflow_says_that_it_ended(servers: TestServers, database: str) -> None:
    text = policy("run_timeout: 1h\nstale_after: 7d\non_failure: keep", airflow="max_parallel: 1")
    async with World(servers, database, text) as world:
        world.airflow.auto_finish = None
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="a"))
        await world.push(world.alert(model="b"))
        await world.settle()
        [first] = world.airflow.open_runs()
        world.airflow.start_run(first.dag_run_id)
        await world.pass_by(hours=5, steps=5)
        b, a = await world.triggers()
        assert (a["outcome"], b["state"], len(world.airflow.posts)) == ("lost", "pending", 1)
        world.airflow.finish(first.dag_run_id)
        await world.pass_by(minutes=2, steps=2)
        assert len(world.airflow.posts) == 2
        assert world.airflow.most_open == 1
