"""The gateway of this machine is reached directly, whatever proxies the environment names."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from mlflow_spool.errors import TransportError
from mlflow_spool.gateway import Gateway

TAKEN = b'{"taken": 1, "known": 0}'
#: What the gateway answers to one record.
BODY: dict[str, Any] = {"records": [{}]}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(TAKEN)))
        self.end_headers()
        self.wfile.write(TAKEN)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_is_not_asked_for_this_machine(port: int, host: str) -> None:
    assert Gateway(f"http://{host}:{port}", "").take(BODY, 10).status == 202


def test_a_proxy_is_asked_for_any_other_machine(port: int) -> None:
    with pytest.raises(TransportError, match="refused"):
        Gateway("http://gateway.example:80", "").take(BODY, 10)
