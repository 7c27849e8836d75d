"""Calls that read before they write, and runs that somebody else made: with MLflow there, away, and gone in the midst."""

from pathlib import Path
from typing import Any

import pytest

from tests.sizes import size
from tests.spool.contents import contents, differences
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, gone_after_the_phase, never
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

LIMIT = 30.0  # seconds of the slowest call, on a busy machine; without a limit of ours they are minutes
Expected = dict[str, dict[str, Any]]


def launch(server: MlflowServer, name: str) -> dict[str, str]:
    """Variables with the ids of two runs and of a logged model that another program made."""
    experiment, runs = server.call("POST", "experiments/create", {"name": name})["experiment_id"], {}
    for variable, run in (("MLFLOW_RUN_ID", "tables"), ("OTHER_RUN", "other")):
        body = {"experiment_id": experiment, "run_name": run, "start_time": 1}
        runs[variable] = str(server.call("POST", "runs/create", body)["run"]["info"]["run_id"])
    model = server.call("POST", "logged-models", {"experiment_id": experiment, "name": "others"})["model"]
    return runs | {"OTHER_MODEL": str(model["info"]["model_id"])}


@pytest.fixture(scope="module")
def expected(
    environment: Environment, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Expected:
    """What the script leaves without the spool, in a run of its own and in one that was given to it."""
    site = Site(environment, tmp_path_factory.mktemp("plain"), mlflow_server.uri)
    site.train("tables.py", EXPERIMENT="tables-own")
    printed = site.train("tables.py", EXPERIMENT="tables-given", **launch(mlflow_server, "tables-given"))
    assert "listed []" in printed.splitlines()
    return {kind: contents(mlflow_server, f"tables-{kind}") for kind in ("own", "given")}


def test_the_script_logs_what_the_comparison_is_about(expected: Expected) -> None:
    for kind in ("own", "given"):
        (*others, run), (model, *models) = expected[kind]["runs"], expected[kind]["models"]
        assert [list(each["artifacts"]) for each in models] == [["tables.py"]] * len(others)
        assert [other["artifacts"].keys() for other in others] == [{"ranks/1.txt", "ranks/1.json", "1.yaml"}] * len(
            others
        )
        assert run["artifacts"]["top.json"].count("c") == 3, run["artifacts"]["top.json"]  # "columns", and two rows.
        assert {"deep/table.json", "deep/earlier.txt", "new/table.json", "later.txt", "image.png"} <= set(
            run["artifacts"]
        )
        assert (model["status"], len(expected[kind]["versions"]["versions"])) == ("LOGGED_MODEL_READY", 1)


CASES = [(kind, when) for when in ("from the start", "in the midst") for kind in ("own", "given")]


@pytest.mark.parametrize(("kind", "when"), size([("own", "from the start"), ("given", "in the midst")], CASES))
def test_training_goes_on_and_everything_arrives_in_that_run(
    environment: Environment,
    mlflow_server: MlflowServer,
    proxy: Proxy,
    expected: Expected,
    tmp_path: Path,
    kind: str,
    when: str,
) -> None:
    name = f"tables-{kind}-{when.replace(' ', '-')}"
    given = launch(mlflow_server, name) if kind == "given" else {}
    proxy.plan = always(Fault.REFUSE) if when == "from the start" else gone_after_the_phase(Fault.HANG)
    site = Site(environment, tmp_path, f"spool+{proxy.uri}", {"MLFLOW_SPOOL_SETTLE": "0.2"})
    printed = site.train("tables.py", EXPERIMENT=name, **given)
    assert float(printed.split()[-1]) < LIMIT
    # Nobody here knows the files of a run that others made. That there are none would be a lie.
    assert ("listed SpoolOffline" in printed.splitlines()) is (kind == "given")
    proxy.plan = never
    site.spool("flush", "--timeout", "60")  # It waits until a creation has settled.
    assert " 0 waiting" in site.spool("status")
    assert differences(contents(mlflow_server, name), expected[kind]) == []
