"""A DAG that Airflow always fails on holds up no other DAG of that Airflow, and its trigger dies with the reason."""

from collections.abc import Callable

import pytest
from sqlalchemy import delete

from app import tables
from tests.acceptance.world import World, policy
from tests.fakes.faults import Call, Fault, answer, busy, drop, timeout
from tests.servers import TestServers
from tests.sizes import size

TWO = policy().replace("{id: retrain_model}", '{id: "retrain_{{group.model}}"}')
ONE_AT_A_TIME = policy(airflow="max_parallel: 1").replace("{id: retrain_model}", '{id: "retrain_{{group.model}}"}')


def of(op: str, dag_id: str = "retrain_bad") -> Callable[[Call], bool]:
    return lambda call: call.op == op and call.path.split("/")[4].startswith(dag_id)


#: What goes wrong with the bad DAG alone: operation and fault.
POISON: dict[str, list[tuple[str, Fault]]] = {
    "500, and no run": [("trigger", answer(500))],
    "no answer, and no run": [("trigger", timeout())],
    "a lost connection, and no run": [("trigger", drop())],
    "502 of a proxy, and no run": [("trigger", answer(502, "", headers={"content-type": "text/html"}))],
    "503 with a long Retry-After, and no run": [("trigger", answer(503, "", headers={"retry-after": "3600"}))],
    "429 with a long Retry-After": [("trigger", busy(3600))],
    "500, and the run must not be read": [("trigger", answer(500)), ("run", answer(403))],
    "500, and 401 for the run": [("trigger", answer(500)), ("run", answer(401))],
    "500, and 500 for the run": [("trigger", answer(500)), ("run", answer(500))],
    "no answer to anything": [("trigger", timeout()), ("run", timeout()), ("dag", timeout())],
    "500 for the DAG itself": [("dag", answer(500))],
}
#: The ways that differ most. PROVE=1: every way.
CHOSEN = size(
    [
        "500, and no run",
        "503 with a long Retry-After, and no run",
        "500, and 401 for the run",
        "no answer to anything",
        "500 for the DAG itself",
    ],
    list(POISON),
)
#: Where nothing can have begun as far as reads show, and Airflow does not ask us to wait for an hour.
HOPELESS = [name for name in CHOSEN if "the run" not in name and "429" not in name]


def spoil(world: World, name: str) -> None:
    for op, fault in POISON[name]:
        world.airflow.disturb(fault, on=of(op), times=None)


@pytest.mark.parametrize("name", CHOSEN)
async def test_another_dag_starts_within_seconds(servers: TestServers, database: str, name: str) -> None:
    async with World(servers, database, TWO) as world:
        for dag_id in ("retrain_bad", "retrain_well0", "retrain_well1", "retrain_well2"):
            world.airflow.add_dag(dag_id)
        spoil(world, name)
        await world.push(world.alert(model="bad"))
        await world.pass_by(minutes=10, steps=40)
        for n in range(3):
            world.airflow.posts.clear()
            await world.push(world.alert(model=f"well{n}"))
            await world.pass_by(seconds=4, steps=4)
            assert [post["conf"]["gateway"]["group"] for post in world.airflow.posts] == [{"model": f"well{n}"}]
            await world.pass_by(minutes=5, steps=10)


@pytest.mark.parametrize("name", CHOSEN)
async def test_it_holds_the_only_slot_for_a_short_time(servers: TestServers, database: str, name: str) -> None:
    async with World(servers, database, ONE_AT_A_TIME) as world:
        for dag_id in ("retrain_bad", "retrain_well"):
            world.airflow.add_dag(dag_id)
        spoil(world, name)
        await world.push(world.alert(model="bad"))
        await world.settle()
        await world.push(world.alert(model="well"))
        await world.pass_by(minutes=5, steps=100)
        assert [post["conf"]["gateway"]["group"] for post in world.airflow.posts] == [{"model": "well"}]
        assert world.airflow.most_open == 1


@pytest.mark.parametrize("name", HOPELESS)
async def test_its_trigger_dies_within_the_deadline_with_the_reason(
    servers: TestServers, database: str, name: str
) -> None:
    async with World(servers, database, TWO, delivery_deadline=600.0) as world:
        world.airflow.add_dag("retrain_bad")
        spoil(world, name)
        await world.push(world.alert(model="bad"))
        await world.pass_by(minutes=5, steps=20)
        assert (await world.trigger())["state"] == "pending"
        await world.pass_by(minutes=10, steps=40)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["outcome"]) == ("dead", "dead")
        assert "given up after" in trigger["detail"]
        assert "answer" in trigger["detail"] or "connection" in trigger["detail"]
        assert not world.airflow.posts


