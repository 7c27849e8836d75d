"""The spool's own requests carry what those of MLflow's client would: a CA of the environment, a signature of a plugin."""

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests.auth

from mlflow_spool.errors import NotSent
from mlflow_spool.records import Call
from mlflow_spool.transport import MlflowServer, subject_of

CALL = Call("GET", "/health")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.heads.append(dict(self.headers.items()))  # type: ignore[attr-defined]
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
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    subprocess.run([*argv, "-keyout", key, "-out", cert, *names], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def server(certificate: tuple[Path, Path]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An HTTPS server: its address, and the headers of its requests."""
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.heads = []  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"https://127.0.0.1:{listening.server_address[1]}", listening.heads  # type: ignore[attr-defined]
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "MLFLOW_TRACKING_SERVER_CERT_PATH"])
def test_a_ca_of_the_environment_is_trusted_and_none_other(
    server: tuple[str, list[dict[str, str]]],
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    with pytest.raises(NotSent, match="CERTIFICATE_VERIFY_FAILED"):
        MlflowServer(server[0]).send(CALL, 10.0)
    monkeypatch.setenv(variable, str(certificate[0]))
    assert MlflowServer(server[0]).send(CALL, 10.0).status == 200


class Signature(requests.auth.AuthBase):  # type: ignore[misc]
    """A plugin of MLFLOW_TRACKING_AUTH: each request gets a token of its own."""

    def __init__(self) -> None:
        self.signed = 0

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        self.signed += 1
        r.headers["Authorization"] = f"Signed {self.signed} {r.method}"
        return r

    def get_name(self) -> str:
        return "test-signature"

    def get_auth(self) -> "Signature":
        return self


def test_a_plugin_signs_each_request(
    server: tuple[str, list[dict[str, str]]], certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking.request_auth import registry

    registry._request_auth_provider_registry.register(Signature)
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "test-signature")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    asked = MlflowServer(server[0])
    for _ in range(2):
        asked.send(CALL, 10.0)
    signed = [head["Authorization"] for head in server[1]]
    assert [tuple(value.split()[::2]) for value in signed] == [("Signed", "GET")] * 2
    assert signed[0] != signed[1]


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("e30.eyJzdWIiOiAiYWxpY2UifQ.x", "alice"),  # {"sub": "alice"}
        ("e30.e30.x", ""),
        ("dapi0123456789", ""),
        ("a.b.c", ""),
        ("", ""),
    ],
)
def test_a_token_names_somebody_only_if_it_is_a_jwt(token: str, expected: str) -> None:
    assert subject_of(token) == expected
