"""One policy, one table of cases, the same verdicts: on a real MLflow with PostgreSQL, and on SageMaker as moto has it."""

import asyncio
import math
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.kit.clock import SystemClock
from tests.acceptance.world import World
from tests.integration.api import problem
from tests.integration.test_api_cli import served
from tests.mlflow.sites import MlflowSite, SagemakerSite, Site, Through
from tests.servers import TestServers
from tests.sizes import seed, size
from tests.spool.mlflow import MlflowServer
from tests.spool.proxy import Fault, Proxy, at, never, proxied

POLICY = """
version: 1
airflow: [{{name: default, url: "http://airflow.test:8080"}}]
routes: []
mlflow: {{tracking_uri: "{uri}"}}
promotions:
  - model: strict-.*
    registry: {registry}
    to: champion
    rules: ['f1 > champion.f1']
  - {{model: .*, registry: {registry}, to: staging}}
  - model: staged-.*
    registry: {registry}
    to: champion
    requires: staging
  - model: .*
    registry: {registry}
    to: champion
    require: {{params: [depth], metrics: [f1], tags: [commit], inputs: [training], artifacts: [model]}}
    rules: ['f1 >= 80%', 'f1 >= champion.f1 + 0.005']
"""

RULE, MARGIN = "f1 >= 80%", "f1 >= champion.f1 + 0.005"
Case = tuple[str, dict[str, Any] | None, dict[str, Any], dict[str, Any], set[str] | None]
#: model, the incumbent's version, the candidate's, the request, and the rules that fail (None: promoted)
CASES: dict[str, Case] = {
    "no incumbent": ("plain", None, {"f1": 0.8}, {}, None),
    "no incumbent, too bad": ("plain", None, {"f1": 0.79}, {}, {RULE}),
    "better": ("plain", {"f1": 0.85}, {"f1": 0.86}, {}, None),
    "better by exactly the margin": ("plain", {"f1": 0.85}, {"f1": 0.855}, {}, None),
    "equal, with a margin": ("plain", {"f1": 0.85}, {"f1": 0.85}, {}, {MARGIN}),
    "equal, and must be better": ("strict", {"f1": 0.85}, {"f1": 0.85}, {}, {"f1 > champion.f1"}),
    "worse": ("plain", {"f1": 0.9}, {"f1": 0.85}, {}, {MARGIN}),
    "NaN": ("plain", {"f1": 0.85}, {"f1": math.nan}, {}, {"metric f1", RULE, MARGIN}),
    "NaN of the incumbent": ("plain", {"f1": math.nan}, {"f1": 0.9}, {}, {MARGIN}),
    "no metric": ("plain", {"f1": 0.85}, {"auc": 0.9}, {}, {"metric f1", RULE, MARGIN}),
    "no metric of the incumbent": ("plain", {"auc": 0.85}, {"f1": 0.9}, {}, {MARGIN}),
    "no param": ("plain", None, {"f1": 0.9, "depth": None}, {}, {"param depth"}),
    "no tag": ("plain", None, {"f1": 0.9, "commit": None}, {}, {"tag commit"}),
    "no data": ("plain", None, {"f1": 0.9, "data": None}, {}, {"input training"}),
    "no artifact": ("plain", None, {"f1": 0.9, "artifact": None}, {}, {"artifact model"}),
    "not READY": ("plain", None, {"f1": 0.9, "ready": False}, {}, {"version"}),
    "not READY, in spite of an override": (
        "plain", None, {"f1": 0.9, "ready": False}, {"override": True, "reason": "x"}, {"version"}),
    "no such version": ("plain", {"f1": 0.85}, {"f1": 0.9}, {"version": "9"}, {"version"}),
    "an override": ("plain", {"f1": 0.9}, {"f1": 0.5, "data": None}, {"override": True, "reason": "unsafe"}, None),
    "expected, and it is": ("plain", {"f1": 0.85}, {"f1": 0.9}, {"expected": "1"}, None),
    "expected, and it is another": ("plain", {"f1": 0.85}, {"f1": 0.9}, {"expected": "2"}, {"expected"}),
    "nobody expected": ("plain", {"f1": 0.85}, {"f1": 0.9}, {"expected": ""}, {"expected"}),
    "without the mark before": ("staged", None, {"f1": 0.9}, {}, {"requires staging"}),
}  # fmt: skip


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "mlflow":
        return MlflowSite(request.getfixturevalue("mlflow_server"))
    found: SagemakerSite = request.getfixturevalue("sagemaker")
    return found


