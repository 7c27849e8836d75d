"""The gateway of the demo: a real `trigger-gateway serve`. The demo uses its HTTP API, as any sender does."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from app.kit.clock import monotonic
from app.kit.embedded.processes import free_ports, is_free
from app.kit.errors import TargetError
from app.kit.http import Http, open_http
from demo.airflow import Airflow
from demo.processes import Say, Server, ServerError, clean_environment, launch, stop, wait_until
from demo.storm import REPLICAS, Post

COMMAND: Final = (sys.executable, "-c", "from app.cli.main import main; main()")
PORT: Final = 8090  # if it is free; otherwise any free port
START_TIMEOUT: Final = 60.0  # seconds; 3 s measured on an idle machine
STOP_GRACE: Final = 20.0  # seconds; it stops its PostgreSQL and its Valkey when no other process uses them
ROUTE: Final = "accuracy"

# Everything takes only seconds, because people watch. In production the debounce is longer than Alertmanager's
# group_interval.
POLICY: Final = """\
version: 1
airflow:
  - name: default
    url: __AIRFLOW__
    auth: {username: "${AIRFLOW_USERNAME}", password: "${AIRFLOW_PASSWORD}"}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    debounce: 8s
    cooldown: 24h
    effect: {settle: 1m, watch: 1m}
    dag: {id: retrain_model}
mlflow: {tracking_uri: __MLFLOW__}
lineage: {every: 5s, grace: 20s}
promotions:
  - model: .*
    to: champion
    require: {params: [C], metrics: [f1, auc], inputs: [training], artifacts: [model]}
    rules: ['f1 >= 0.80', 'f1 >= champion.f1']
    probation:
      for: 1h
      match: ['alertname="ModelAccuracyLow"']
      group: {model: "{{version.model}}"}
      debounce: 5s
      then: rollback
"""


class Gateway:
    """One gateway on `data_dir`, for one Airflow and one MLflow. `start` it, and `stop` it at the end."""

    def __init__(self, *, folder: Path, data_dir: Path, mlflow_url: str) -> None:
        self._folder = folder
        self._data_dir = data_dir
        self._mlflow_url = mlflow_url
        self._port = PORT if is_free(PORT) else free_ports(1)[0]
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self, airflow: Airflow, say: Say) -> None:
        """Start it and wait until it can take alerts. Raises ServerError, with nothing left running."""
        say("Gateway: starting")
        policy = _write_policy(self._folder, airflow.url, self._mlflow_url)
        environment = clean_environment(
            GATEWAY_POLICY_FILE=str(policy),
            GATEWAY_DATA_DIR=str(self._data_dir),
            GATEWAY_PORT=str(self._port),
            GATEWAY_FOLLOW_INTERVAL="1",
            AIRFLOW_USERNAME=airflow.username,
            AIRFLOW_PASSWORD=airflow.password,
        )
        log = self._folder / "gateway.log"
        self._server = launch("trigger-gateway", [*COMMAND, "serve"], env=environment, log=log, cwd=self._folder)
        try:
            async with open_http() as http:

                async def ready() -> bool:
                    try:
                        return (await http.request("GET", f"{self.url}/readyz")).status == 200
                    except TargetError:
                        return False

                took = await wait_until(
                    "the gateway to be ready", ready, within=START_TIMEOUT, servers=[self._server], say=say
                )
        except BaseException:
            await self.stop()
            raise
        say(f"Gateway: ready after {took:.0f} s at {self.url}/docs")

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await stop([server], grace=STOP_GRACE)

    async def items(self, http: Http, kind: str) -> list[dict[str, Any]]:
        """`alerts`, `triggers` or `effects` of the demo's route, or `promotions`, newest first. Raises ServerError when it
        does not list them."""
        which = "" if kind == "promotions" else f"route={ROUTE}&"
        answer = await http.request("GET", f"{self.url}/api/v1/{kind}?{which}limit=1000")
        if answer.status != 200:
            raise ServerError(f"the gateway did not list its {kind}: {answer.status} {answer.body}")
        items: list[dict[str, Any]] = answer.body["items"]
        return items

    async def send(self, posts: Sequence[Post], acknowledged: Callable[[Post], None]) -> None:
        """Send the notifications at their times, as their replicas would. Raises ServerError for any answer but a 202."""
        began = monotonic()
        parts = [[post for post in posts if post.replica == replica] for replica in REPLICAS]
        ends = await asyncio.gather(
            *(self._send_as(part, began, acknowledged) for part in parts), return_exceptions=True
        )
        for error in filter(None, ends):
            raise error

    async def _send_as(self, posts: Sequence[Post], began: float, acknowledged: Callable[[Post], None]) -> None:
        async with open_http() as http:
            for post in posts:
                await asyncio.sleep(began + post.after - monotonic())
                answer = await http.request("POST", f"{self.url}/api/v1/webhooks/alertmanager", json=post.body)
                if answer.status != 202:
                    raise ServerError(f"the gateway answered {answer.status} to an alert: {answer.body}")
                acknowledged(post)

    async def run(self, *arguments: str, width: int, code: int = 0) -> str:
        """Run `trigger-gateway` with these arguments and return its output, `width` columns wide. Raises ServerError when it
        ends with another exit code."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            env=clean_environment(GATEWAY_URL=self.url, COLUMNS=str(width)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode != code:
            raise ServerError(f"trigger-gateway {' '.join(arguments)} failed: {output.decode(errors='replace')}")
        return output.decode().rstrip()


def _write_policy(folder: Path, airflow_url: str, mlflow_url: str) -> Path:
    file = folder / "policy.yaml"
    file.write_text(POLICY.replace("__AIRFLOW__", airflow_url).replace("__MLFLOW__", mlflow_url))
    return file
