"""What MLflow refused is let go again, once the reason is mended: `mlflow-spool redrive`."""

import io
from pathlib import Path

import pytest

from mlflow_spool.cli import main
from mlflow_spool.spool import Spool
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.workload import ManualClock, post, spool_on


@pytest.fixture(autouse=True)
def folder(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_SPOOL_DIR", str(memory))
    return memory


@pytest.fixture
def server() -> FakeMlflow:
    server = FakeMlflow()
    server.plan = always(Fault.REFUSE)
    return server


@pytest.fixture
def spool(server: FakeMlflow, memory: Path) -> Spool:
    return spool_on(server, memory, ManualClock())


def start(spool: Spool, name: str, experiment: str = "0") -> str:
    run = post(spool, "runs/create", experiment_id=experiment, run_name=name, start_time=1)["run"]
    return str(run["info"]["run_id"])


def deliver(spool: Spool, server: FakeMlflow) -> int:
    """How many records are aside when all that can has left."""
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    return len(spool.journal.inventory.asides())


def redrive(*arguments: str, code: int = 0) -> str:
    out = io.StringIO()
    assert main(["redrive", *arguments], out) == code
    return out.getvalue()


def test_a_run_that_was_refused_arrives_whole_and_in_order_once_its_experiment_is_there(
    spool: Spool, server: FakeMlflow
) -> None:
    run = start(spool, "churn", experiment="1")
    for step in range(3):
        post(spool, "runs/log-metric", run_id=run, key="m", value=step / 2, timestamp=step, step=step)
    post(spool, "runs/update", run_id=run, status="FINISHED", end_time=2)
    assert deliver(spool, server) == 5
    assert redrive().startswith("http://mlflow: 5 records wait again")
    assert deliver(spool, server) == 5  # The reason is still there.
    server.experiments["1"] = {"experiment_id": "1", "name": "churn", "tags": []}
    redrive()
    assert deliver(spool, server) == 0
    (there,) = server.runs.values()
    assert [step for step, _, _ in there["metrics"]["m"]] == [0, 1, 2]
    assert there["info"]["status"] == "FINISHED"
    assert redrive() == ""


@pytest.mark.parametrize("known_by", ["local id", "real id"])
def test_one_run_is_redriven_alone_by_either_id(spool: Spool, server: FakeMlflow, known_by: str) -> None:
    runs = [start(spool, name) for name in ("one", "two")]
    for run in runs:
        for value in ("1", "2"):
            post(spool, "runs/log-parameter", run_id=run, key="p", value=value)
    assert deliver(spool, server) == 2
    for there in server.runs.values():
        there["params"].clear()  # Somebody has mended it.
    real = spool.journal.names.name_of(runs[1])
    assert real is not None
    redrive("--run", runs[1] if known_by == "local id" else real)
    assert deliver(spool, server) == 1
    assert {there["info"]["run_name"]: there["params"] for there in server.runs.values()} == {
        "one": {},
        "two": {"p": "2"},
    }


def test_a_run_of_which_nothing_was_refused_is_told(
    spool: Spool, server: FakeMlflow, capsys: pytest.CaptureFixture[str]
) -> None:
    start(spool, "fine")
    assert deliver(spool, server) == 0
    assert redrive("--run", "0" * 32, code=1) == ""
    assert "nothing of the run " + "0" * 32 in capsys.readouterr().err
