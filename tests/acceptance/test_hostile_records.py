"""A token that may report hands over records that break a delivery: they cost themselves alone."""

import json
from typing import Any

import pytest
from sqlalchemy import insert

from app import tables
from app.lineage import record_store as store
from mlflow_spool.records import API, Answer, Call, draft
from tests.acceptance.test_metadata import held, report, world
from tests.acceptance.world import World
from tests.fakes.mlflow import MlflowSite
from tests.integration.api import problem
from tests.servers import TestServers
from tests.spool.fake import FakeMlflow

PATH = "/api/v1/metadata"
RUN = {"run_id": "0" * 32}
KEY = "mlflow_spool.run_key"


def nested(levels: int) -> Any:
    return json.loads('{"a":' * levels + "1" + "}" * levels)


#: What a client of the hand-over may send in place of a write of MLflow's.
HOSTILE: dict[str, tuple[str, str, Any]] = {
    "700 levels": ("POST", "runs/log-batch", RUN | {"params": [nested(700)]}),
    "33 levels": ("POST", "runs/log-batch", RUN | {"params": [nested(33)]}),
    "700 levels of a name": ("POST", "model-versions/create", {"name": nested(700)}),
    "a number that no JSON has": ("POST", "runs/log-metric", RUN | {"key": "f1", "value": float("nan")}),
    "an id of 65,000 characters": ("POST", "runs/outputs", {"run_id": "r" * 65_000, "models": []}),
    "no list of tags": ("POST", "runs/create", {"experiment_id": "0", "tags": 5}),
    "no run": ("POST", "runs/log-metric", {"key": "a", "value": 1, "run_uuid": "0" * 32}),
    "tags that are null": ("POST", "runs/create", {"experiment_id": "0", "tags": None}),
}
#: What looks wrong and only MLflow can judge: it holds up nothing.
ODD: dict[str, tuple[str, str, Any]] = {
    "a version in another alphabet": ("PATCH", "model-versions/update", {"name": "churn", "version": "²"}),
    "a version of 5,000 digits": ("PATCH", "model-versions/update", {"name": "churn", "version": "9" * 5000}),
    "a version of 3,000 digits": ("PATCH", "model-versions/update", {"name": "churn", "version": "9" * 3000}),
    "no list of params": ("POST", "runs/log-batch", RUN | {"params": 5}),
    "params that are null": ("POST", "runs/log-batch", RUN | {"params": None}),
    "params without a name": ("POST", "runs/log-batch", RUN | {"params": [{"value": "1"}]}),
    "params that are numbers": ("POST", "runs/log-batch", RUN | {"params": [1, 2]}),
    "a name that is a list": ("POST", "runs/log-parameter", RUN | {"key": ["a"], "value": "1"}),
    "no list of models": ("POST", "runs/outputs", RUN | {"models": 5}),
    "models that are numbers": ("POST", "runs/outputs", RUN | {"models": [1]}),
    "models whose id is a list": ("POST", "runs/outputs", RUN | {"models": [{"model_id": ["m"]}]}),
    "no list of model params": ("POST", "logged-models/m-1/params", {"params": 5}),
}


def record(number: int, method: str, path: str, body: Any) -> dict[str, Any]:
    """A record with this body as a client without our code writes it."""
    usual = {"name": "x", **RUN, "experiment_id": "0"}
    made = draft(Call(method, f"{API}/{path}", usual), 1, f"{number:032x}")
    assert made is not None
    return made.exported() | {"body": body}


class Strict(FakeMlflow):
    """MLflow refuses what it cannot read; the fake alone would break on it."""

    def send(self, call: Call, timeout: float) -> Answer:
        try:
            return super().send(call, timeout)
        except (TypeError, KeyError, AttributeError, ValueError):
            return Answer(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "odd"})


async def is_delivered(gateway: World, site: MlflowSite) -> None:
    """An honest component reports, and MLflow has it within seconds."""
    await report(gateway, component="training", run="honest", state="succeeded", metrics={"f1": 0.5})
    await gateway.pass_by(seconds=30, steps=6)
    assert held(site)["runs"]["training honest"]["metrics"] == {"f1": [(0, 0.5)]}


