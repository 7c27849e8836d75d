"""A training script that nobody adapted, with MLflow there and away: in the end MLflow holds what was logged, once."""

from pathlib import Path
from typing import Any

import pytest

from tests.sizes import PROVE
from tests.spool.contents import contents, differences
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, never
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]


SCRIPTS = ["train.py", "models.py"]
Expected = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def expected(
    environment: Environment, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Expected:
    """What each script leaves when it talks to a healthy MLflow without the spool."""
    site = Site(environment, tmp_path_factory.mktemp("plain"), mlflow_server.uri)
    found = {}
    for script in SCRIPTS:
        site.train(script, EXPERIMENT=f"plain-{script}")
        found[script] = contents(mlflow_server, f"plain-{script}")
    return found


@pytest.fixture
def site(environment: Environment, proxy: Proxy, tmp_path: Path) -> Site:
    return Site(environment, tmp_path, f"spool+{proxy.uri}", {"MLFLOW_SPOOL_SETTLE": "0.2"})


def test_the_scripts_log_what_the_comparison_is_about(expected: Expected) -> None:
    parent = next(run for run in expected["train.py"]["runs"] if run["name"] == "parent")
    assert parent["metrics"]["loss"] == [[step, 1.0 / (step + 1)] for step in range(5)]
    assert parent["inputs"] == [["customers", parent["inputs"][0][1]]]
    assert [run["name"] for run in expected["train.py"]["runs"]] == ["child", "parent"]
    (run,), (model,) = expected["models.py"]["runs"], expected["models.py"]["models"]
    assert {"notes/why.txt", "config.json", "data/one.csv", "data/deep/two.csv"} <= run["artifacts"].keys()
    assert run["params"]["max_iter"] == "50"
    assert "run_id: models" in model["artifacts"]["MLmodel"]
    assert (model["status"], run["outputs"]) == ("LOGGED_MODEL_READY", ["model"])
    assert expected["models.py"]["versions"]["aliases"] == [{"alias": "challenger", "version": "1"}]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_healthy_server_gets_what_it_gets_without_the_spool(
    site: Site, mlflow_server: MlflowServer, expected: Expected, script: str
) -> None:
    site.train(script, EXPERIMENT=f"healthy-{script}")
    assert differences(contents(mlflow_server, f"healthy-{script}"), expected[script]) == []
    assert " 0 waiting" in site.spool("status")


@pytest.mark.parametrize(
    ("fault", "script"),
    [
        pytest.param(Fault.REFUSE, "models.py", id="refused"),
        pytest.param(Fault.HANG, "train.py", id="hangs"),
        *([pytest.param(Fault.UNAVAILABLE, "models.py", id="503")] if PROVE else []),
    ],
)
def test_training_goes_on_while_mlflow_is_away_all_along_and_flush_delivers_it(
    site: Site, proxy: Proxy, mlflow_server: MlflowServer, expected: Expected, fault: Fault, script: str
) -> None:
    proxy.plan = always(fault)
    name = f"away-{fault.name}"
    site.train(script, EXPERIMENT=name)
    proxy.plan = never
    assert " 0 waiting" not in site.spool("status")
    site.spool("flush", "--timeout", "60")
    assert differences(contents(mlflow_server, name), expected[script]) == []
    assert " 0 waiting" in site.spool("status")
    assert "missing" not in site.spool("verify")


LOST = [Fault.COMMIT_AND_DROP, *([Fault.COMMIT_AND_503] if PROVE else [])]


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault.value)
def test_a_creation_whose_answer_is_lost_happens_once(
    site: Site, proxy: Proxy, mlflow_server: MlflowServer, expected: Expected, fault: Fault
) -> None:
    once = {"experiments/create", "runs/create", "logged-models", "registered-models/create", "model-versions/create"}
    lost: list[str] = []

    def plan(number: int, line: str) -> Fault:
        name = line.removeprefix("POST /api/2.0/mlflow/")
        if name in once - set(lost):
            lost.append(name)
            return fault
        return Fault.NONE

    proxy.plan = plan
    name = f"lost-{fault.name}"
    site.train("models.py", EXPERIMENT=name)
    site.spool("flush", "--timeout", "60")
    assert set(lost) == once
    assert differences(contents(mlflow_server, name), expected["models.py"]) == []
