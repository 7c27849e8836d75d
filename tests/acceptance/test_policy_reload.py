"""The policy file changes under a running gateway: no second run, no lost trigger."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from tests.acceptance.world import POLICY, World, policy, reasons
from tests.fakes.faults import timeout
from tests.servers import TestServers

ELSEWHERE = policy("debounce: 10m").replace("ModelAccuracyLow", "SomethingElse").replace("accuracy", "another")


async def test_a_cooldown_that_became_shorter_counts_at_once(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.pass_by(hours=3, steps=6)
        assert (await world.reload(policy(cooldown="2h"))).status_code == 200
        await world.settle()
        assert len(world.airflow.posts) == 2, "without a notification, and without a pause"


async def test_after_a_reload_no_group_waits_for_the_next_look(servers: TestServers, database: str) -> None:
    """The loop that asks Prometheus reviews its own groups. Once it made all groups due, also those that others decide."""
    async with World(servers, database, policy("debounce: 10m")) as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        assert (await world.reload(policy("debounce: 30m"))).status_code == 200
        await world.settle()
        async with world.services[0].core.engine.connect() as conn:
            wakes = (await conn.execute(text("SELECT wake_at FROM groups"))).scalars().all()
        assert wakes == [world.clock.now() + timedelta(minutes=30)]


async def test_a_route_that_leaves_while_it_holds_cancels_and_a_route_that_comes_back_decides_again(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        await world.reload(ELSEWHERE)
        await world.settle()
        assert (await world.trigger())["state"] == "cancelled"
        assert "left the policy" in (await world.explain(alert.body()["fingerprint"]))["summary"]
        await world.pass_by(minutes=20)
        assert not world.airflow.posts
        await world.reload(policy("debounce: 10m"))
        await world.settle()
        assert len(world.airflow.posts) == 1, "it still fires, and nobody had to tell it again"


async def test_a_group_that_lacks_a_label_of_the_new_group_by_fires_with_it_empty(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy(cooldown="1h")) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.add_dag("retrain_")
        alert = world.alert(model="churn", env="prod")
        await world.push(alert)
        await world.settle()
        refined = policy("debounce: 5m", cooldown="1h", group_by="[model, env]")
        named = refined.replace("{id: retrain_model}", '{id: "retrain_{{group.env}}", conf: {env: "{{group.env}}"}}')
        assert (await world.reload(named)).status_code == 200
        await world.pass_by(hours=2, steps=4)
        assert reasons(await world.push(world.alert(model="fraud", env="prod"))) == [("hold", "debouncing")]
        again = world.airflow.posts[1]
        assert (again["conf"]["env"], again["conf"]["gateway"]["group"]) == ("", {"model": "churn"})
        assert [t["dag_id"] for t in await world.triggers(status="succeeded")] == ["retrain_", "retrain_model"]


async def test_a_route_that_leaves_while_its_run_is_open_is_followed_to_its_end(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.reload(ELSEWHERE)
        await world.pass_by(minutes=30, steps=3)
        assert (await world.trigger())["state"] == "succeeded"


async def test_a_dag_that_changes_while_an_attempt_is_unclear_leads_to_one_run_of_the_old_one(
    servers: TestServers, database: str
) -> None:
    """The request left, no answer came, and now the file names another DAG: what has fired is asked for as it fired."""
    async with World(servers, database) as world:
        for name in ("retrain_model", "retrain_better"):
            world.airflow.add_dag(name)
        world.airflow.disturb(timeout(after_commit=True), on="trigger")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.reload(POLICY.replace("retrain_model", "retrain_better"))
        await world.pass_by(minutes=30, steps=6)
        assert [dag for dag, _ in world.airflow.runs] == ["retrain_model"]
        trigger = await world.trigger()
        assert (trigger["state"], trigger["dag_id"]) == ("succeeded", "retrain_model")
        await world.push(world.alert(model="fraud"))
        await world.settle()
        assert sorted(dag for dag, _ in world.airflow.runs) == ["retrain_better", "retrain_model"]


async def test_a_dag_that_changes_while_a_trigger_is_held_is_the_one_that_runs(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        for name in ("retrain_model", "retrain_better"):
            world.airflow.add_dag(name)
        await world.push(world.alert(model="churn"))
        await world.reload(policy("debounce: 10m").replace("retrain_model", "retrain_better"))
        await world.pass_by(minutes=11)
        assert [dag for dag, _ in world.airflow.runs] == ["retrain_better"]


async def test_two_replicas_on_different_files_start_one_run(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("debounce: 10m"), replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        await world.reload(policy("debounce: 1h", cooldown="2h"), to=1)
        hashes = [(await world.get("/readyz", to=n))["checks"]["policy"] for n in (0, 1)]
        assert hashes[0] != hashes[1]
        alert = world.alert(model="churn")
        for _ in range(3):
            for replica in (0, 1):
                await world.push(alert, to=replica)
            await world.pass_by(minutes=10)
        assert len(world.airflow.posts) == 1
        made_by = {d["policy"] for d in (await world.explain(alert.body()["fingerprint"]))["decisions"]}
        assert made_by <= set(hashes)


# group_by.

FINE = "[model, pod]"


async def test_a_new_alert_of_a_cooling_model_waits_after_group_by_was_refined(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        first = world.alert(model="churn", pod="a")
        [fired] = await world.push(first)
        await world.settle()
        await world.pass_by(hours=1)
        await world.reload(policy(group_by=FINE))
        await world.settle()
        late_alert = world.alert(model="churn", pod="b")
        [kept, late, other] = await world.push(first, late_alert, world.alert(model="fraud", pod="b"))
        assert (kept["reason"], kept["group"]) == ("duplicate", {"model": "churn"})
        assert (late["reason"], late["group"]) == ("cooldown", {"model": "churn", "pod": "b"})
        assert (late["trigger_id"], late["until"]) == (fired["trigger_id"], "2026-11-24T12:00:00Z")
        assert other["action"] == "fire", "another model does not cool"
        await world.push(first.resolved(world.clock.now()))
        for _ in range(6):
            await world.pass_by(hours=4)
            await world.push(late_alert)
        churn = await world.triggers(label="model=churn")
        assert [t["group"] for t in churn] == [{"model": "churn", "pod": "b"}, {"model": "churn"}], "and then it fires"


@pytest.mark.parametrize("told_first", [True, False], ids=["the kept alert is told first", "it is not told"])
async def test_a_model_that_is_held_while_group_by_is_refined_is_retrained_once(
    servers: TestServers, database: str, told_first: bool
) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        first = world.alert(model="churn", pod="a")
        await world.push(first)
        await world.pass_by(minutes=5)
        await world.reload(policy("debounce: 10m", group_by=FINE))
        if told_first:  # Which makes the row of its new group, long before anything of that fires.
            await world.push(first)
        second = world.alert(model="churn", pod="a", replica="2")
        assert reasons(await world.push(second)) == [("hold", "debouncing")]
        await world.pass_by(minutes=6)
        assert len(world.airflow.posts) == 1
        await world.pass_by(minutes=20, steps=4)
        assert len(world.airflow.posts) == 1
        explained = await world.explain(second.body()["fingerprint"])
        assert explained["now"]["reason"] == "cooldown"
        assert explained["decisions"][-1]["reason"] == "cooldown", "and not that it resolved"


async def test_a_coarser_group_counts_the_newest_trigger_of_its_parts(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy(group_by=FINE)) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn", pod="a"))
        await world.pass_by(hours=2)
        [newest] = await world.push(world.alert(model="churn", pod="b"))
        await world.settle()
        await world.pass_by(hours=1)
        await world.reload(policy(group_by="[model]"))
        [late] = await world.push(world.alert(model="churn", pod="c"))
        assert (late["group"], late["reason"]) == ({"model": "churn"}, "cooldown")
        assert (late["trigger_id"], late["until"]) == (newest["trigger_id"], "2026-11-24T14:00:00Z")
        assert len(world.airflow.posts) == 2


async def test_two_replicas_that_group_differently_start_one_run_of_a_model(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        await world.reload(policy(group_by=FINE), to=1)
        await world.push(world.alert(model="churn", pod="a"), to=0)
        [other] = await world.push(world.alert(model="churn", pod="b"), to=1)
        assert (other["action"], other["reason"]) == ("suppress", "cooldown")
        await world.pass_by(hours=3, steps=3)
        assert len(world.airflow.posts) == 1


async def test_a_reset_frees_a_group_that_only_counts_what_another_one_fired(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn", pod="a"))
        await world.pass_by(hours=1)
        await world.reload(policy(group_by=FINE))
        assert reasons(await world.push(world.alert(model="churn", pod="b"))) == [("suppress", "cooldown")]
        answer = await world.post("/api/v1/routes/accuracy/reset", {"group": {"model": "churn", "pod": "b"}})
        assert answer.status_code == 200
        await world.settle()
        assert len(world.airflow.posts) == 2