both = pytest.mark.parametrize("site", ["mlflow", "sagemaker"], indirect=True)


@asynccontextmanager
async def gateway(
    servers: TestServers, database: str, site: Site, mlflow: MlflowServer | Proxy, replicas: int = 1
) -> AsyncIterator[World]:
    policy = POLICY.format(uri=mlflow.uri, registry=site.name)
    others: Any = {"127.0.0.1": Through()}
    async with World(servers, database, policy, others=others, replicas=replicas) as world:
        yield world


async def ask(world: World, model: str, version: str, *, to: int = 0, mark: str = "champion", **more: Any) -> Any:
    body = {"model": model, "version": version, "to": mark, **more}
    return await world.post("/api/v1/promotions", body, to=to)


async def publish(site: Site, model: str, papers: dict[str, Any]) -> str:
    metrics: dict[str, float] = {name: papers[name] for name in papers if name in ("f1", "auc")}
    return await site.publish(model, metrics, **{k: v for k, v in papers.items() if k not in metrics})


@both
async def test_the_same_cases_come_to_the_same_verdicts(
    servers: TestServers, database: str, site: Site, mlflow_server: MlflowServer
) -> None:
    async with gateway(servers, database, site, mlflow_server) as world:
        for name, (kind, incumbent, candidate, request, fails) in CASES.items():
            model = f"{kind}-{secrets.token_hex(4)}"
            if incumbent is not None:
                await site.seize(model, await publish(site, model, incumbent))
            version = await publish(site, model, candidate)
            before = await site.holder(model)
            answer = await ask(world, model, request.get("version", version), **_without_version(request))
            body = answer.json()
            failing = {verdict["rule"] for verdict in body["verdicts"] if not verdict["passed"]}
            if fails is None:
                assert (name, answer.status_code, body.get("state")) == (name, 200, "promoted"), answer.text
                assert (name, await site.holder(model)) == (name, version)
                beside = {"version": candidate["f1"], "before": incumbent["f1"] if incumbent else None}
                assert (name, body["metrics"]["f1"]) == (name, beside)
                assert failing == set() or request["override"]
            else:
                assert (name, answer.status_code, failing) == (name, 409, fails), answer.text
                assert (name, await site.holder(model)) == (name, before)


def _without_version(request: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key != "version"}


@both
async def test_a_mark_goes_on_and_back_and_two_marks_are_held_at_once(
    servers: TestServers, database: str, site: Site, mlflow_server: MlflowServer
) -> None:
    async with gateway(servers, database, site, mlflow_server) as world:
        model = f"staged-{secrets.token_hex(4)}"
        versions = [await publish(site, model, {"f1": f1}) for f1 in (0.85, 0.9, 0.95)]
        made = []
        for version in versions:
            for mark in ("staging", "champion"):
                answer = await ask(world, model, version, mark=mark)
                assert answer.status_code == 200, answer.text
                assert await site.holder(model, mark) == version
                assert answer.json()["tags"]["validation_status"] == (
                    "staging_ready" if mark == "staging" else "promoted"
                )
            made.append(answer.json())
        for promotion in reversed(made):
            back = (await world.post(f"/api/v1/promotions/{promotion['id']}/rollback", {})).json()
            assert (back["state"], back["target"]) == ("rolled_back", promotion["previous"])
            assert await site.holder(model) == promotion["previous"]
            assert await site.holder(model, "staging") == "3"


