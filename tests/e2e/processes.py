"""Real servers for the end-to-end tests: a model that is measured, Prometheus and Alertmanager, with the shipped files.

The files of examples/ are used as they are but for their addresses and for time: everything in them runs `FASTER` times
faster, so that the relations between `for`, group_interval and debounce stay those that we recommend.
"""

import asyncio
import os
import re
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep
from typing import Any, Final, NoReturn, TypeVar

import httpx
import pytest
import yaml

from app.kit.clock import monotonic
from app.policy.language.durations import parse_duration
from demo.processes import Server, clean_environment, launch, stop
from tests import plain

Answer = TypeVar("Answer")

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
FASTER: Final = 100  # `for: 5m` is 3 s, group_interval 5m is 3 s
# Scrapes are not that much faster: one that times out, which it does at its interval, ends every alert of the model.
SCRAPES: Final = {"scrape_interval": "1s", "evaluation_interval": "500ms"}
READY: Final = 60.0  # seconds for a server to answer; 1 to 3 s measured on an idle machine


def lacking(what: str) -> NoReturn:
    """Skip the test for want of `what`; where REQUIRE_E2E=1 promises that it is there, fail."""
    if os.environ.get("REQUIRE_E2E") == "1":
        pytest.fail(f"{what}, and REQUIRE_E2E=1 says that nothing is missing")
    pytest.skip(what)


def require_binary(name: str) -> str:
    """The path of a program that the test needs."""
    return shutil.which(name) or lacking(f"{name} is not installed")


def eventually(what: str, ask: Callable[[], Answer | None], *, within: float = 30.0) -> Answer:
    """The first answer of `ask` that says something; asked every 100 ms, for at most `within` seconds.

    While `ask` cannot connect it has not answered. At the end the test fails, naming `what` and the last answer.
    """
    deadline = monotonic() + within
    answer: Any = None
    while monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except httpx.TransportError as error:
            answer = error
        sleep(0.1)
    pytest.fail(f"not within {within:.0f} s: {what}; the last answer was {answer!r}")


class Model:
    """What measures the models: a page with `model_accuracy{model=...}` that Prometheus scrapes."""

    def __init__(self) -> None:
        accuracy: dict[str, float] = {}
        self._accuracy = accuracy

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lines = [f'model_accuracy{{model="{model}"}} {value}\n' for model, value in accuracy.copy().items()]
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                with suppress(BrokenPipeError):  # Prometheus hangs up when it is stopped in the middle of a scrape.
                    self.wfile.write("".join(lines).encode())

            def log_message(self, format: str, *args: object) -> None:
                """Every scrape would be a line."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def set(self, model: str, accuracy: float) -> None:
        """From the next scrape on the model is as good as this (0 to 1)."""
        self._accuracy[model] = accuracy

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Process(ABC):
    """A server that answers at `url`, with its files in `folder`. `start` it, and `stop` it at the end."""

    folder: Path
    port: int
    name: str = field(init=False)
    ready_path: str = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> list[str | Path]:
        """The program and its arguments."""

    def environment(self) -> dict[str, str]:
        return clean_environment()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{self.name}.log"
        self.server = launch(self.name, self.command(), env=self.environment(), log=log, cwd=self.folder)

        def ready() -> bool:
            if self.server.exit_code is not None:
                pytest.fail(str(self.server.failed("ended")))
            return plain.get(self.url + self.ready_path).status_code == 200

        eventually(f"{self.name} to be ready (see {log})", ready, within=READY)

    def stop(self) -> None:
        asyncio.run(stop([self.server]))

    server: Server = field(init=False, repr=False)


@dataclass
class Alertmanager(Process):
    """Runs examples/alertmanager.yml, posting to `webhook`."""

    webhook: str

    def __post_init__(self) -> None:
        self.name, self.ready_path = "alertmanager", "/-/ready"

    def command(self) -> list[str | Path]:
        config = faster(yaml.safe_load((EXAMPLES / "alertmanager.yml").read_text()))
        for receiver in config["receivers"]:
            for hook in receiver["webhook_configs"]:
                hook["url"] = self.webhook
        file = write_yaml(self.folder / "alertmanager.yml", config)
        # Without an empty cluster address it opens 0.0.0.0:9094 for its replicas.
        options = [f"--config.file={file}", f"--storage.path={self.folder / 'data'}", "--cluster.listen-address="]
        return [require_binary("prometheus-alertmanager"), *options, f"--web.listen-address=127.0.0.1:{self.port}"]


@dataclass
class Prometheus(Process):
    """Runs examples/prometheus.yml and its rules: scrapes `targets` (job name to address), tells `alertmanager`."""

    targets: dict[str, str]
    alertmanager: str  # host:port

    def __post_init__(self) -> None:
        self.name, self.ready_path = "prometheus", "/-/ready"

    def command(self) -> list[str | Path]:
        config = faster(yaml.safe_load((EXAMPLES / "prometheus.yml").read_text()))
        config["global"] |= SCRAPES
        for manager in config["alerting"]["alertmanagers"]:
            manager["static_configs"] = [{"targets": [self.alertmanager]}]
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [self.targets[job["job_name"]]]}]
        for rules in (EXAMPLES / "rules").glob("*.yml"):
            write_yaml(self.folder / "rules" / rules.name, faster(yaml.safe_load(rules.read_text())))
        file = write_yaml(self.folder / "prometheus.yml", config)
        options = [f"--config.file={file}", f"--storage.tsdb.path={self.folder / 'data'}"]
        return [require_binary("prometheus"), *options, f"--web.listen-address=127.0.0.1:{self.port}"]

    def start(self) -> None:
        """As Process.start, and wait for the first scrape, which it begins up to 5 s later."""
        super().start()

        def scraped() -> bool:
            targets = plain.get(f"{self.url}/api/v1/targets").json()["data"]["activeTargets"]
            managers = plain.get(f"{self.url}/api/v1/alertmanagers").json()["data"]["activeAlertmanagers"]
            return bool(managers) and any(t["health"] == "up" and t["scrapePool"] == "models" for t in targets)

        eventually("Prometheus to have scraped the models", scraped, within=READY)


def faster(config: Any) -> Any:
    """The same configuration with every duration divided by FASTER. Durations inside PromQL stay."""
    match config:
        case dict():
            return {key: faster(value) for key, value in config.items()}
        case list():
            return [faster(value) for value in config]
        case str() if re.fullmatch(r"(\d+(ms|s|m|h|d|w|y))+", config):
            return f"{round(parse_duration(config) / FASTER / timedelta(milliseconds=1))}ms"
    return config


def write_yaml(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))
    return file
