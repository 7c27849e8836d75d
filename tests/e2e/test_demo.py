"""`trigger-gateway demo` tells its story on a real Airflow of its own, and leaves no process behind."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.processes import clean_environment
from tests.e2e.processes import eventually

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).with_name("trigger-gateway")


@contextmanager
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo, started in `folder`; what it prints goes to `folder`/out."""
    with (folder / "out").open("w") as output:
        process = subprocess.Popen(
            [PROGRAM, "demo"],
            cwd=folder,
            env=clean_environment(COLUMNS="100"),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def left_in(folder: Path) -> list[str]:
    """The processes that work in `folder` or were started for it: their command lines."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command or (process / "cwd").readlink().is_relative_to(folder):
                found.append(command)
        except OSError:  # It ended meanwhile.
            continue
    return found


def test_the_demo_retrains_each_model_once_and_says_why_not_twice(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        code = process.wait(timeout=600)
    output = (tmp_path / "out").read_text()
    assert code == 0, output
    assert "Exactly one DAG run per model, and every refusal has a reason." in output
    assert output.count("as promised") == 3
    assert re.search(r"registered in MLflow\s+│\s+version 2\s+│\s+version 1\s+│\s+-", output)
    assert re.search(r"champion at the end\s+│\s+version 1\s+│\s+version 1\s+│\s+-", output), output
    assert "is over, and the alias went back" in " ".join(output.split())
    assert re.search(r"did it help\s+│\s+recurred\s+│\s+fixed\s+│\s+-", output), output
    assert "churn: 1 retrain, 0 fixed, 1 rolled back: retraining does not help; look at the data." in output
    assert "fraud: 1 retrain, 1 fixed: retraining helps." in output
    assert re.search(r"^promotion +promote to champion: promoted", output, re.M)
    assert "No link is missing." in output
    assert "trigger-gateway explain" in output
    assert "suppress" in output
    assert "cools down until" in output
    assert "One champion per model, and no model without its metadata." in output
    for reason in ("param C", "input training", "artifact model", "f1 >= champion.f1"):
        assert reason in output.rpartition("trigger-gateway promote")[2], reason
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [
        pytest.param(signal.SIGINT, 130, "starting api-server", id="ctrl-c"),
        pytest.param(signal.SIGTERM, 143, "preparing its database", id="terminated"),
    ],
)
def test_interrupted_in_the_middle_of_its_start_it_stops_what_it_has_started(
    tmp_path: Path, number: signal.Signals, code: int, moment: str
) -> None:
    with demo(tmp_path) as process:
        eventually(f"it to say: {moment}", lambda: moment in (tmp_path / "out").read_text(), within=60)
        assert left_in(tmp_path)
        process.send_signal(number)
        assert process.wait(timeout=60) == code
    assert "Stopping the servers" in (tmp_path / "out").read_text()
    assert "Traceback" not in (tmp_path / "out").read_text()
    assert left_in(tmp_path) == []
