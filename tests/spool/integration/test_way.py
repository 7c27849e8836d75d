"""The spool's own requests carry what those of MLflow's client would: a CA of the environment, a login, a signature."""

import http.server
import json
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.spool.mlflow import Environment
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

BASIC = "Basic " + b64encode(b"alice:secret").decode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.heads.append(self.headers.get("Authorization", ""))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1, signed by itself, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv: list[str | Path] = ["openssl", "req", "-x509", *curve, "-keyout", key, "-out", cert, *names]
    subprocess.run(argv, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def server(certificate: tuple[Path, Path]) -> Iterator[tuple[str, list[str]]]:
    """An HTTPS server: its address, and the logins of its requests."""
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    heads = listening.heads = []  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"https://127.0.0.1:{listening.server_address[1]}", heads
    listening.shutdown()
    listening.server_close()
    thread.join()


def test_it_is_the_way_of_mlflows_client(
    environment: Environment, server: tuple[str, list[str]], certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    uri, heads = server
    own = str(certificate[0])
    trusted = {"REQUESTS_CA_BUNDLE": own}
    requests: list[tuple[dict[str, str], str, list[str]]] = [
        ({}, "CERTIFICATE_VERIFY_FAILED", []),
        (trusted, "200", [""]),
        ({"CURL_CA_BUNDLE": own}, "200", [""]),
        ({"MLFLOW_TRACKING_SERVER_CERT_PATH": own}, "200", [""]),
        ({"MLFLOW_TRACKING_INSECURE_TLS": "true"}, "200", [""]),
        ({**trusted, "MLFLOW_TRACKING_USERNAME": "alice", "MLFLOW_TRACKING_PASSWORD": "secret"}, "200", [BASIC]),
        ({**trusted, "MLFLOW_TRACKING_TOKEN": "a-token"}, "200", ["Bearer a-token"]),
        ({**trusted, "MLFLOW_TRACKING_AUTH": "test-signature"}, "200", ["Signed 2 GET"]),  # The first loads the plugin.
    ]
    variables = {"URI": uri, "VARIABLES": json.dumps([given for given, _, _ in requests])}
    site = Site(environment, tmp_path, uri)
    found = json.loads(site.train("way.py", **variables).splitlines()[-1])
    for (given, expected, _), outcome in zip(requests, found, strict=True):
        assert expected in outcome, (given, outcome)
    assert heads == [login for _, _, logins in requests for login in logins]
