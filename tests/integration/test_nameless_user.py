"""Commands as a user without a name and without a home, as in a container: a sentence, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.kit.embedded import unprivileged
from tests.integration.gateways import NAMELESS, ROOT

NO_USER = "GATEWAY_DATABASE_URL names no user" if ROOT else "127.0.0.1:1"


@pytest.mark.parametrize(
    ("program", "arguments", "variables", "words"),
    [
        (
            "trigger-gateway",
            ["trigger", "r", "--reason", "x"],
            {"GATEWAY_URL": "http://127.0.0.1:1"},
            "http://127.0.0.1:1",
        ),
        (
            "trigger-gateway",
            ["migrate"],
            {"GATEWAY_DATABASE_URL": "postgresql://127.0.0.1:1/d"},
            "names no user" if ROOT else "127.0.0.1:1",
        ),
        ("mlflow-spool", ["status"], {"MLFLOW_TRACKING_URI": "spool+http://127.0.0.1:1"}, ""),
    ],
    ids=["trigger", "migrate", "spool"],
)
def test_a_command_needs_no_name_and_no_home(
    tmp_path: Path, program: str, arguments: list[str], variables: dict[str, str], words: str
) -> None:
    command: list[str | Path] = [Path(sys.executable).with_name(program), *arguments]
    if ROOT:
        become = [unprivileged.__file__, str(NAMELESS), "0", str(tmp_path)]
        command = [sys.executable, "-I", "-S", *become, sys.executable, *command]
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **variables},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in output
    assert words in output
