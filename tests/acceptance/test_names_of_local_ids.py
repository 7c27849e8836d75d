"""Nobody sends another component's metadata into a run of their choice: by a name, a creation or a key that can be
computed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import insert

from app import tables
from app.lineage.report_schemas import Report
from app.lineage.reports import records_of, run_of
from mlflow_spool.records import API, CREATES, KEY_TAG, Call, Kind, Record, draft
from tests.acceptance.test_metadata import WITH_MLFLOW
from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.fakes.mlflow import MlflowSite
from tests.integration.api import problem, token_of
from tests.servers import TestServers
from tests.spool.proxy import Fault, always, never

PATH = "/api/v1/metadata"
REPORT: dict[str, Any] = {
    "component": "training",
    "state": "succeeded",
    "run": "try-1",
    "experiment": "churn",
    "metrics": {"f1": 0.9},
    "params": {"depth": 6},
}


@pytest.fixture
def site() -> MlflowSite:
    """An MLflow that is away."""
    site = MlflowSite()
    site.fake.plan = always(Fault.REFUSE)
    return site


class Gateway:
    """A gateway with two components and an operator, each with a token of its own."""

    def __init__(self, world: World, *tokens: dict[str, str]) -> None:
        self.world = world
        self.victim, self.attacker, self.operator = tokens

    async def post(self, token: dict[str, str], body: dict[str, Any]) -> httpx.Response:
        return await self.world.clients[0].post(PATH, json=body, headers=token)

    async def hand_over(self, token: dict[str, str], *records: Record, **names: str) -> httpx.Response:
        return await self.post(token, {"records": [record.exported() for record in records], "names": names})

    async def deliver(self, site: MlflowSite) -> None:
        site.fake.plan = never
        await self.world.pass_by(minutes=10, steps=6)


@asynccontextmanager
async def opened(servers: TestServers, database: str, site: MlflowSite, folder: Path) -> AsyncIterator[Gateway]:
    tokens = [token_of(folder, "metadata", *more) for more in ([], [], ["promote"])]
    others, file = {"mlflow.test": site}, folder / "tokens"
    async with World(servers, database, WITH_MLFLOW, others=others, tokens_file=file) as world:
        yield Gateway(world, *tokens)


def record(method: str, path: str, body: dict[str, Any], key: str | None = None) -> Record:
    made = draft(Call(method, f"{API}/{path}", body), 1_800_000_000_000, key or uuid4().hex)
    assert made is not None
    return made


def metrics_by_run(site: MlflowSite) -> dict[str, Any]:
    return {
        run["info"]["run_name"]: {key: values[-1][-1] for key, values in run["metrics"].items()}
        for run in site.fake.runs.values()
    }


async def test_a_name_counts_for_the_records_that_came_with_it_alone(
    servers: TestServers, database: str, site: MlflowSite, tmp_path: Path
) -> None:
    async with opened(servers, database, site, tmp_path) as gateway:
        site.fake.plan = never
        target = site.fake.send(Call("POST", f"{API}/runs/create", {"experiment_id": "0", "run_name": "target"}), 1.0)
        evil = str(target.body["run"]["info"]["run_id"])
        site.fake.plan = always(Fault.REFUSE)
        local = run_of(Report.model_validate(REPORT))
        mine = record(
            "POST", "runs/log-metric", {"run_id": local, "key": "mine", "value": 1.0, "timestamp": 1, "step": 0}
        )
        names = {local: evil, f"root:{local}": "s3://evil"}
        assert (await gateway.hand_over(gateway.attacker, mine, **names)).status_code == 202
        assert (await gateway.post(gateway.victim, REPORT)).json()["run"] == local
        assert (await gateway.hand_over(gateway.attacker, mine, **names)).status_code == 202
        await gateway.deliver(site)
        assert metrics_by_run(site) == {"target": {"mine": 1.0}, "training try-1": {"f1": 0.9}}
        # The id that the gateway learned counts more than a name, later too.
        more = record(
            "POST", "runs/log-metric", {"run_id": local, "key": "more", "value": 2.0, "timestamp": 1, "step": 0}
        )
        assert (await gateway.hand_over(gateway.attacker, more, **names)).status_code == 202
        await gateway.deliver(site)
        assert metrics_by_run(site)["training try-1"] == {"f1": 0.9, "more": 2.0}


@pytest.mark.parametrize("what", ["run", "experiment"])
async def test_a_creation_that_was_handed_over_is_no_run_of_a_report(
    servers: TestServers, database: str, site: MlflowSite, tmp_path: Path, what: str
) -> None:
    async with opened(servers, database, site, tmp_path) as gateway:
        report = Report.model_validate(REPORT)
        kind = Kind.RUN if what == "run" else Kind.EXPERIMENT
        keys: set[str] = set()
        for _ in range(3):  # The keys that a report would take next are no better.
            key = next(made.key for made in records_of(report, "", "", NOON, keys) if made.kind is kind)
            keys.add(key)
            body = {"experiment_id": "0", "run_name": "evil"} if what == "run" else {"name": f"evil {len(keys)}"}
            assert (await gateway.hand_over(gateway.attacker, record("POST", f"{what}s/create", body, key))).is_success
        taken = [(await gateway.post(gateway.victim, REPORT | {"step": step})).json() for step in range(2)]
        assert taken[0]["run"] == taken[1]["run"]
        await gateway.deliver(site)
        assert metrics_by_run(site)["training try-1"] == {"f1": 0.9}
        (run,) = [run for run in site.fake.runs.values() if run["info"]["run_name"] == "training try-1"]
        where = site.fake.experiments[run["info"]["experiment_id"]]["name"]
        assert where == "churn"


async def test_a_record_with_a_key_that_can_be_computed_keeps_no_report_from_being_written(
    servers: TestServers, database: str, site: MlflowSite, tmp_path: Path
) -> None:
    async with opened(servers, database, site, tmp_path) as gateway:
        first = (await gateway.post(gateway.victim, REPORT)).json()
        again = (await gateway.post(gateway.victim, REPORT)).json()
        other = (await gateway.post(gateway.attacker, REPORT)).json()
        assert (again["id"], again["records"]) == (first["id"], 0)
        keys = [made.key for made in records_of(Report.model_validate(REPORT), other["id"], "", NOON)]
        assert len(set(keys)) == len(keys)
        assert other["records"] == len(keys) - 2, "the two creations are there"


async def test_a_report_does_not_give_a_run_to_another_trigger(
    servers: TestServers, database: str, site: MlflowSite, tmp_path: Path
) -> None:
    async with opened(servers, database, site, tmp_path) as gateway:
        mine = {"component": "training", "state": "started", "run_id": "e" * 32, "trigger_id": str(uuid4())}
        other = mine | {"component": "evil", "trigger_id": str(uuid4())}
        assert (await gateway.post(gateway.victim, mine)).status_code == 202
        assert (await gateway.post(gateway.victim, mine | {"state": "succeeded"})).status_code == 202
        assert problem(await gateway.post(gateway.attacker, other), 403, "forbidden")["scope"] == "promote"
        assert (await gateway.post(gateway.operator, other)).status_code == 202
        seen = {"run_id": "d" * 32, "experiment_id": "0", "name": "", "status": "", "deleted": False, "metrics": 0}
        row = seen | {"trigger_id": uuid4(), "seen_at": NOON}
        async with gateway.world.services[0].core.engine.begin() as conn:
            await conn.execute(insert(tables.runs).values(row))
        problem(await gateway.post(gateway.attacker, other | {"run_id": "d" * 32}), 403, "forbidden")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("runs/set-tag", {"run_id": "f" * 32, "key": KEY_TAG, "value": "a" * 32}),
        ("runs/log-batch", {"run_id": "f" * 32, "tags": [{"key": KEY_TAG, "value": "a" * 32}]}),
        ("runs/delete-tag", {"run_id": "f" * 32, "key": KEY_TAG}),
        ("runs/create", {"experiment_id": "0", "tags": [{"key": KEY_TAG, "value": "a" * 32}]}),
        ("experiments/set-experiment-tag", {"experiment_id": "1", "key": KEY_TAG, "value": "a" * 32}),
        (
            "runs/set-tag",
            {"run_id": "f" * 32, "key": f"spool-artifacts:/spool-{'b' * 32}/artifacts", "value": "a" * 32},
        ),
    ],
)
async def test_nobody_sets_the_tag_by_which_a_run_is_found(
    servers: TestServers, database: str, site: MlflowSite, tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with opened(servers, database, site, tmp_path) as gateway:
        names = {f"root:spool-{'b' * 32}": KEY_TAG}
        forged = record("POST", path, body)
        if forged.kind in CREATES:  # The spool itself leaves a foreign key out of what it creates.
            tags = [*forged.call.body["tags"], *body["tags"]]
            forged = replace(forged, call=replace(forged.call, body=forged.call.body | {"tags": tags}))
        answer = await gateway.hand_over(gateway.attacker, forged, **names)
        problem(answer, 422, "invalid")


async def test_who_made_a_run_may_tag_it_with_the_trigger_and_nobody_else(
    servers: TestServers, database: str, site: MlflowSite, tmp_path: Path
) -> None:
    async with opened(servers, database, site, tmp_path) as gateway:
        made = record("POST", "runs/create", {"experiment_id": "0", "run_name": "mine"})
        tags = [
            record("POST", "runs/set-tag", {"run_id": made.token, "key": f"gateway.{name}", "value": "x"})
            for name in "abc"
        ]
        assert (await gateway.hand_over(gateway.victim, made, tags[0])).json() == {"taken": 2, "known": 0}
        assert (await gateway.hand_over(gateway.victim, tags[1])).json() == {"taken": 1, "known": 0}
        problem(await gateway.hand_over(gateway.attacker, tags[2]), 403, "forbidden")
        await gateway.deliver(site)
        (run,) = site.fake.runs.values()
        assert {key for key in run["tags"] if key.startswith("gateway.")} == {"gateway.a", "gateway.b"}


async def test_the_version_of_another_model_is_not_mine_although_its_local_number_is_the_same(
    servers: TestServers, database: str, site: MlflowSite, tmp_path: Path
) -> None:
    async with opened(servers, database, site, tmp_path) as gateway:
        keys = {"churn": "00000a" + "1" * 26, "evil": "00000a" + "2" * 26}
        for name, number in (("churn", 1), ("evil", 3)):
            made = [record("POST", "registered-models/create", {"name": name})]
            made += [record("POST", "model-versions/create", {"name": name}) for _ in range(number - 1)]
            made += [record("POST", "model-versions/create", {"name": name}, keys[name])]
            assert (await gateway.hand_over(gateway.victim, *made)).is_success
        await gateway.deliver(site)
        alias = record(
            "POST", "registered-models/alias", {"name": "churn", "alias": "champion", "version": "2000000010"}
        )
        assert (await gateway.hand_over(gateway.operator, alias)).is_success
        await gateway.deliver(site)
        assert site.fake.registered["churn"]["aliases"] == {"champion": "1"}
