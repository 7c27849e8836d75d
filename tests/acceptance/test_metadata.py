"""POST /api/v1/metadata: what components report becomes runs of MLflow, once, whenever MLflow is there."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app import tables
from mlflow_spool.records import Answer, Call
from tests.acceptance.world import World
from tests.fakes.mlflow import MlflowSite
from tests.integration.api import POLICY, problem
from tests.servers import TestServers
from tests.sizes import seed, size
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, at, never

WITH_MLFLOW = POLICY + "mlflow: {tracking_uri: http://mlflow.test}\n"
TRIGGER = "0198c2f0-5b7f-7d02-8c44-aa0f51c09b7e"
TOLD: dict[str, Any] = {
    "component": "training",
    "trigger_id": TRIGGER,
    "who": "airflow",
    "experiment": "churn",
    "params": {"max_depth": 6, "rate": 0.1, "early": True},
    "metrics": {"f1": 0.83, "auc": 0.91},
    "tags": {"team": "risk"},
    "artifacts": {"model": "s3://models/churn/1/model.pkl"},
    "datasets": [{"name": "churn", "uri": "s3://features/churn", "digest": "sha256:" + "9f" * 32}],
    "git_commit": "d6cd1e2bd19e03a81132a23b2025920577f84e37",
}


def world(servers: TestServers, database: str, site: MlflowSite, **more: Any) -> World:
    return World(servers, database, more.pop("policy", WITH_MLFLOW), others={"mlflow.test": site}, **more)


async def report(world: World, *, to: int = 0, key: str | None = None, **body: Any) -> dict[str, Any]:
    headers = {"Idempotency-Key": key} if key else {}
    answer = await world.clients[to].post("/api/v1/metadata", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    taken: dict[str, Any] = answer.json()
    return taken


async def train(world: World) -> None:
    """What the components of one DAG run report."""
    await report(world, component="data_retrieval", trigger_id=TRIGGER, state="started")
    await report(world, component="data_retrieval", trigger_id=TRIGGER, state="succeeded", tags={"rows": "1000"})
    await report(world, **{**TOLD, "params": {}, "metrics": {}}, state="started")
    for step in range(3):
        await report(
            world, component="training", trigger_id=TRIGGER, state="started", step=step, metrics={"loss": 1 - step / 4}
        )
    await report(world, **TOLD, state="succeeded")
    await report(world, component="evaluation", trigger_id=TRIGGER, state="failed", experiment="churn")


def held(site: MlflowSite) -> dict[str, Any]:
    """What MLflow holds, with names for ids and without moments."""
    experiments = {experiment["experiment_id"]: experiment["name"] for experiment in site.fake.experiments.values()}
    runs = {}
    for run in site.fake.runs.values():
        name = run["info"]["run_name"]
        assert name not in runs, f"{name} is there twice"
        tags = {key: value for key, value in run["tags"].items() if key != "mlflow_spool.run_key"}
        metrics = {key: [(step, value) for step, _, value in values] for key, values in run["metrics"].items()}
        where = experiments[run["info"]["experiment_id"]]
        runs[name] = {"in": where, "status": run["info"]["status"], "params": run["params"], "tags": tags}
        runs[name] |= {"metrics": metrics, "inputs": run.get("inputs", [])}
    return {"experiments": sorted(experiments.values()), "runs": runs}


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What one DAG run leaves in an MLflow that is well."""
    origin = {"gateway.trigger_id": TRIGGER}
    training = origin | {
        "gateway.component": "training",
        "mlflow.user": "anonymous",
        "mlflow.source.git.commit": TOLD["git_commit"],
        "gateway.artifact.model": "s3://models/churn/1/model.pkl",
        "gateway.dataset.churn": "sha256:" + "9f" * 32,
        "team": "risk",
    }
    source = {
        "name": "churn",
        "digest": ("9f" * 32)[:36],
        "source_type": "s3",
        "source": '{"uri": "s3://features/churn"}',
    }
    dataset = {"dataset": source, "tags": [{"key": "mlflow.data.context", "value": "training"}]}
    retrieval = origin | {"gateway.component": "data_retrieval", "mlflow.user": "anonymous", "rows": "1000"}
    evaluation = origin | {"gateway.component": "evaluation", "mlflow.user": "anonymous"}
    nothing: dict[str, Any] = {"params": {}, "metrics": {}, "inputs": []}
    return {
        "experiments": ["Default", "churn"],
        "runs": {
            "data_retrieval": nothing | {"in": "Default", "status": "FINISHED", "tags": retrieval},
            "training": {
                "in": "churn",
                "status": "FINISHED",
                "params": {"max_depth": "6", "rate": "0.1", "early": "True"},
                "metrics": {"loss": [(0, 1.0), (1, 0.75), (2, 0.5)], "f1": [(0, 0.83)], "auc": [(0, 0.91)]},
                "tags": training | {"mlflow.user": "airflow"},
                "inputs": [dataset],
            },
            "evaluation": nothing | {"in": "churn", "status": "FAILED", "tags": evaluation},
        },
    }


