"""Whatever becomes of the request that starts a DAG run, on the way or in us: one run."""

import pytest

from tests.acceptance.world import World, policy
from tests.fakes.airflow import FakeRun
from tests.fakes.faults import Fault, answer, busy, drop, limbo, meanwhile, page, refuse, timeout
from tests.fakes.proxies import PAGES, WORDINGS, Proxy
from tests.servers import TestServers

HTML = {"content-type": "text/html"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(timeout(after_commit=True), id="a timeout after Airflow has started the run"),
        pytest.param(timeout(), id="a timeout before Airflow has seen the request"),
        pytest.param(drop(after_commit=True), id="a connection lost after Airflow has started the run"),
        pytest.param(drop(), id="a connection lost before Airflow has seen the request"),
        pytest.param(answer(500, after_commit=True), id="500 after Airflow has started the run"),
        pytest.param(answer(500), id="500 with nothing started"),
        pytest.param(
            answer(502, "<html>Bad gateway</html>", after_commit=True, headers=HTML), id="502 of a proxy, run there"
        ),
        pytest.param(answer(504, "<html>Timeout</html>", headers=HTML), id="504 of a proxy, no run"),
        pytest.param(page(), id="a login page in place of an answer"),
        pytest.param(answer(200, {"unlike": "a run"}, after_commit=True), id="200 that cannot be read, run there"),
        pytest.param(busy(7), id="429 with Retry-After"),
        pytest.param(refuse(), id="a refused connection"),
    ],
)
async def test_an_unclear_answer_leads_to_one_dag_run(servers: TestServers, database: str, fault: Fault) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(fault, on="trigger")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=5, steps=5)
        assert world.airflow.faults_pending == 0
        assert len(world.airflow.posts) == len(world.airflow.runs) == 1
        assert (await world.trigger())["state"] == "running"
        await world.pass_by(minutes=20)
        assert (await world.trigger())["state"] == "succeeded"


@pytest.mark.parametrize("proxy", [pytest.param(proxy, id=name) for name, proxy in (WORDINGS | PAGES).items()])
@pytest.mark.parametrize("there", [False, True], ids=["no run", "run there"])
async def test_whatever_the_words_of_a_404_an_unclear_answer_leads_to_one_dag_run(
    servers: TestServers, database: str, proxy: Proxy, there: bool
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.proxy = proxy
        world.airflow.disturb(answer(500, after_commit=there), on="trigger")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=5, steps=5)
        assert world.airflow.faults_pending == 0
        trigger = await world.trigger()
        assert (trigger["state"], trigger["blocked"]) == ("running", None)
        assert len(world.airflow.posts) == len(world.airflow.runs) == 1


async def test_a_run_whose_dag_was_deleted_with_it_is_gone_whatever_the_words(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        world.airflow.proxy = WORDINGS["short words"]
        world.airflow.runs.clear()
        world.airflow.dags.clear()
        await world.pass_by(minutes=5, steps=5)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["outcome"]) == ("failed", "gone")


