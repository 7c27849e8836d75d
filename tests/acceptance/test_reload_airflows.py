"""An entry of `airflow:` changes under a running gateway: no run is lost sight of, none is started twice."""

from tests.acceptance.world import POLICY, World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import limbo
from tests.integration.api import problem
from tests.servers import TestServers

TWO = """
version: 1
airflow:
  - {name: default, url: "http://airflow.test:8080", auth: {username: gateway, password: gateway}}
  - {name: other, url: "http://airflow.test:8080/second", auth: {username: gateway, password: gateway}}
routes:
  - {name: drift, match: ['alertname="Drift"'], dag: {airflow: other, id: retrain_model}}
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    cooldown: 24h
    failure_backoff: 30m
    dag: {airflow: default, id: retrain_model}
"""


async def test_an_airflow_with_open_triggers_is_not_dropped_until_they_have_ended(
    servers: TestServers, database: str
) -> None:
    moved = TWO.replace("  - {name: default", "  - {name: main").replace("airflow: default", "airflow: main")
    async with World(servers, database, TWO) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        [line] = problem(await world.reload(moved), 422, "policy_refused")["errors"]
        assert "airflow: 'default' is gone, but 1 of its triggers are open" in line
        assert (await world.get("/readyz", verbose="1"))["policy"]["refused"]["errors"] == [line]
        await world.pass_by(minutes=30, steps=3)
        assert (await world.trigger())["state"] == "succeeded", "followed in the Airflow that has it"
        await world.services[0].loop("policy").step()
        await world.services[0].loop("policy").step()
        shown = (await world.get("/readyz", verbose="1"))["policy"]
        assert shown["refused"] is None, "taken by itself"
        await world.push(world.alert(model="fraud"))
        assert (await world.triggers(route="accuracy"))[0]["airflow"] == "main"


async def test_an_address_does_not_change_while_a_run_may_be_at_the_old_one(
    servers: TestServers, database: str
) -> None:
    other = FakeAirflow(ManualClock())
    other.users["gateway"] = "gateway"
    other.add_dag("retrain_model")
    moved = policy().replace("http://airflow.test:8080", "http://moved.test:8080")
    async with World(servers, database, others={"moved.test": other}) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(limbo(), on="trigger")
        await world.push(world.alert(model="churn"))
        await world.settle()
        [line] = problem(await world.reload(moved), 422, "policy_refused")["errors"]
        assert "airflow: 'default' has another address, but 1 of its triggers may have a run at the old one" in line
        world.airflow.land()
        await world.pass_by(minutes=5, steps=10)
        assert len(world.airflow.runs) == 1
        problem(await world.reload(moved), 422, "policy_refused")
        await world.pass_by(minutes=30, steps=3)
        assert (await world.trigger())["state"] == "succeeded", "followed where it is"
        for _ in range(2):
            await world.services[0].loop("policy").step()
        assert (await world.get("/readyz", verbose="1"))["policy"]["refused"] is None, "taken by itself"
        assert len(other.posts) == 0


async def test_a_wrong_address_is_mended_while_a_trigger_waits_for_it(servers: TestServers, database: str) -> None:
    other = FakeAirflow(ManualClock())
    other.down = True
    wrong = policy().replace("http://airflow.test:8080", "http://wrong.test:8080")
    async with World(servers, database, wrong, others={"wrong.test": other}) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        assert (await world.reload(policy())).status_code == 200, "nothing has left for the old one"
        await world.pass_by(minutes=2, steps=4)
        assert len(world.airflow.posts) == 1


async def test_an_airflow_that_only_a_held_trigger_would_use_may_go(servers: TestServers, database: str) -> None:
    held = policy("debounce: 10m")
    async with World(servers, database, held) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        assert (await world.reload(held.replace("name: default", "name: main"))).status_code == 200
        await world.pass_by(minutes=11)
        assert (await world.trigger())["airflow"] == "main"
        assert len(world.airflow.posts) == 1


async def test_a_reload_keeps_the_token_of_an_airflow_whose_entry_stays(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.reload(policy(cooldown="48h", airflow="max_parallel: 3"))
        await world.push(world.alert(model="fraud"))
        await world.settle()
        assert len(world.airflow.posts) == 2
        assert len(world.airflow.calls("login")) == 1


async def test_a_password_that_is_corrected_in_the_file_is_used_at_once(servers: TestServers, database: str) -> None:
    wrong = POLICY.replace("password: gateway", "password: wrong")
    async with World(servers, database, wrong) as world:
        world.airflow.add_dag("retrain_model")
        [decision] = await world.push(world.alert(model="churn"))
        await world.settle()
        assert (await world.trigger())["blocked"] == "token_rejected"
        answer = await world.reload(POLICY)
        assert answer.json()["changed"] is False, "no secret is in the hash"
        await world.pass_by(minutes=2, steps=2)
        assert (await world.trigger())["id"] == decision["trigger_id"]
        assert len(world.airflow.posts) == 1


async def test_a_raised_cap_on_open_runs_counts_at_once(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy(airflow="max_parallel: 1")) as world:
        world.airflow.add_dag("retrain_model")
        for n in range(4):
            await world.push(world.alert(model=f"m{n}"))
        await world.settle()
        assert len(world.airflow.posts) == 1
        await world.reload(policy(airflow="max_parallel: 3"))
        await world.settle()
        assert len(world.airflow.posts) == 3