async def test_what_components_report_becomes_one_run_each_tagged_with_the_trigger(
    servers: TestServers, database: str, expected: dict[str, Any]
) -> None:
    site = MlflowSite()
    async with world(servers, database, site) as gateway:
        await train(gateway)
        await gateway.pass_by(minutes=1, steps=6)
        assert held(site) == expected


async def test_a_report_that_comes_again_is_the_same_report(servers: TestServers, database: str) -> None:
    site = MlflowSite()
    async with world(servers, database, site) as gateway:
        first = await report(gateway, **TOLD, state="succeeded")
        again = await report(gateway, **TOLD, state="succeeded")
        assert first["records"] > 5
        assert (again["id"], again["run"], again["records"]) == (first["id"], first["run"], 0)
        keyed = await report(gateway, key="task-1", **TOLD, state="succeeded")
        assert keyed["id"] != first["id"]
        assert (await report(gateway, key="task-1", **TOLD, state="succeeded"))["id"] == keyed["id"]
        other = await gateway.clients[0].post(
            "/api/v1/metadata", json={**TOLD, "state": "failed"}, headers={"Idempotency-Key": "task-1"}
        )
        problem(other, 422, "idempotency_mismatch")
        await gateway.pass_by(minutes=1, steps=6)
        assert list(held(site)["runs"]) == ["training"]


async def test_reports_of_one_run_that_race_into_two_replicas_make_one_run(servers: TestServers, database: str) -> None:
    site = MlflowSite()
    async with world(servers, database, site, replicas=2) as gateway:
        reports = [
            report(
                gateway, to=n % 2, component="training", run="nightly", state="started", step=n, metrics={"loss": n / 8}
            )
            for n in range(8)
        ]
        runs = {taken["run"] for taken in await asyncio.gather(*reports)}
        assert len(runs) == 1
        await gateway.pass_by(minutes=1, steps=6)
        (run,) = held(site)["runs"].values()
        assert sorted(run["metrics"]["loss"]) == [(n, n / 8) for n in range(8)]


async def test_mlflow_away_for_days_loses_and_doubles_nothing(
    servers: TestServers, database: str, expected: dict[str, Any]
) -> None:
    site = MlflowSite()
    async with world(servers, database, site, replicas=2) as gateway:
        site.fake.plan = always(Fault.UNAVAILABLE)
        await train(gateway)
        await gateway.pass_by(hours=1, steps=4)
        site.down = True
        await gateway.pass_by(days=5, steps=20)
        assert site.fake.runs == {}
        first = await gateway.get("/api/v1/metadata", state="pending", limit=2)
        rest = await gateway.get("/api/v1/metadata", state="pending", limit=1000, cursor=first["next"])
        assert len(first["items"]) == 2
        keys = [item["key"] for item in first["items"] + rest["items"]]
        assert (len(set(keys)), rest["next"]) == (len(keys), None)
        run = (await report(gateway, **TOLD, state="succeeded"))["run"]
        away = await gateway.get(f"/api/v1/metadata/{run}")
        assert (away["complete"], away["readable"], away["run_id"]) == (False, 0, None)
        site.down, site.fake.plan = False, never
        await gateway.pass_by(minutes=10, steps=20)
        assert held(site) == expected
        shown = await gateway.get(f"/api/v1/metadata/{run}", to=1)
        assert (shown["complete"], shown["missing"]) == (True, [])
        assert shown["spooled"] == shown["readable"] > 15