async def post(gateway: World, records: list[dict[str, Any]]) -> Any:
    content = json.dumps({"records": records})  # Python's JSON has NaN.
    headers = {"Content-Type": "application/json"}
    return await gateway.clients[0].post(PATH, content=content, headers=headers)


async def test_a_record_that_no_delivery_can_read_is_refused_by_its_index_and_nothing_else_waits(
    servers: TestServers, database: str
) -> None:
    site = MlflowSite()
    async with world(servers, database, site) as gateway:
        for number, (method, path, body) in enumerate(HOSTILE.values()):
            good = record(1000 + number, "POST", "runs/log-metric", RUN | {"key": "a", "value": 1})
            answer = await post(gateway, [good, record(number, method, path, body)])
            if answer.status_code == 400:  # The parser of JSON has refused it before.
                problem(answer, 400, "bad_request")
                continue
            refused = problem(answer, 422, "invalid")
            assert [error["pointer"] for error in refused["errors"]] == ["#/records/1"]
        await is_delivered(gateway, site)
        assert (await gateway.get(PATH, state="pending"))["items"] == []


async def test_a_record_that_only_mlflow_can_judge_holds_up_no_other_stream_and_not_its_own(
    servers: TestServers, database: str
) -> None:
    site = MlflowSite(Strict())
    async with world(servers, database, site) as gateway:
        for number, (method, path, body) in enumerate(ODD.values()):
            for twin in (0, 500):
                answer = await post(gateway, [record(number + twin, method, path, body)])
                assert answer.status_code == 202, answer.text
        await is_delivered(gateway, site)
        await gateway.pass_by(minutes=10, steps=20)
        assert (await gateway.get(PATH, state="pending"))["items"] == [], "MLflow has judged each of them"


#: Rows that an older version took, or that a newer one wrote: the delivery's own code breaks on them.
ROWS: dict[str, dict[str, Any]] = {
    "700 levels": {"body": json.dumps(RUN | {"params": [nested(700)]})},
    "no JSON": {"body": "{"},
    "no object": {"body": "[]"},
    "a kind that nobody knows": {"kind": "create universe"},
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_a_row_that_breaks_our_own_code_is_set_aside_after_a_few_tries_and_its_stream_goes_on(
    servers: TestServers, database: str, row: dict[str, Any]
) -> None:
    site = MlflowSite()
    async with world(servers, database, site) as gateway:
        taken = await report(gateway, component="training", run="r", state="started")
        await gateway.pass_by(seconds=5, steps=2)
        site.down = True
        await report(gateway, component="training", run="r", state="started", metrics={"loss": 0.25})
        core = gateway.services[0].core
        usual: dict[str, Any] = {"key": "f" * 32, "stream": f"run:{taken['run']}", "kind": "log", "method": "POST"}
        usual |= {"path": f"{API}/runs/log-batch", "body": "{}", "made_at": 1, "attempts": 0, "state": "pending"}
        async with core.engine.begin() as conn:
            await conn.execute(insert(tables.records).values(usual | row | {"at": core.clock.now()}))
        await report(gateway, component="training", run="r", state="succeeded", metrics={"f1": 0.5})
        site.down = False
        await gateway.pass_by(seconds=40, steps=20)
        await is_delivered(gateway, site)
        await gateway.pass_by(minutes=3, steps=12)
        metrics = held(site)["runs"]["training r"]["metrics"]
        assert metrics == {"loss": [(0, 0.25)], "f1": [(0, 0.5)]}
        [aside] = (await gateway.get(PATH))["items"]
        assert (aside["key"], aside["attempts"]) == ("f" * 32, 3)
        assert aside["problem"].startswith("the gateway cannot deliver it: ")
        async with core.engine.connect() as conn:
            assert await store.counts_of(conn, [f"run:{taken['run']}"])
