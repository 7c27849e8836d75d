"""Traces never cost time: they go through while MLflow is there, and are dropped with one warning while it is away."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.sizes import PROVE
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, gone_after_the_phase, never
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

TRACED = 30.0  # seconds for all calls of the script that are traced and logged, on a busy machine
LEAVING = 30.0  # seconds from the end of the script to the end of its process; without limits of ours they are minutes


def traces(server: MlflowServer, name: str) -> list[dict[str, Any]]:
    found = server.call("GET", f"experiments/get-by-name?experiment_name={name}")["experiment"]
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": found["experiment_id"]}}
    body = {"locations": [location], "max_results": 100}
    listed: list[dict[str, Any]] = server.call("POST", "traces/search", body, version="3.0").get("traces", [])
    return listed


def kinds(found: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {
        (trace["state"], trace["tags"]["mlflow.traceName"], trace["tags"]["mlflow.trace.spansLocation"])
        for trace in found
    }


def test_they_arrive_as_without_the_spool(
    environment: Environment, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    for name, uri in (("plain", mlflow_server.uri), ("spooled", f"spool+{mlflow_server.uri}")):
        Site(environment, tmp_path, uri).train("traces.py", EXPERIMENT=f"traces-{name}")
    plain, spooled = (traces(mlflow_server, f"traces-{name}") for name in ("plain", "spooled"))
    assert (len(spooled), kinds(spooled)) == (len(plain), kinds(plain)) == (31, kinds(plain))


@pytest.mark.parametrize(
    ("when", "fault"),
    [
        ("in the midst", Fault.HANG),
        *([("from the start", Fault.REFUSE), ("in the midst", Fault.UNAVAILABLE)] if PROVE else []),
    ],
)
def test_while_mlflow_is_away_they_cost_no_time(
    environment: Environment, mlflow_server: MlflowServer, proxy: Proxy, tmp_path: Path, when: str, fault: Fault
) -> None:
    name = f"traces-{when.replace(' ', '-')}-{fault.name.lower()}"
    proxy.plan = always(fault) if when == "from the start" else gone_after_the_phase(fault)
    site = Site(environment, tmp_path, f"spool+{proxy.uri}", {"MLFLOW_SPOOL_SETTLE": "0.2"})
    printed = site.train("traces.py", EXPERIMENT=name)
    left = time.time()
    slowest, ended = (float(line.split()[1]) for line in printed.splitlines() if line.startswith(("slowest", "ended")))
    assert (slowest < TRACED, left - ended < LEAVING) == (True, True), (slowest, left - ended)
    assert site.noise[-1].count("drops them") == 1, site.noise
    proxy.plan = never
    site.spool("flush", "--timeout", "60")
    assert " 0 waiting" in site.spool("status")