async def test_a_stream_that_gets_on_between_hiccups_waits_no_longer_after_each(
    servers: TestServers, database: str
) -> None:
    site = MlflowSite()
    async with world(servers, database, site) as gateway:
        for n in range(16):
            data = {"name": f"d{n}", "uri": f"s3://features/{n}", "digest": "sha256:" + f"{n:02}" * 32}
            await report(gateway, component="training", run="nightly", state="started", datasets=[data])
        site.fake.plan = lambda number, _line: Fault.UNAVAILABLE if number % 5 == 4 else Fault.NONE
        relay, seen = gateway.services[0].loop("relay"), []
        for _ in range(60):
            if not await relay.step():
                async with gateway.services[0].core.engine.connect() as conn:
                    seen.append((await conn.execute(select(tables.outbox.c.state, tables.outbox.c.attempts))).one())
                gateway.clock.pass_by(timedelta(seconds=2))
        hiccups = [row.attempts for row in seen if row.state == "pending"]
        assert len(hiccups) > 3
        assert set(hiccups) == {1}
        (run,) = held(site)["runs"].values()
        assert len(run["inputs"]) == 16


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE], ids=lambda fault: fault.value)
async def test_a_fault_at_each_request_changes_nothing(
    servers: TestServers, new_database: Callable[[], str], expected: dict[str, Any], fault: Fault
) -> None:
    for number in range(seed() % size(20, 1), 20, size(20, 1)):
        site = MlflowSite()
        site.fake.plan = at(number, fault)
        async with world(servers, new_database(), site) as gateway:
            await train(gateway)
            await gateway.pass_by(minutes=10, steps=20)
            assert held(site) == expected, f"request {number}"


async def test_a_gateway_that_dies_at_any_request_doubles_and_loses_nothing(
    servers: TestServers, new_database: Callable[[], str], expected: dict[str, Any]
) -> None:
    for number in range(seed() % size(20, 1), 20, size(20, 1)):
        site = MlflowSite()
        async with world(servers, new_database(), site, replicas=2) as gateway:
            await train(gateway)
            await _die_at(gateway, site, number)
            await gateway.pass_by(minutes=10, steps=20)
            assert held(site) == expected, f"request {number}"


async def _die_at(gateway: World, site: MlflowSite, number: int) -> None:
    """The first replica's relay is cut off while request `number` is carried out: what it claimed is never settled."""

    async def deliver() -> None:
        while await gateway.services[0].loop("relay").step():
            pass

    delivering = asyncio.create_task(deliver())

    def watch(seen: int, line: str) -> Fault:
        if seen == number:
            delivering.cancel()
        return Fault.NONE

    site.fake.plan = watch
    with suppress(asyncio.CancelledError):
        await delivering
    site.fake.plan = never


async def test_what_mlflow_refuses_is_set_aside_and_shown_and_the_rest_goes_on(
    servers: TestServers, database: str
) -> None:
    site = MlflowSite()
    async with world(servers, database, site) as gateway:
        await report(gateway, component="training", run="r", state="started", params={"depth": 1, "kept": 2})
        taken = await report(
            gateway, component="training", run="r", state="succeeded", params={"depth": 9}, metrics={"f1": 0.5}
        )
        await gateway.pass_by(minutes=1, steps=6)
        (run,) = held(site)["runs"].values()
        assert (run["status"], run["params"], run["metrics"]) == (
            "FINISHED",
            {"depth": "1", "kept": "2"},
            {"f1": [(0, 0.5)]},
        )
        metrics = (await gateway.clients[0].get("/metrics")).text
        assert 'gateway_metadata_records_total{result="aside"} 1.0' in metrics
        (aside,) = (await gateway.get("/api/v1/metadata"))["items"]
        assert aside["problem"].startswith("400 INVALID_PARAMETER_VALUE")
        shown = await gateway.get(f"/api/v1/metadata/{taken['run']}")
        assert (shown["complete"], shown["records"]["aside"]) == (False, 1)
        assert shown["missing"] == [f"log, refused: {aside['problem']}"]


class Forbidding(FakeMlflow):
    """Lets our login in, but not log what names `forbidden`, as MLflow's basic-auth says it."""

    def __init__(self, forbidden: str) -> None:
        super().__init__()
        self.forbidden = forbidden

    def send(self, call: Call, timeout: float) -> Answer:
        if self.forbidden and call.path.endswith("log-batch") and self.forbidden in str(call.body):
            return Answer(403, {"message": "Permission denied"})
        return super().send(call, timeout)


