"""A pod ends while MLflow is away: what its spool holds is handed to the gateway, which delivers it by the same code."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.records import API, Answer, Call, draft
from mlflow_spool.spool import Spool
from tests.acceptance.test_metadata import WITH_MLFLOW
from tests.acceptance.world import World
from tests.fakes.mlflow import MlflowSite
from tests.integration.api import problem, token_of
from tests.servers import TestServers
from tests.sizes import seed, size
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.workload import ManualClock, held, spool_on, steps

PATH = "/api/v1/metadata"


class Killed(BaseException):
    """The pod ends here: nothing after it happens."""


class Gateway:
    """The way from a pod's thread to the gateway in this process. `faults` are of the requests to come, by number."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loop = asyncio.get_running_loop()
        self.faults: dict[int, Fault | type[Killed]] = {}
        self.asked = 0

    def take(self, body: dict[str, Any], timeout: float) -> Answer:
        fault = self.faults.get(self.asked, Fault.NONE)
        self.asked += 1
        if fault is Fault.REFUSE:
            raise NotSent("refused")
        if fault is Fault.HANG:
            raise NoAnswer("no answer in time")
        if fault is Fault.UNAVAILABLE:
            return Answer(503, {})
        if fault is Fault.NOT_FOUND:
            return Answer(404, {})
        posting = self._world.clients[0].post(PATH, json=body)
        answer = asyncio.run_coroutine_threadsafe(posting, self._loop).result(30)
        if fault is Killed:
            raise Killed
        if fault is Fault.COMMIT_AND_DROP:
            raise NoAnswer("the answer was lost")
        return Answer(503 if fault is Fault.COMMIT_AND_503 else answer.status_code, answer.json())


async def in_pod(work: Callable[[], Any]) -> Any:
    """A pod's own thread: its spool waits for the gateway, which runs here."""
    return await asyncio.to_thread(work)


def train(spool: Spool, folder: Path) -> None:
    for step in steps(spool, folder):
        step()


