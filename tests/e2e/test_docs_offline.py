"""The documentation in a real browser that has no network: every operation is shown, and nothing is asked elsewhere."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap.settings import read_settings
from app.web.main import create_app
from tests.acceptance.world import POLICY
from tests.e2e.processes import require_binary

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--enable-logging=stderr",
    "--dump-dom",
    # The page's own clock: the scripts get these milliseconds, waiting for an answer does not use them up.
    "--virtual-time-budget=20000",
    # Where no namespace can be had, at least no name has an address.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@dataclass(frozen=True)
class Served:
    """A server, the command prefix that leads to where it is, and the operations' paths it should show."""

    url: str
    enter: tuple[str, ...]
    paths: frozenset[str]


def isolated() -> bool:
    """Whether a network namespace of our own can be had: as root, where the container allows it."""
    if os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0


@contextmanager
def serve(command: list[str], environment: dict[str, str], log: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Run a server, in a namespace with nothing but loopback if possible; its URL, and the way in."""
    alone = isolated()
    prefix = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"] if alone else []
    with (
        log.open("w") as log_file,
        subprocess.Popen([*prefix, *command], env=environment, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stderr is not None
            url = ""
            for line in process.stderr:  # The server says where it is, and then that it is ready.
                log_file.write(line)
                if found := re.search(r"url=(http://127\.0\.0\.1:\d+)", line):
                    url = found[1]
                if url and "startup complete" in line:
                    # unshare and sh replaced themselves, so this pid is the server's.
                    yield url, ("nsenter", f"--target={process.pid}", "--net") if alone else ()
                    break
            else:
                pytest.fail(f"the server did not start; see {log}")
        finally:
            process.terminate()


@pytest.fixture
def docs_url(tmp_path: Path) -> Iterator[Served]:
    """The gateway itself with its embedded servers, in a process of its own."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {
        "GATEWAY_POLICY_FILE": str(tmp_path / "policy.yaml"),
        "GATEWAY_DATA_DIR": str(tmp_path / "data"),
        "GATEWAY_PORT": "0",
        "GATEWAY_LOG_JSON": "false",
    }
    command = [str(Path(sys.executable).with_name("trigger-gateway")), "serve"]
    # Its lifespan is not entered: only the document is asked for.
    paths = frozenset(create_app(read_settings(), None).openapi()["paths"])  # type: ignore[arg-type]
    with serve(command, environment, tmp_path / "server.log") as (url, enter):
        yield Served(url, enter, paths)


@dataclass(frozen=True)
class Visit:
    """What a browser made of an address."""

    dom: str
    console: str
    events: list[dict[str, Any]]

    def requests_of(self, origin: str) -> set[str]:
        """Every address that pages of `origin` asked for; the browser's own errands are not theirs."""
        asked = [event.get("params", {}) for event in self.events]
        return {str(params["url"]) for params in asked if params.get("initiator") == origin and "url" in params}


def visit(url: str, enter: tuple[str, ...], folder: Path) -> Visit:
    """Load an address in a new headless Chromium, run its scripts, and take down what it shows and asks for."""
    net_log = folder / "net.json"
    browser = [
        require_binary("chromium"),
        *OPTIONS,
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={net_log}",
    ]
    environment = os.environ | {"HOME": str(folder)}
    done = subprocess.run([*enter, *browser, url], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return Visit(done.stdout, done.stderr, json.loads(net_log.read_text())["events"])


def test_the_documentation_shows_every_operation_without_a_network(docs_url: Served, tmp_path: Path) -> None:
    page = visit(f"{docs_url.url}/docs", docs_url.enter, tmp_path)

    shown = set(re.findall(r'class="opblock-summary-path" data-path="([^"]+)"', page.dom))
    assert shown == docs_url.paths
    assert 'class="swagger-ui' in page.dom
    assert "Failed to load API definition" not in page.dom
    assert "Content Security Policy" not in page.console, "the page asks for what its own policy forbids"
    asked = page.requests_of(docs_url.url)
    assert f"{docs_url.url}/openapi.json" in asked
    assert f"{docs_url.url}/docs/assets/swagger-ui.css" in asked
    assert [url for url in asked if not url.startswith((f"{docs_url.url}/", "data:"))] == []