OUTAGES = {"500": answer(500), "502": answer(502, "<html>"), "429": busy(5), "hangs": timeout()}


@pytest.mark.parametrize("name", size(["500", "429"], list(OUTAGES)))
async def test_an_outage_kills_no_trigger_while_the_health_page_answers(
    servers: TestServers, database: str, name: str
) -> None:
    """Such as the users' directory behind the login, or the pool of database connections: health needs neither."""
    async with World(servers, database, TWO, delivery_deadline=600.0) as world:
        world.airflow.add_dag("retrain_bad")
        world.airflow.disturb(OUTAGES[name], on=lambda call: call.op != "health", times=None)
        await world.push(world.alert(model="bad"))
        await world.pass_by(minutes=40, steps=80)
        assert (await world.trigger())["state"] == "pending"
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_breaker_open{target="airflow:default"} 1.0' in metrics
        world.airflow.calm()
        await world.pass_by(minutes=2, steps=20)
        assert len(world.airflow.posts) == len(world.airflow.runs) == 1


@pytest.mark.parametrize("text", [TWO, ONE_AT_A_TIME], ids=["no cap", "one at a time"])
async def test_of_nine_dags_eight_are_bad(servers: TestServers, database: str, text: str) -> None:
    async with World(servers, database, text) as world:
        for n in range(8):
            world.airflow.add_dag(f"retrain_bad{n}")
        world.airflow.add_dag("retrain_well")
        spoil(world, "500, and no run")
        await world.push(*(world.alert(model=f"bad{n}") for n in range(8)))
        await world.push(world.alert(model="well"))
        await world.pass_by(seconds=20, steps=20)
        assert [post["conf"]["gateway"]["group"] for post in world.airflow.posts] == [{"model": "well"}]


async def test_the_probe_explain_and_the_page_name_it(servers: TestServers, database: str) -> None:
    async with World(servers, database, TWO, waiting_notice=300.0) as world:
        world.airflow.add_dag("retrain_bad")
        spoil(world, "500, and no run")
        await world.push(world.alert(model="bad"))
        await world.pass_by(minutes=1, steps=12)
        trigger = await world.trigger()
        probe = await world.clients[0].get("/health/orchestrator")
        assert probe.status_code == 503
        faults = {name: state for name, state in probe.json()["checks"].items() if state != "ok"}
        assert list(faults) == ["default triggers"]
        assert str(trigger["id"]) in faults["default triggers"]
        assert "answered 500" in faults["default triggers"]
        explained = await world.explain(trigger["id"])
        assert "answered 500" in explained["summary"]
        assert "log of the API server" in explained["next_step"]
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_breaker_open{target="airflow:default"} 0.0' in metrics
        await world.pass_by(minutes=5, steps=20)
        [notice] = (await world.get("/api/v1/notices"))["items"]
        assert notice["event"] == "trigger_waiting"
        assert "answered 500" in notice["detail"]


async def test_an_item_whose_trigger_is_no_longer_kept_is_dead_and_named(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(delete(tables.triggers))
        await world.services[0].loop("relay").step()
        async with world.services[0].core.engine.begin() as conn:
            [row] = (await conn.execute(tables.outbox.select())).mappings().all()
        assert (row["state"], row["detail"]) == ("dead", "the trigger is no longer kept")


async def test_one_run_a_group_when_a_bad_dag_is_repaired(servers: TestServers, database: str) -> None:
    """Some of its requests had arrived after all."""
    async with World(servers, database, TWO) as world:
        world.airflow.add_dag("retrain_bad")
        world.airflow.disturb(answer(500), on=of("trigger"), times=5)
        world.airflow.disturb(timeout(after_commit=True), on=of("trigger"))
        world.airflow.disturb(answer(500), on=of("run"), times=2)
        await world.push(world.alert(model="bad"))
        await world.pass_by(minutes=15, steps=60)
        assert world.airflow.faults_pending == 0
        assert len(world.airflow.posts) == len(world.airflow.runs) == 1
        assert (await world.trigger())["state"] in ("running", "submitted", "succeeded")
