"""A pod, a gateway and an MLflow as processes: the pod's directory is deleted, MLflow comes later, everything is there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.kit.embedded.processes import free_port
from mlflow_spool.records import API
from mlflow_spool.settings import Settings
from mlflow_spool.spool import Spool, system_clock
from tests import plain
from tests.e2e.processes import eventually
from tests.servers import TestServers
from tests.spool.contents import contents, differences
from tests.spool.fake import FakeMlflow
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, never
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

POLICY = "version: 1\nairflow: [{name: default, url: http://127.0.0.1:9}]\nroutes: []\nmlflow: {tracking_uri: %s}\n"


@pytest.fixture
def gateway(servers: TestServers, database: str, proxy: Proxy, tmp_path: Path) -> Iterator[str]:
    """Its address. It asks the same MLflow by the same way as the pod."""
    port = free_port()
    (tmp_path / "policy.yaml").write_text(POLICY % proxy.uri)
    own = {
        "GATEWAY_PORT": str(port),
        "GATEWAY_DATABASE_URL": database,
        "GATEWAY_REDIS_URL": servers.valkey.url,
        "GATEWAY_POLICY_FILE": str(tmp_path / "policy.yaml"),
        "GATEWAY_DATA_DIR": str(tmp_path / "data"),
        "GATEWAY_REDIS_PREFIX": "relay",
        "GATEWAY_RETRY_MAX": "1",
    }
    with (tmp_path / "gateway.log").open("wb") as log:
        argv: list[str | Path] = [Path(sys.executable).with_name("trigger-gateway"), "serve"]
        process = subprocess.Popen(argv, env=os.environ | own, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        eventually("the gateway to be ready", lambda: plain.get(f"{url}/readyz").status_code == 200)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_a_pod_whose_directory_is_deleted_has_everything_in_mlflow_when_it_comes(
    environment: Environment, mlflow_server: MlflowServer, proxy: Proxy, gateway: str, tmp_path: Path
) -> None:
    (alone := tmp_path / "plain").mkdir()
    Site(environment, alone, mlflow_server.uri).train("train.py", EXPERIMENT="relay-plain")
    (pod := tmp_path / "pod").mkdir()
    proxy.plan = always(Fault.REFUSE)
    settings = {"MLFLOW_SPOOL_GATEWAY_URL": gateway, "MLFLOW_SPOOL_EXIT_BUDGET": "20"}
    site = Site(environment, pod, f"spool+{proxy.uri}", settings)
    site.train("train.py", EXPERIMENT="relay-pod")
    assert " 0 waiting" in site.spool("status")
    shutil.rmtree(pod)
    by_hand = leave(tmp_path / "killed", proxy.uri)
    output = Site(environment, tmp_path / "killed", f"spool+{proxy.uri}", settings).spool("hand-over")
    assert output == f"{proxy.uri}: 2 records are the gateway's, 0 stay here\n"
    shutil.rmtree(tmp_path / "killed")
    proxy.plan = never

    def delivered() -> bool:
        waiting = plain.get(f"{gateway}/api/v1/metadata", params={"state": "pending"})
        return bool(waiting.json()["items"] == [])

    eventually("the gateway to deliver everything", delivered, within=90)
    assert plain.get(f"{gateway}/api/v1/metadata").json()["items"] == []
    assert differences(contents(mlflow_server, "relay-pod"), contents(mlflow_server, "relay-plain")) == []
    assert plain.get(f"{gateway}/api/v1/metadata/{by_hand}").json()["complete"]
    for run in mlflow_server.call("POST", "runs/search", {"experiment_ids": [experiment(mlflow_server)]})["runs"]:
        shown = plain.get(f"{gateway}/api/v1/metadata/{run['info']['run_id']}").json()
        assert (shown["complete"], shown["missing"]) == (True, [])


def leave(folder: Path, uri: str) -> str:
    """A run in the journal of a process that was killed while MLflow was away; its local id."""
    away = FakeMlflow()
    away.plan = always(Fault.REFUSE)
    spool = Spool(uri, away, Settings(folder), system_clock(), background=False)
    run = spool.call("POST", f"{API}/runs/create", {"experiment_id": "0", "run_name": "killed", "start_time": 1})
    local = str(run["run"]["info"]["run_id"])
    spool.call(
        "POST", f"{API}/runs/log-metric", {"run_id": local, "key": "f1", "value": 0.5, "timestamp": 1, "step": 0}
    )
    spool.journal.close()
    return local


def experiment(server: MlflowServer) -> str:
    found = server.call("GET", "experiments/get-by-name?experiment_name=relay-pod")
    return str(found["experiment"]["experiment_id"])
