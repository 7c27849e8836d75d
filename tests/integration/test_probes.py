"""Probes for PagerDuty and uptime monitors, and the ping that tells the outside that we are well."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.deadman.watchdog import Watchdog
from app.intake.batcher import Batcher
from app.kit.http import open_http
from app.kit.loop import Loop
from app.lineage.report_examples import REPORT
from tests.acceptance.world import POLICY, World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import Call, Reply
from tests.fakes.server import FakeServer
from tests.servers import TestServers

WITH_MLFLOW = POLICY + "mlflow: {tracking_uri: http://mlflow.test:5000}\n"


async def orchestrator(world: World) -> tuple[int, dict[str, str]]:
    """The status, and what is not ok, as somebody sees it who asks some seconds later."""
    world.clock.pass_by(timedelta(seconds=6))
    answer = await world.clients[0].get("/health/orchestrator")
    return answer.status_code, {name: result for name, result in answer.json()["checks"].items() if result != "ok"}


def unhealthy(airflow: FakeAirflow) -> None:
    airflow.components["scheduler"] = "unhealthy"


def unlocked(airflow: FakeAirflow) -> None:
    airflow.users["gateway"] = "another"
    airflow.rotate_secret()


@pytest.mark.parametrize(
    ("fault", "check", "detail"),
    [
        pytest.param(lambda a: a.pause("retrain_model"), "default dag retrain_model", "paused", id="paused"),
        pytest.param(lambda a: a.break_dag("retrain_model"), "default dag retrain_model", "pandas", id="broken"),
        pytest.param(lambda a: a.remove_dag("retrain_model"), "default dag retrain_model", "has no DAG", id="gone"),
        pytest.param(unhealthy, "default scheduler", "unhealthy", id="no scheduler: Airflow still answers 200"),
        pytest.param(unlocked, "default login", "refused the login", id="the password was changed"),
    ],
)
async def test_what_keeps_airflow_from_running_is_named(
    servers: TestServers, database: str, fault: Any, check: str, detail: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        assert await orchestrator(world) == (200, {})
        fault(world.airflow)
        status, found = await orchestrator(world)
        assert status == 503
        assert list(found) == [check]
        assert detail in found[check]


async def test_a_run_that_is_queued_for_long_is_named_and_one_of_others_is_not(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, queued_limit=600) as world:
        world.airflow.add_dag("retrain_model")
        world.airflow.add_dag("others")
        unhealthy(world.airflow)
        await world.settle()
        async with world.airflow_client() as client:
            token = (await client.post("/auth/token", json={"username": "gateway", "password": "gateway"})).json()
            headers = {"Authorization": f"Bearer {token['access_token']}"}
            body = {"logical_date": None, "dag_run_id": "of-others"}
            await client.post("/api/v2/dags/others/dagRuns", json=body, headers=headers)
        [decision] = await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=9)
        assert "default queue" not in (await orchestrator(world))[1]
        await world.pass_by(minutes=1)
        detail = (await orchestrator(world))[1]["default queue"]
        run_id = f"gateway__accuracy__{decision['trigger_id']}"
        assert detail == f"1 runs are queued for long: {run_id} of retrain_model since 2026-11-23T12:00:00Z"


async def test_an_airflow_that_does_not_answer_is_all_that_is_told_of_it(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.down = True
        status, found = await orchestrator(world)
        assert (status, list(found)) == (503, ["default"])
        assert found["default"].startswith("cannot connect to airflow.test:8080")


async def test_dags_that_a_group_fills_are_looked_at_once_the_group_was_seen(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy().replace("retrain_model", '"retrain_{{group.model}}"')) as world:
        world.airflow.add_dag("retrain_churn", paused=True)
        assert await orchestrator(world) == (200, {})
        await world.push(world.alert(model="churn"), world.alert(model="fraud"))
        assert list((await orchestrator(world))[1]) == ["default dag retrain_churn", "default dag retrain_fraud"]


async def test_a_storm_of_probes_is_one_look(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await asyncio.gather(*(world.clients[0].get("/health/orchestrator") for _ in range(200)))
        assert len(world.airflow.calls("health")) == 1
        await world.clients[0].get("/health/orchestrator")
        world.clock.pass_by(timedelta(seconds=5))
        await world.clients[0].get("/health/orchestrator")
        assert len(world.airflow.calls("health")) == 2


class Outside(FakeServer):
    """Somebody's server that answers everything with one status."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(ManualClock())
        self.status = status

    def answer(self, call: Call) -> Reply:
        return Reply(self.status, {"registered_models": []})