async def test_a_proxy_that_answers_404_to_everything_ends_no_run(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.settle()
        for body in ({"message": "no Route matched"}, {"detail": "DagRun not found"}, "<html>", ""):
            world.airflow.calm()
            world.airflow.disturb(answer(404, body), on=None, times=None)
            await world.pass_by(minutes=1, steps=2)
            trigger = await world.trigger()
            assert (trigger["outcome"], trigger["blocked"]) == (None, "not_airflow")
        world.airflow.calm()
        await world.pass_by(minutes=20)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(world.airflow.runs) == 1


async def test_an_answer_that_stays_unclear_is_told_and_not_asked_again_blindly(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(timeout(after_commit=True), on="trigger")
        world.airflow.disturb(answer(500), on="run", times=None)
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=30, steps=10)
        trigger = await world.trigger()
        assert (trigger["state"], trigger["blocked"]) == ("pending", "server_error")
        assert len(world.airflow.calls("trigger")) == 1, "while the read-back fails nothing is posted again"
        world.airflow.calm()
        await world.pass_by(minutes=2, steps=2)
        assert (await world.trigger())["state"] == "succeeded"
        assert len(world.airflow.posts) == 1


async def test_a_request_in_limbo_that_lands_after_our_retry_starts_no_second_run(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(limbo(), on="trigger")
        await world.push(world.alert(model="churn"))
        await world.settle()
        assert not world.airflow.runs
        await world.pass_by(minutes=2, steps=2)
        assert len(world.airflow.runs) == 1, "read back, nothing there, so posted again"
        world.airflow.land()
        assert len(world.airflow.runs) == 1
        await world.pass_by(minutes=30, steps=3)
        assert (await world.trigger())["state"] == "succeeded"


async def test_a_conflict_with_our_own_request_that_landed_meanwhile_is_our_run(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(limbo(), on="trigger")
        world.airflow.disturb(meanwhile(world.airflow.land), on="trigger")
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=2, steps=2)
        assert [seen.status for seen in world.airflow.calls("trigger")] == [None, 200, 409]
        assert (await world.trigger())["state"] == "running"
        assert len(world.airflow.runs) == 1


async def test_a_run_of_a_stranger_under_our_id_makes_the_trigger_dead_and_named(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        [decision] = await world.push(world.alert(model="churn"))
        run_id = f"gateway__accuracy__{decision['trigger_id']}"
        stranger = FakeRun(
            "retrain_model", run_id, {"gateway": {"trigger_id": "another"}}, None, "eve", world.clock.now()
        )
        world.airflow.runs["retrain_model", run_id] = stranger
        await world.settle()
        trigger = await world.trigger()
        assert (trigger["state"], trigger["outcome"]) == ("dead", "dead")
        assert [(a["result"], a["code"]) for a in trigger["attempts"]] == [("dead", "id_taken")]
        assert "does not carry our trigger's id" in trigger["detail"]
        assert not world.airflow.posts


@pytest.mark.parametrize(
    ("op", "fault"),
    [
        pytest.param("login", None, id="while it logs in"),
        pytest.param("dag", None, id="while it looks at the DAG"),
        pytest.param("trigger", drop(), id="before the request has arrived"),
        pytest.param("trigger", None, id="after Airflow has started the run, before that is written"),
    ],
)
async def test_a_replica_killed_while_it_delivers_is_followed_by_another_one(
    servers: TestServers, database: str, op: str, fault: Fault | None
) -> None:
    async with World(servers, database, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.die_during(op, replica=0, fault=fault)
        assert (await world.trigger())["state"] == "pending"
        await world.settle()
        assert (await world.trigger())["state"] == "pending", "nobody takes it before its lease is over"
        await world.pass_by(seconds=122, steps=2)
        assert (await world.trigger())["state"] == "running"
        assert len(world.airflow.posts) == len(world.airflow.runs) == 1


async def test_a_run_started_by_a_replica_that_died_is_found_although_its_dag_was_paused_since(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.die_during("trigger", replica=0)
        world.airflow.pause("retrain_model")
        await world.pass_by(seconds=122, steps=2)
        assert (await world.trigger())["state"] in ("submitted", "running")
        assert len(world.airflow.calls("trigger")) == 1


async def test_a_replica_killed_while_it_reads_an_unclear_answer_back_starts_no_second_run(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(timeout(after_commit=True), on="trigger")
        await world.push(world.alert(model="churn"))
        await world.die_during("run", replica=0)
        await world.pass_by(seconds=122, steps=2)
        assert (await world.trigger())["state"] == "running"
        assert len(world.airflow.runs) == 1


async def test_a_proxy_that_refuses_to_read_a_run_that_may_have_begun_kills_no_trigger(
    servers: TestServers, database: str
) -> None:
    """Dead would release the cooldown, and the next notification would start a second run beside the first."""
    async with World(servers, database, policy()) as world:
        world.airflow.auto_finish = None
        world.airflow.add_dag("retrain_model")
        world.airflow.disturb(timeout(after_commit=True), on="trigger")
        world.airflow.disturb(answer(503, {"detail": "x"}), on="run")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        world.airflow.disturb(answer(400, {"detail": "Bad Request"}), on="run", times=3)
        await world.pass_by(minutes=3)
        await world.push(alert)
        await world.pass_by(minutes=40, steps=4)
        assert world.airflow.faults_pending == 0
        assert (await world.trigger())["state"] == "submitted"
        assert len(world.airflow.runs) == 1