def without_files(whole: dict[str, Any]) -> dict[str, Any]:
    return {**whole, "files": {}}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an MLflow holds to which nothing happened."""
    server, folder = FakeMlflow(), tmp_path_factory.mktemp("healthy")
    spool = spool_on(server, folder, ManualClock())
    train(spool, folder)
    assert spool.finish(60) == 0
    return held(server)


@pytest.fixture
def site() -> MlflowSite:
    """An MLflow that is away."""
    site = MlflowSite()
    site.fake.plan = always(Fault.REFUSE)
    return site


def gateway(servers: TestServers, database: str, site: MlflowSite) -> World:
    return World(servers, database, WITH_MLFLOW, others={"mlflow.test": site})


def pod(site: MlflowSite, folder: Path, world: World, taker: Gateway, **settings: Any) -> Spool:
    clock = ManualClock()
    clock.seconds = world.clock.now().timestamp()
    return spool_on(site.fake, folder, clock, taker=taker, **settings)


async def test_a_pod_that_is_gone_has_everything_in_mlflow_but_its_files(
    servers: TestServers, database: str, site: MlflowSite, memory: Path, healthy: dict[str, Any]
) -> None:
    async with gateway(servers, database, site) as world:
        spool = pod(site, memory / "pod", world, Gateway(world))
        (memory / "pod").mkdir(exist_ok=True)
        await in_pod(lambda: train(spool, memory / "pod"))
        await in_pod(lambda: spool.finish(5))
        counts = spool.journal.inventory.counts()
        assert (counts.handed, counts.pending) == (19, 2)  # The files stay.
        spool.journal.close()
        shutil.rmtree(memory / "pod")
        await world.pass_by(days=3, steps=6)
        assert site.fake.runs == {}
        site.fake.plan = never
        await world.pass_by(minutes=30, steps=30)
        found = held(site.fake)
        assert found["files"] == {}
        assert found == without_files(healthy)
        parent = next(run for run in site.fake.runs.values() if run["info"]["run_name"] == "parent")
        shown = await world.get(f"{PATH}/{parent['info']['run_id']}")
        assert (shown["complete"], shown["spooled"] - shown["readable"]) == (False, 2)
        (model,) = site.fake.models
        assert sorted(shown["missing"]) == [f"artifact MLmodel of model {model}", "artifact notes/why.txt"]
        assert shown == await world.get(f"{PATH}/{shown['run']}")


async def test_the_local_id_of_a_run_that_was_handed_over_resolves_from_another_machine(
    servers: TestServers, database: str, site: MlflowSite, memory: Path
) -> None:
    async with gateway(servers, database, site) as world:
        spool = pod(site, memory / "pod", world, Gateway(world))
        run = spool.call("POST", f"{API}/runs/create", {"experiment_id": "0", "run_name": "pod", "start_time": 1})
        local = run["run"]["info"]["run_id"]
        await in_pod(lambda: spool.finish(5))
        site.fake.plan = never
        await world.pass_by(minutes=5, steps=10)
        elsewhere = spool_on(site.fake, memory / "elsewhere", ManualClock())
        assert elsewhere.call("GET", f"{API}/runs/get", {"run_id": local})["run"]["info"]["run_name"] == "pod"
        # A later task of the pipeline goes on with it, while MLflow is away again.
        site.fake.plan = always(Fault.REFUSE)
        later = pod(site, memory / "later", world, Gateway(world))
        metric = {"run_id": local, "key": "f1", "value": 0.5, "timestamp": 5, "step": 0}
        later.call("POST", f"{API}/runs/log-metric", metric)
        await in_pod(lambda: later.finish(5))
        assert later.journal.inventory.counts().handed == 1
        site.fake.plan = never
        await world.pass_by(minutes=5, steps=10)
        (there,) = site.fake.runs.values()
        assert there["metrics"] == {"f1": [(0, 5, 0.5)]}


FAULTS = [
    Fault.REFUSE,
    Fault.HANG,
    Fault.UNAVAILABLE,
    Fault.NOT_FOUND,
    Fault.COMMIT_AND_503,
    Fault.COMMIT_AND_DROP,
    Killed,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: getattr(fault, "value", "killed after it"))
async def test_a_pod_that_survives_its_hand_over_and_the_gateway_deliver_everything_once(
    servers: TestServers, database: str, site: MlflowSite, memory: Path, healthy: dict[str, Any], fault: Any
) -> None:
    async with gateway(servers, database, site) as world:
        taker = Gateway(world)
        taker.faults = {0: fault} if fault is Killed else dict.fromkeys(range(100), fault)
        spool = pod(site, memory, world, taker)
        await in_pod(lambda: train(spool, memory))
        try:
            await in_pod(lambda: spool.finish(5))
        except Killed:
            assert fault is Killed
        doubtful = fault in (Fault.HANG, Fault.UNAVAILABLE, Fault.COMMIT_AND_503, Fault.COMMIT_AND_DROP, Killed)
        assert bool(spool.journal.inventory.counts().handing) is doubtful
        assert spool.journal.inventory.counts().handed == 0
        taker.faults = {}
        spool.journal.close()
        site.fake.plan = never
        heir = pod(site, memory, world, taker)
        for _ in range(10):
            await world.pass_by(minutes=2, steps=4)
            left = await in_pod(lambda: heir.finish(120, patient=True))
        assert (left, heir.journal.inventory.counts().handing, heir.journal.inventory.asides()) == (0, 0, [])
        assert held(site.fake) == healthy


async def test_while_it_is_not_known_whose_a_record_is_nobody_delivers_it_but_the_gateway(
    servers: TestServers, database: str, site: MlflowSite, memory: Path
) -> None:
    async with gateway(servers, database, site) as world:
        taker = Gateway(world)
        taker.faults = dict.fromkeys(range(100), Fault.COMMIT_AND_DROP)
        spool = pod(site, memory, world, taker)
        create = {"experiment_id": "0", "run_name": "pod", "start_time": 1}
        local = spool.call("POST", f"{API}/runs/create", create)["run"]["info"]["run_id"]
        await in_pod(lambda: spool.finish(5))
        site.fake.plan = never
        update = {"run_id": local, "status": "FINISHED", "end_time": 9}
        await in_pod(lambda: spool.call("POST", f"{API}/runs/update", update))
        assert await in_pod(lambda: spool.finish(60, patient=True)) == 1
        assert site.fake.runs == {}
        await world.pass_by(minutes=5, steps=5)
        assert [run["info"]["status"] for run in site.fake.runs.values()] == ["RUNNING"]
        taker.faults = {}
        await in_pod(lambda: spool.finish(60, patient=True))
        await world.pass_by(minutes=5, steps=5)
        assert [run["info"]["status"] for run in site.fake.runs.values()] == ["FINISHED"]
        assert spool.journal.inventory.counts().handed == 2


async def test_a_gateway_that_dies_while_it_delivers_what_was_handed_over_doubles_nothing(
    servers: TestServers, new_database: Callable[[], str], memory: Path, healthy: dict[str, Any]
) -> None:
    for number in range(seed() % size(19, 1), 19, size(19, 1)):
        site = MlflowSite()
        site.fake.plan = always(Fault.REFUSE)
        async with gateway(servers, new_database(), site) as world:
            spool = pod(site, memory / str(number), world, Gateway(world))
            await in_pod(lambda spool=spool, folder=memory: train(spool, folder))  # type: ignore[misc]
            await in_pod(lambda spool=spool: spool.finish(5))  # type: ignore[misc]
            spool.journal.close()
            before = len(site.fake.seen)
            site.fake.plan = lambda seen, line, at=before + number: (  # type: ignore[misc]
                Fault.COMMIT_AND_DROP if seen == at else Fault.NONE
            )
            await world.pass_by(minutes=30, steps=30)
            assert held(site.fake) == without_files(healthy), f"request {number}"


CREATE: dict[str, Any] = {
    "schema": 1,
    "key": "a" * 32,
    "seq": 1,
    "stream": "run:spool-" + "a" * 32,
    "kind": "create run",
    "method": "POST",
    "path": f"{API}/runs/create",
    "body": {"experiment_id": "0", "tags": [{"key": "mlflow_spool.run_key", "value": "a" * 32}]},
    "made_at": 1_800_000_000_000,
}


@pytest.mark.parametrize(
    "change",
    [
        {"path": f"{API}/users/create", "kind": "write"},
        {"path": f"{API}/../../admin/runs/create"},
        {"path": f"{API}/logged-models/%2E%2E", "method": "DELETE", "kind": "delete", "stream": "logged-model:x"},
        {"path": f"{API}/runs/delete"},
        {"stream": "model:churn"},
        {"body": {"experiment_id": "0"}},
        {"kind": "anything"},
    ],
    ids=[
        "an administrator's call",
        "a way out",
        "a hidden way out",
        "another kind",
        "another stream",
        "no key",
        "no kind",
    ],
)
async def test_only_what_a_spool_writes_is_taken(
    servers: TestServers, database: str, site: MlflowSite, change: dict[str, Any]
) -> None:
    async with gateway(servers, database, site) as world:
        refused = problem(await world.post(PATH, {"records": [CREATE | change]}), 422, "invalid")
        assert refused["errors"][0]["pointer"].startswith("#/records/0")
        good = await world.post(PATH, {"records": [CREATE]})
        assert (good.status_code, good.json()) == (202, {"taken": 1, "known": 0})
        again = await world.post(PATH, {"records": [CREATE]})
        assert again.json() == {"taken": 0, "known": 1}


async def test_what_a_pod_attempted_by_a_clock_that_is_ahead_does_not_wait_for_that_time(
    servers: TestServers, database: str, site: MlflowSite
) -> None:
    site.fake.plan = never
    async with gateway(servers, database, site) as world:
        tomorrow = int((world.clock.now().timestamp() + 86_400) * 1000)
        await world.post(PATH, {"records": [CREATE | {"attempted_at": tomorrow}]})
        await world.pass_by(minutes=1, steps=3)
        assert len(site.fake.runs) == 1


MODEL: dict[str, Any] = {"name": "churn", "version": "7"}
PROMOTES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "registered-models/alias", {"name": "churn", "alias": "champion", "version": "7"}),
    ("DELETE", "registered-models/alias", {"name": "churn", "alias": "champion"}),
    ("DELETE", "registered-models/delete", {"name": "churn"}),
    ("DELETE", "model-versions/delete", MODEL),
    ("DELETE", "model-versions/delete-tag", MODEL | {"key": "gateway.promotion"}),
    ("POST", "model-versions/transition-stage", MODEL | {"stage": "Production"}),
    ("POST", "model-versions/set-tag", MODEL | {"key": "validation_status", "value": "promoted"}),
    ("POST", "model-versions/set-tag", MODEL | {"key": "gateway.promoted_by", "value": "me"}),
    ("POST", "model-versions/set-tag", MODEL | {"key": "spool-" + "d" * 32, "value": "promoted"}),
    ("POST", "model-versions/create", {"name": "churn", "tags": [{"key": "validation_status", "value": "promoted"}]}),
    ("POST", "runs/delete", {"run_id": "f" * 32}),
    ("POST", "experiments/delete", {"experiment_id": "1"}),
    ("DELETE", "logged-models/m-1", {}),
    ("POST", "runs/set-tag", {"run_id": "f" * 32, "key": "gateway.trigger_id", "value": "x"}),
    ("POST", "runs/delete-tag", {"run_id": "f" * 32, "key": "gateway.trigger_id"}),
    ("POST", "runs/log-batch", {"run_id": "f" * 32, "tags": [{"key": "gateway.component", "value": "x"}]}),
    ("POST", "experiments/set-experiment-tag", {"experiment_id": "1", "key": "gateway.x", "value": "x"}),
    ("DELETE", "logged-models/m-1/tags/gateway%2Ex", {}),
    ("PATCH", "logged-models/m-1/tags", {"tags": [{"key": "gateway.x", "value": "x"}]}),
]


async def test_a_token_that_may_report_metadata_does_not_go_round_the_promotion_gate(
    servers: TestServers, database: str, site: MlflowSite, tmp_path: Path
) -> None:
    metadata, promote = token_of(tmp_path, "metadata"), token_of(tmp_path, "metadata", "promote")
    drafts = [draft(Call(method, f"{API}/{path}", body), 1) for method, path, body in PROMOTES]
    drafts.append(draft(Call("POST", f"{API}/model-versions/set-tag", MODEL | {"key": "team", "value": "risk"}), 1))
    records = [record.exported() for record in drafts if record is not None]
    async with World(
        servers, database, WITH_MLFLOW, others={"mlflow.test": site}, tokens_file=tmp_path / "tokens"
    ) as world:
        (client,) = world.clients
        refused = problem(await client.post(PATH, json={"records": records}, headers=metadata), 403, "forbidden")
        assert refused["scope"] == "promote"
        assert [error["pointer"] for error in refused["errors"]] == [
            f"#/records/{number}" for number in range(len(PROMOTES))
        ]
        good = await client.post(PATH, json={"records": records[len(PROMOTES) :]}, headers=metadata)
        assert good.json() == {"taken": 1, "known": 0}, "nothing was taken with the others"
        whole = await client.post(PATH, json={"records": records}, headers=promote)
        assert whole.json() == {"taken": len(PROMOTES), "known": 1}


async def test_what_a_local_id_is_called_leads_nowhere_else(
    servers: TestServers, database: str, site: MlflowSite
) -> None:
    async with gateway(servers, database, site) as world:
        names = {"m-spool-" + "a" * 32: "../registered-models/alias"}
        problem(await world.post(PATH, {"records": [CREATE], "names": names}), 422, "invalid")