async def test_metadata_is_well_without_mlflow_and_ill_when_it_does_not_answer(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, WITH_MLFLOW, others={"mlflow.test": Outside()}, backlog_limit=60) as world:

        async def probe() -> tuple[int, dict[str, str]]:
            world.clock.pass_by(timedelta(seconds=6))
            answer = await world.clients[0].get("/health/metadata")
            return answer.status_code, answer.json()["checks"]

        assert await probe() == (200, {"mlflow": "ok", "backlog": "ok"})
        taken = await world.post("/api/v1/metadata", REPORT)
        assert taken.status_code == 202
        await world.pass_by(seconds=55)
        assert (await probe())[1]["backlog"].startswith("metadata waits since 2026-11-23T12:00:06Z")
        mlflow = world.others["mlflow.test"]
        assert isinstance(mlflow, Outside)
        mlflow.status = 503
        status, found = await probe()
        assert (status, "answered 503" in found["mlflow"]) == (503, True)


# -- who watches the gateway -------------------------------------------------------------------------------------------


ADDRESS = "http://outside.test/ping/abc"


async def pings(world: World) -> int:
    """How many the outside gets from one step."""
    outside = world.others["outside.test"]
    assert isinstance(outside, Outside)
    before = len(outside.seen)
    await world.services[0].loop("watchman").step()
    return len(outside.seen) - before


async def test_the_outside_is_pinged_only_while_all_is_well(servers: TestServers, database: str) -> None:
    outside = Outside()
    settings: dict[str, Any] = {"watchdog_url": ADDRESS, "watchdog_authorization": "GenieKey k"}
    async with World(servers, database, others={"outside.test": outside}, **settings) as world:
        assert await pings(world) == 0, "nobody watches yet"
        await world.settle()
        assert await pings(world) == 1
        assert outside.seen[0].call.headers["authorization"] == "GenieKey k"
        world.clock.pass_by(timedelta(seconds=61))
        assert await pings(world) == 0, "the watch stands still"
        await world.settle()
        waker = world.services[0].loop("waker")
        waker.started, waker.failures = True, 3
        assert await pings(world) == 0, "a loop fails"
        waker.failures = 0
        assert await pings(world) == 1
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text("ALTER TABLE watch RENAME TO elsewhere"))
        assert await pings(world) == 0, "Postgres does not answer"
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text("ALTER TABLE elsewhere RENAME TO watch"))
        outside.status = 500
        await world.services[0].loop("watchman").step()
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_watchdog_pings_total{result="withheld"} 4.0' in metrics
        assert 'gateway_watchdog_pings_total{result="sent"} 2.0' in metrics
        assert 'gateway_watchdog_pings_total{result="failed"} 1.0' in metrics


class StuckBatcher(Batcher):
    """A batcher of which the test says whether it is stuck."""

    def __init__(self, batcher: Batcher, is_stuck: bool) -> None:
        self.__dict__ |= batcher.__dict__
        self._is_stuck = is_stuck

    def stuck(self, patience: float = 30.0) -> bool:
        return self._is_stuck


async def test_a_stuck_intake_stops_the_ping(servers: TestServers, database: str) -> None:
    outside = Outside()
    async with World(servers, database) as world, open_http(transport=outside.transport()) as http:
        await world.settle()
        services = world.services[0]
        for is_stuck in (True, False):
            batcher = StuckBatcher(services.intake.batcher, is_stuck)
            watchdog = Watchdog(services.core, http, ADDRESS, {}, [], batcher)
            await watchdog.step()
            assert len(outside.seen) == (0 if is_stuck else 1)


async def test_a_stuck_loop_stops_the_ping_and_fails_livez(servers: TestServers, database: str) -> None:
    async with World(servers, database, others={"outside.test": Outside()}, watchdog_url=ADDRESS) as world:
        await world.settle()
        relay = world.services[0].loop("relay")
        hangs, relay.patience = asyncio.Event(), -1.0
        relay.step = hangs.wait
        running = asyncio.create_task(Loop.run(relay))
        await asyncio.sleep(0)
        assert (await world.clients[0].get("/livez")).status_code == 503
        assert await pings(world) == 0
        running.cancel()
