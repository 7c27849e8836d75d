"""Training code may hold any lock of MLflow, Python or `logging`, or fork: no thread of ours waits for it, or it for us."""

import json
import threading
import time
from pathlib import Path

import pytest

from tests.sizes import size
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, never
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]


def has_all(server: MlflowServer, name: str) -> bool:
    found = server.call("GET", f"experiments/search?max_results=1000&filter=name%3D%27{name}%27").get("experiments", [])
    query = {"experiment_ids": [each["experiment_id"] for each in found]}
    runs = server.call("POST", "runs/search", query).get("runs", []) if found else []
    ended = [run["info"]["status"] for run in runs] == ["FINISHED"]
    return ended and bool(list((server.artifacts / found[0]["experiment_id"]).rglob("why.txt")))


def test_the_thread_delivers_while_training_code_holds_every_lock(
    environment: Environment, mlflow_server: MlflowServer, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.plan = always(Fault.REFUSE)
    gate, delivered, name = tmp_path / "gate", tmp_path / "delivered", "held-locks"

    def come_back() -> None:
        """MLflow is there once the locks are held; they are held until it has everything."""
        end = time.monotonic() + 60
        while not gate.exists() and time.monotonic() < end:
            time.sleep(0.05)
        proxy.plan = never
        while time.monotonic() < end:
            if has_all(mlflow_server, name):
                delivered.touch()
                return
            time.sleep(0.1)

    server = threading.Thread(target=come_back)
    server.start()
    site = Site(environment, tmp_path, f"spool+{proxy.uri}", {"MLFLOW_SPOOL_SETTLE": "0.1"})
    printed = site.train("held_locks.py", EXPERIMENT=name, GATE=str(gate), DELIVERED=str(delivered))
    server.join()
    assert printed.splitlines()[-1] == "delivered []"
    status = json.loads(site.spool("status", "--json", code=1))
    assert (status["pending"], len(status["refused"])) == (0, 1)


def test_a_store_that_is_not_behind_mlflow_is_asked_by_processes_that_end_when_they_are_late_or_not_needed(
    environment: Environment, tmp_path: Path
) -> None:
    began = time.monotonic()
    printed = Site(environment, tmp_path, "http://127.0.0.1:9").train("store.py", FOLDER=str(tmp_path))
    assert printed.splitlines() == [
        "200",
        "['deep/file.txt']",
        "200 content",
        "no answer",
        "no answer in time",
        "no answer",
        "200",
    ]
    assert (tmp_path / "root" / "deep" / "file.txt").read_text() == "content"
    assert time.monotonic() - began < 100  # MLflow's client would try the last upload for minutes.


def test_no_start_hangs_on_a_busy_machine(environment: Environment, tmp_path: Path) -> None:
    site = Site(environment, tmp_path, "spool+http://127.0.0.1:9", {"MLFLOW_SPOOL_EXIT_BUDGET": "0.5"}, limit=1800)
    printed = site.train("starts.py", STARTS=str(size(4, 200)), WORKERS=str(size(4, 8)))
    assert printed.splitlines()[-1] == "hung 0 failed 0"