@both
async def test_gates_at_once_come_to_one_history(
    servers: TestServers, database: str, site: Site, mlflow_server: MlflowServer
) -> None:
    async with gateway(servers, database, site, mlflow_server, replicas=2) as world:
        model = f"plain-{secrets.token_hex(4)}"
        scores = [0.88, 0.9, 0.82, 0.86, 0.84]
        versions = [await publish(site, model, {"f1": f1}) for f1 in scores]

        async def insist(number: int, version: str) -> None:
            for _ in range(100):
                answer = await ask(world, model, version, to=number % 2)
                if answer.status_code == 200 or answer.json()["code"] == "blocked":
                    return
                assert answer.json()["code"] == "lost_race", answer.text
                await asyncio.sleep(0.01 * number)
            raise AssertionError("never judged to the end")

        await asyncio.gather(*(insist(number, version) for number, version in enumerate(versions)))
        rows = (await world.get("/api/v1/promotions", model=model, state="promoted"))["items"]
        by_previous = {row["previous"]: row["version"] for row in rows}
        chain, last = [], None
        while last in by_previous:
            last = by_previous[last]
            chain.append(scores[int(last) - 1])
        assert len(chain) == len(rows), "each replaced the one before it"
        assert chain == sorted(chain)
        assert (await site.holder(model), max(chain)) == (last, 0.9)


@both
async def test_two_marks_of_one_version_that_move_at_once_are_both_kept(
    servers: TestServers, database: str, site: Site, mlflow_server: MlflowServer
) -> None:
    async with gateway(servers, database, site, mlflow_server, replicas=2) as world:
        model = f"plain-{secrets.token_hex(4)}"

        async def insist(version: str, mark: str, to: int) -> None:
            while (answer := await ask(world, model, version, mark=mark, to=to)).status_code != 200:
                assert answer.json()["code"] == "lost_race", answer.text

        for f1 in (0.85, 0.9):
            version = await publish(site, model, {"f1": f1})
            await asyncio.gather(insist(version, "staging", 0), insist(version, "champion", 1))
            assert [await site.holder(model, mark) for mark in ("staging", "champion")] == [version, version]


FAULTS = [Fault.UNAVAILABLE, Fault.COMMIT_AND_503, Fault.COMMIT_AND_DROP, Fault.NOT_FOUND]
REQUESTS = 24  # that one promotion makes; the test says when it makes more


async def test_a_fault_at_any_request_to_a_real_mlflow_leaves_no_half_promotion(
    servers: TestServers, database: str, mlflow_server: MlflowServer
) -> None:
    site = MlflowSite(mlflow_server)
    cases = [(fault, number) for fault in FAULTS for number in range(REQUESTS)]
    with proxied(mlflow_server.port) as proxy:
        async with gateway(servers, database, site, proxy) as world:
            asked = []
            for fault, number in random.Random(seed()).sample(cases, size(5, len(cases))):
                model = f"plain-{secrets.token_hex(4)}"
                first, second = [await publish(site, model, {"f1": f1}) for f1 in (0.85, 0.9)]
                await site.seize(model, first)
                proxy.seen.clear()
                proxy.plan = at(number, fault)
                assert (await ask(world, model, second)).status_code in (200, 503)
                assert len(proxy.seen) <= 2 * REQUESTS  # a repair included
                proxy.plan = never
                asked.append((model, second))
            await world.pass_by(seconds=55, steps=3)
            for model, second in asked:
                [row] = (await world.get("/api/v1/promotions", model=model))["items"]
                shown = mlflow_server.call("GET", f"model-versions/get?name={model}&version={second}")["model_version"]
                tags = {tag["key"] for tag in shown.get("tags", [])}
                assert row["state"] in ("promoted", "undone", "unreadable")
                promoted = row["state"] == "promoted"
                assert (await site.holder(model) == second, len(tags)) == (promoted, 7 if promoted else 0), row


