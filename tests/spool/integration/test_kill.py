"""A training process killed with -9 at a random moment: what it was told is kept reaches MLflow, once."""

import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.sizes import seed, size
from tests.spool.contents import contents
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, never
from tests.spool.training import SCRIPTS, Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.NONE], ids=["MLflow away", "MLflow there"])
def test_what_a_killed_process_had_logged_reaches_mlflow_in_order_and_once(
    environment: Environment, mlflow_server: MlflowServer, proxy: Proxy, tmp_path: Path, fault: Fault
) -> None:
    choose = random.Random(seed())
    for number in range(size(1, 30)):
        name = f"killed-{fault.name}-{number}"
        site = Site(environment, tmp_path / name, f"spool+{proxy.uri}", {"MLFLOW_SPOOL_SETTLE": "0.2"})
        site.folder.mkdir()
        proxy.plan = always(fault) if fault is not Fault.NONE else never
        logged = _kill_after(site, name, choose.randrange(5, 60))
        proxy.plan = never
        site.spool("flush", "--timeout", "60")
        (run,) = contents(mlflow_server, name)["runs"]
        steps = [step for step, _ in run["metrics"]["step"]]
        # The call that was cut off may have been carried out; everything before it was.
        assert steps in (list(range(logged)), list(range(logged + 1)))
        assert " 0 waiting" in site.spool("status")


def _kill_after(site: Site, experiment: str, lines: int) -> int:
    """Kill the script after it has said so many times that a step was logged; returns how many times it said so."""
    own = {"MLFLOW_TRACKING_URI": site.tracking_uri, "MLFLOW_SPOOL_DIR": str(site.folder), "EXPERIMENT": experiment}
    process = subprocess.Popen(
        [site.environment.python, SCRIPTS / "endless.py"],
        env=site.environment.variables(own | site.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    logged = 0
    for line in process.stdout:
        logged += line.startswith("logged")
        if logged == lines:
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return logged
