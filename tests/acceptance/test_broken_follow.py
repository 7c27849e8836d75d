"""One open DAG run whose read meets a bug holds up no other, and leaves no task behind."""

import asyncio
import logging
from contextlib import nullcontext
from datetime import timedelta

import pytest

from tests.acceptance.world import World
from tests.fakes.faults import Call, Fault, meanwhile
from tests.servers import TestServers

MODELS = ("churn", "fraud", "price")


def raising(error: Exception) -> Fault:
    """A fault that no adapter expects."""

    def bug() -> None:
        raise error

    return meanwhile(bug)


async def _three_open_runs(world: World) -> str:
    """The id of the DAG run of churn."""
    world.airflow.add_dag("retrain_model")
    await world.push(*(world.alert(model=model) for model in MODELS))
    await world.settle()
    assert len(world.airflow.open_runs()) == 3
    [run_id] = [t["dag_run_id"] for t in await world.triggers() if t["group"] == {"model": "churn"}]
    return str(run_id)


async def test_a_run_that_meets_a_bug_is_logged_and_counted_and_the_others_are_followed(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(servers, database) as world:
        run_id = await _three_open_runs(world)

        def of_churn(call: Call) -> bool:
            return call.op == "run" and call.path.endswith(run_id)

        world.airflow.disturb(raising(ValueError("a bug")), on=of_churn, times=None)
        await world.pass_by(minutes=21)
        states = {t["group"]["model"]: t["state"] for t in await world.triggers()}
        assert states == {"churn": "submitted", "fraud": "succeeded", "price": "succeeded"}
        logged = [r for r in caplog.records if r.getMessage() == "an open DAG run could not be looked at"]
        assert {vars(r)["dag_run_id"] for r in logged} == {run_id}
        assert all(r.levelno == logging.ERROR and r.exc_info for r in logged)
        assert "trigger_id" in vars(logged[0])
        [counted] = [
            line.split()[-1]
            for line in world.services[0].core.metrics.render().decode().splitlines()
            if line.startswith('gateway_loop_items_failed_total{loop="follower"}')
        ]
        assert float(counted) == len(logged)
        world.airflow.calm()
        await world.pass_by(minutes=1)
        assert {t["state"] for t in await world.triggers()} == {"succeeded"}


@pytest.mark.parametrize("error", [ValueError("a bug"), ConnectionResetError("Postgres is away")], ids=repr)
async def test_a_round_that_breaks_leaves_no_task_behind(servers: TestServers, database: str, error: Exception) -> None:
    async with World(servers, database) as world:
        run_id = await _three_open_runs(world)
        world.airflow.disturb(raising(error), on=lambda call: call.op == "run" and call.path.endswith(run_id))
        world.clock.pass_by(timedelta(minutes=1))
        before = asyncio.all_tasks()
        expected = pytest.raises(ConnectionResetError) if isinstance(error, OSError) else nullcontext()
        with expected:
            await world.services[0].loop("follower").step()
        assert asyncio.all_tasks() == before
        assert world.airflow.faults_pending == 0