async def test_a_deleted_run_is_told_by_a_real_mlflow(
    servers: TestServers, database: str, mlflow_server: MlflowServer
) -> None:
    site = MlflowSite(mlflow_server)
    async with gateway(servers, database, site, mlflow_server) as world:
        model = f"plain-{secrets.token_hex(4)}"
        version = await publish(site, model, {"f1": 0.9})
        shown = mlflow_server.call("GET", f"model-versions/get?name={model}&version={version}")["model_version"]
        mlflow_server.call("POST", "runs/delete", {"run_id": shown["run_id"]})
        blocked = problem(await ask(world, model, version), 409, "blocked")
        assert "run" in {verdict["rule"] for verdict in blocked["verdicts"] if not verdict["passed"]}


async def test_a_data_set_of_any_context_travels_with_a_version_in_mlflow(
    servers: TestServers, database: str, mlflow_server: MlflowServer
) -> None:
    site, call = MlflowSite(mlflow_server), mlflow_server.call
    async with gateway(servers, database, site, mlflow_server) as world:
        model = f"plain-{secrets.token_hex(4)}"
        version = await publish(site, model, {"f1": 0.9})
        run = call("GET", f"model-versions/get?name={model}&version={version}")["model_version"]["run_id"]
        data = {"name": "churn", "digest": "d2", "source_type": "s3", "source": '{"uri": "s3://data/more"}'}
        for context in ("train (EU)", "a//b", "x" * 300):
            tags = [{"key": "mlflow.data.context", "value": context}]
            call("POST", "runs/log-inputs", {"run_id": run, "datasets": [{"tags": tags, "dataset": data}]})
            data = data | {"digest": context[:9]}
        answer = await ask(world, model, version)
        assert answer.status_code == 200, answer.text
        kept = {key for key in answer.json()["tags"] if key.startswith("gateway.input.")}
        names = {"training", "train _EU_", "a__b", "x" * 236}
        assert kept == {f"gateway.input.{name}" for name in names}


async def test_a_logged_model_counts_when_all_of_it_was_uploaded(
    servers: TestServers, database: str, mlflow_server: MlflowServer
) -> None:
    site, call = MlflowSite(mlflow_server), mlflow_server.call
    async with gateway(servers, database, site, mlflow_server) as world:
        name = f"plain-{secrets.token_hex(4)}"
        version = await publish(site, name, {"f1": 0.9, "artifact": None})
        run = call("GET", f"model-versions/get?name={name}&version={version}")["model_version"]["run_id"]
        made = call("POST", "logged-models", {"experiment_id": "0", "name": "model", "source_run_id": run})
        ident, where = made["model"]["info"]["model_id"], made["model"]["info"]["artifact_uri"]
        folder = mlflow_server.artifacts / where.removeprefix("mlflow-artifacts:/")
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text("flavors: {}")
        body = {"name": name, "run_id": run, "model_id": ident, "source": f"models:/{ident}"}
        version = call("POST", "model-versions/create", body)["model_version"]["version"]
        for status, answer in (("PENDING", 409), ("UPLOAD_FAILED", 409), ("READY", 200)):
            if status != "PENDING":
                change = {"model_id": ident, "status": f"LOGGED_MODEL_{status}"}
                call("PATCH", f"logged-models/{ident}", change)
            assert (status, (await ask(world, name, version)).status_code) == (status, answer)


