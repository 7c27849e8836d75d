"""A real MLflow server as a process, in an environment of its own; and what it holds, for comparison."""

import asyncio
import fcntl
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.kit.embedded.processes import free_port
from demo.environment import MLFLOW
from demo.environment import Environment as Pinned

ROOT = Path(__file__).resolve().parents[2]
#: Libraries whose training MLflow logs by itself, beside requirements/mlflow.txt.
TRAINING = Pinned("libraries of training code", "training", 3020, 6220)
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}


@dataclass(frozen=True)
class Environment:
    """The Python that MLflow is installed for, and a folder with mlflow-spool as it is built and installed.

    libraries: a folder with more that training code imports.
    """

    python: Path
    plugin: Path
    libraries: Path | None = None

    def variables(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        folders = os.pathsep.join(str(folder) for folder in (self.plugin, self.libraries) if folder)
        return {**kept, **QUIET, "PYTHONPATH": folders, **(extra or {})}


def install_mlflow() -> Path:
    """The Python of MLflow's own environment, from requirements/mlflow.txt, made once and kept."""
    return asyncio.run(MLFLOW.install(ROOT, print)) / "bin" / "python"


def install_libraries() -> Path:
    """The folder with what requirements/training.txt pins, made once and kept. Its versions are those of MLflow's own
    environment, where both have a package."""
    (found,) = asyncio.run(TRAINING.install(ROOT, print)).glob("lib/python3.*/site-packages")
    return found


def install(plugin: Path) -> Environment:
    """MLflow, and the plugin's wheel built from the checkout into `plugin`, by the first who asks."""
    uv, python = Path(sys.executable).with_name("uv"), install_mlflow()
    build: list[str | Path] = [sys.executable, "-m", "build", "--no-isolation", "--wheel"]
    build += ["--outdir", plugin / "dist", "mlflow-spool"]
    argv: list[str | Path] = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python]
    with plugin.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (plugin / "mlflow_spool").exists():
            subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
            (wheel,) = (plugin / "dist").glob("*.whl")
            subprocess.run([*argv, "--target", plugin, wheel], check=True, capture_output=True)
    return Environment(python, plugin)


class MlflowServer:
    """`mlflow server` on the database of a plain `postgresql://` URL, with proxied artifacts. It may send webhooks here."""

    def __init__(self, environment: Environment, folder: Path, database: str) -> None:
        self.port = free_port()
        self.database = database
        self._environment = environment
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def artifacts(self) -> Path:
        """Where the artifacts lie that it stands before."""
        return self._folder / "artifacts"

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, within: float = 90.0) -> None:
        """Returns once it answers. within: seconds."""
        self._folder.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [self._environment.python, "-m", "mlflow", "server", "--workers", "1"]
        argv += ["--host", "127.0.0.1", "--port", str(self.port)]
        argv += ["--backend-store-uri", self.database.replace("postgresql://", "postgresql+psycopg2://", 1)]
        argv += ["--artifacts-destination", f"file://{self.artifacts}"]
        # A webhook that a test has just made would otherwise be told of nothing for a minute.
        webhooks = {"MLFLOW_WEBHOOK_CACHE_TTL": "0", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https"}
        webhooks |= {"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
        environment = self._environment.variables({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | webhooks)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + within
        tick = threading.Event()
        while not self._is_up():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < end, "MLflow did not come up"
            tick.wait(0.1)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, version: str = "2.0") -> dict[str, Any]:
        """One request of the REST API, past every proxy. Fails the test when the answer is an error."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": "application/json"}
        connection.request(method, f"/api/{version}/mlflow/{path}", json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        connection.close()
        assert response.status == 200, answer
        return answer

    def _is_up(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def running(environment: Environment, folder: Path, database: str) -> Iterator[MlflowServer]:
    server = MlflowServer(environment, folder, database)
    try:
        server.start()
        yield server
    finally:
        server.stop()
