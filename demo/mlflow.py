"""A real MLflow server as a process on this machine, and what the pipeline needs to report to it through mlflow-spool.

It has a Python environment of its own: the gateway asks MLflow over REST and does not want its 600 MB.
"""

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.kit.embedded.processes import free_ports
from app.kit.errors import TargetError
from app.kit.http import open_http
from demo.processes import (
    NO_AUTHORITIES,
    Say,
    Server,
    ServerError,
    clean_environment,
    launch,
    local_environment,
    run,
    stop,
    wait_until,
)

START_TIMEOUT: Final = 180.0  # seconds; 8 s measured on an idle machine, most of them for the tables of a new database
BUILD_TIMEOUT: Final = 60.0  # seconds; 1 s measured
QUIET: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@dataclass(frozen=True, slots=True)
class SeenVersion:
    """One registered version with its run, from MLflow's own API."""

    model: str
    version: str
    run_id: str
    run_status: str  # RUNNING, FINISHED, FAILED, ...
    tags: dict[str, str]  # the run's
    metrics: dict[str, float]  # the run's last values

    @property
    def trigger_id(self) -> str | None:
        """The trigger of the gateway that asked for it."""
        return self.tags.get("gateway.trigger_id")


class Mlflow:
    """One installation: its files in `home`, started and stopped any number of times on one port.

    environment: where requirements/mlflow.txt is installed; database_url: an empty or an MLflow database, `postgresql://`.
    """

    def __init__(self, *, environment: Path, home: Path, database_url: str) -> None:
        self._python = environment / "bin" / "python"
        self._home = home
        self._database_url = database_url
        self._port = free_ports(1)[0]
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def _plugin(self) -> Path:
        return self._home / "plugin"

    @property
    def training(self) -> dict[str, str]:
        """The variables with which examples/dags/retrain_model.py trains here and reports through the spool."""
        return QUIET | {
            "RETRAIN_PYTHON": str(self._python),
            "RETRAIN_STORE": str(self._home / "store"),
            "MLFLOW_TRACKING_URI": f"spool+{self.url}",
            "MLFLOW_SPOOL_DIR": str(self._home / "spool"),
            "PYTHONPATH": str(self._plugin),
        }

    async def build_spool(self, source: Path) -> None:
        """Build mlflow-spool from its source and put it where `training` finds it. Raises ServerError."""
        argv: list[str | Path] = [
            sys.executable,
            "-m",
            "hatchling",
            "build",
            "--target",
            "wheel",
            "--directory",
            self._home / "dist",
        ]
        log = self._home / "build.log"
        await run("building mlflow-spool", argv, env=clean_environment(), log=log, cwd=source, within=BUILD_TIMEOUT)
        for wheel in (self._home / "dist").glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(self._plugin)

    def launch(self) -> None:
        """Begin to start it. `wait_ready` waits until it answers."""
        self._home.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [self._python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
        argv += ["--port", str(self._port), "--artifacts-destination", (self._home / "artifacts").as_uri()]
        argv += ["--backend-store-uri", self._database_url.replace("postgresql://", "postgresql+psycopg2://", 1)]
        # Job execution would start eight more processes, for evaluations that the demo does not use.
        environment = local_environment(**QUIET, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
        self._server = launch("mlflow server", argv, env=environment, log=self._home / "server.log", cwd=self._home)

    async def wait_ready(self, say: Say) -> None:
        """Wait until it answers. Raises ServerError, with nothing left running."""

        async def ready() -> bool:
            async with open_http(verify=NO_AUTHORITIES) as http:
                try:
                    return (await http.request("GET", f"{self.url}/health")).status == 200
                except TargetError:
                    return False

        servers = [self._server] if self._server else []
        try:
            await wait_until("MLflow to answer", ready, within=START_TIMEOUT, servers=servers, say=say)
        except BaseException:
            await self.stop()
            raise
        say(f"MLflow: ready at {self.url}")

    async def stop(self) -> None:
        """End its processes."""
        server, self._server = self._server, None
        if server is not None:
            await stop([server])

    async def deliver(self, within: float = 120.0) -> None:
        """Deliver what is still in the spool, as `mlflow-spool flush` does. Raises ServerError when something is left."""
        argv: list[str | Path] = [self._python, "-m", "mlflow_spool.cli", "flush", "--timeout", str(within)]
        environment, log = local_environment(**self.training), self._home / "flush.log"
        await run("mlflow-spool flush", argv, env=environment, log=log, cwd=self._home, within=within + 30)

    async def versions(self) -> list[SeenVersion]:
        """The registered versions, at most 200, with their runs. Raises ServerError when MLflow does not list them."""
        found = await self._get("model-versions/search", max_results=200)
        seen = []
        for version in found.get("model_versions", []):
            run = (await self._get("runs/get", run_id=version["run_id"]))["run"]
            data = run["data"]
            seen.append(
                SeenVersion(
                    model=version["name"],
                    version=version["version"],
                    run_id=version["run_id"],
                    run_status=run["info"]["status"],
                    tags={tag["key"]: tag["value"] for tag in data.get("tags", [])},
                    metrics={metric["key"]: metric["value"] for metric in data.get("metrics", [])},
                )
            )
        return seen

    async def create_model(self, model: str) -> None:
        """Create the experiment and the registered model. Raises ServerError."""
        await self._post("experiments/create", {"name": model})
        await self._post("registered-models/create", {"name": model})

    async def register_by_hand(self, model: str, f1: float) -> str:
        """Register a version as from a notebook: with a metric, without other metadata. Returns its number. Raises
        ServerError."""
        experiment = (await self._get("experiments/get-by-name", experiment_name=model))["experiment"]
        made = await self._post("runs/create", {"experiment_id": experiment["experiment_id"], "run_name": "notebook"})
        run_id = made["run"]["info"]["run_id"]
        await self._post("runs/log-metric", {"run_id": run_id, "key": "f1", "value": f1, "timestamp": 1, "step": 0})
        version = {"name": model, "run_id": run_id, "source": f"{made['run']['info']['artifact_uri']}/model"}
        number: str = (await self._post("model-versions/create", version))["model_version"]["version"]
        return number

    async def _get(self, path: str, **params: str | int) -> dict[str, Any]:
        return await self._ask("GET", path, params=params)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._ask("POST", path, json=body)

    async def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        async with open_http(verify=NO_AUTHORITIES) as http:
            answer = await http.request(method, f"{self.url}/api/2.0/mlflow/{path}", **more)
        if answer.status != 200:
            raise ServerError(f"MLflow answered {answer.status} to {path}: {answer.body}")
        body: dict[str, Any] = answer.body
        return body