async def test_a_real_mlflow_tells_of_a_new_version_and_it_is_promoted_by_itself(
    servers: TestServers, database: str, mlflow_server: MlflowServer
) -> None:
    site, secret, model = MlflowSite(mlflow_server), secrets.token_hex(16), f"told-{secrets.token_hex(4)}"
    entry = f"  - {{model: {model}, to: champion, rules: ['f1 > 0.5'], on_new_version: true}}"
    policy = POLICY.format(uri=mlflow_server.uri, registry="mlflow").replace("promotions:", f"promotions:\n{entry}")
    others: Any = {"127.0.0.1": Through()}
    clock: Any = SystemClock()  # MLflow signs the time of day.
    async with (
        World(servers, database, policy, others=others, clock=clock, mlflow_secret=secret) as world,
        served(world) as url,
    ):
        hook: dict[str, Any] = {
            "name": model,
            "url": f"{url}/api/v1/webhooks/mlflow",
            "secret": secret,
            "status": "ACTIVE",
        }
        hook |= {"events": [{"entity": "MODEL_VERSION", "action": "CREATED"}]}
        made = await asyncio.to_thread(mlflow_server.call, "POST", "webhooks", hook)
        try:
            await asyncio.to_thread(asyncio.run, site.publish(model, {"f1": 0.9}))
            rows: list[dict[str, Any]] = []
            for _ in range(600):  # A minute, to be told: MLflow delivers in a thread of its own.
                rows = (await world.get("/api/v1/promotions", model=model))["items"]
                if rows and rows[0]["ended_at"]:
                    break
                await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(mlflow_server.call, "DELETE", f"webhooks/{made['webhook']['webhook_id']}")
        assert [(row["state"], row["requested_by"]) for row in rows] == [("promoted", "signed-mlflow")]
        assert await site.holder(model) == "1"


async def test_sagemaker_keeps_what_it_knew_and_the_old_one_stays_approved(
    servers: TestServers, database: str, sagemaker: SagemakerSite, mlflow_server: MlflowServer
) -> None:
    async with gateway(servers, database, sagemaker, mlflow_server) as world:
        model = f"plain-{secrets.token_hex(4)}"
        for f1 in (0.85, 0.9):
            version = await publish(sagemaker, model, {"f1": f1})
            assert (await ask(world, model, version)).status_code == 200
        old, new = sagemaker.packages(model)
        assert [package["ModelApprovalStatus"] for package in (old, new)] == ["Approved", "Approved"]
        assert ["gateway.alias" in package["CustomerMetadataProperties"] for package in (old, new)] == [False, True]
        for package in (old, new):
            assert package["CustomerMetadataProperties"]["depth"] == "3"
            assert package["CustomerMetadataProperties"]["input.training"] == "churn d1 s3://data/churn"
            assert package["CustomerMetadataProperties"]["validation_status"] == "promoted"
            assert package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"].startswith("s3://")
        digest = new["CustomerMetadataProperties"]["gateway.artifact.model"]
        assert digest.endswith("sha256:9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4")


class Meddled:
    """boto3's client, beside which somebody does something as soon as a mark was written."""

    def __init__(self, client: Any, meddle: Callable[[], None]) -> None:
        self._client = client
        self._meddle: Callable[[], None] | None = meddle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def update_model_package(self, **fields: Any) -> Any:
        answer = self._client.update_model_package(**fields)
        if "gateway.alias" in fields["CustomerMetadataProperties"] and self._meddle:
            meddle, self._meddle = self._meddle, None
            meddle()
        return answer


async def test_who_loses_the_mark_in_sagemaker_loses_the_approval_as_well(
    servers: TestServers, database: str, sagemaker: SagemakerSite, mlflow_server: MlflowServer
) -> None:
    async with gateway(servers, database, sagemaker, mlflow_server) as world:
        model = f"plain-{secrets.token_hex(4)}"
        first, second, third = [await publish(sagemaker, model, {"f1": f1}) for f1 in (0.85, 0.9, 0.95)]
        assert (await ask(world, model, first)).status_code == 200
        registry: Any = world.services[0].promotion.gate._registries["sagemaker"]
        registry._clients["sagemaker"] = Meddled(
            registry._clients["sagemaker"], lambda: asyncio.run(sagemaker.seize(model, third))
        )
        problem(await ask(world, model, second), 409, "lost_race")
        lost = sagemaker.packages(model)[int(second) - 1]
        assert lost["ModelApprovalStatus"] == "PendingManualApproval"
        assert [key for key in lost["CustomerMetadataProperties"] if key.startswith("gateway.")] == []
        assert await sagemaker.holder(model) == third