async def test_what_our_login_may_not_write_is_set_aside_after_a_day_and_comes_back_by_redrive(
    servers: TestServers, database: str
) -> None:
    site = MlflowSite(mlflow := Forbidding("loss"))
    async with world(servers, database, site) as gateway:
        taken = await report(gateway, component="training", run="r", state="started", metrics={"loss": 0.25})
        await report(gateway, component="training", run="other", state="succeeded")
        await report(gateway, component="training", run="r", state="succeeded", metrics={"f1": 0.5})
        await gateway.pass_by(hours=20, steps=13)
        assert (await gateway.get("/api/v1/metadata"))["items"] == []
        (waiting, *_) = (await gateway.get("/api/v1/metadata", state="pending"))["items"]
        assert waiting["problem"].startswith("403"), "it is named while it waits"
        assert held(site)["runs"]["training other"]["status"] == "FINISHED"
        await gateway.pass_by(hours=8, steps=6)
        (aside,) = (await gateway.get("/api/v1/metadata"))["items"]
        assert aside["problem"].startswith("403")
        assert held(site)["runs"]["training r"]["status"] == "FINISHED"
        nothing = await gateway.post("/api/v1/metadata/redrive?stream=run:other", b"")
        assert (nothing.status_code, nothing.json()) == (200, {"records": 0})
        mlflow.forbidden = ""
        assert (await gateway.post(f"/api/v1/metadata/redrive?stream={aside['stream']}", b"")).json() == {"records": 1}
        await gateway.pass_by(minutes=5, steps=5)
        assert held(site)["runs"]["training r"]["metrics"] == {"f1": [(0, 0.5)], "loss": [(0, 0.25)]}
        assert (await gateway.get(f"/api/v1/metadata/{taken['run']}"))["complete"]


async def test_without_an_mlflow_in_the_policy_it_waits_until_there_is_one(
    servers: TestServers, database: str, expected: dict[str, Any]
) -> None:
    site = MlflowSite()
    async with world(servers, database, site, policy=POLICY) as gateway:
        await train(gateway)
        await gateway.pass_by(hours=2, steps=4)
        assert site.fake.seen == []
        assert (await gateway.reload(WITH_MLFLOW)).status_code == 200
        await gateway.pass_by(minutes=2, steps=8)
        assert held(site) == expected


async def test_a_proxy_that_answers_for_a_missing_mlflow_costs_nothing(
    servers: TestServers, database: str, expected: dict[str, Any]
) -> None:
    site = MlflowSite()
    async with world(servers, database, site) as gateway:
        site.fake.plan = always(Fault.NOT_FOUND)
        await train(gateway)
        await gateway.pass_by(days=2, steps=20)
        site.fake.plan = never
        await gateway.pass_by(minutes=10, steps=20)
        assert held(site) == expected


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"state": "started", "run": "r"}, "#/component"),
        ({"component": "training", "state": "done", "run": "r"}, "#/state"),
        ({"component": "training", "state": "started"}, "#"),
        ({"component": "training", "state": "started", "run": "r", "tags": {"gateway.trigger_id": "x"}}, "#"),
        ({"component": "training", "state": "started", "run": "r", "params": {"a\u0000": 1}}, "#/params/a\u0000/[key]"),
        ({"component": "training", "state": "started", "run": "a\u0000"}, "#"),
        ({"component": "training", "state": "started", "run": "r", "unknown": 1}, "#/unknown"),
        ({"component": "training", "state": "started", "run": "r", "metrics": {"f1": "high"}}, "#/metrics/f1"),
        ({"records": []}, "#/records"),
        ({"records": [{"schema": 2}]}, "#/records/0/schema"),
    ],
)
async def test_a_bad_report_is_refused_where_it_is_wrong(
    servers: TestServers, database: str, body: dict[str, Any], pointer: str
) -> None:
    async with world(servers, database, MlflowSite()) as gateway:
        refused = problem(await gateway.post("/api/v1/metadata", body), 422, "invalid")
        assert pointer in [error["pointer"] for error in refused["errors"]]
