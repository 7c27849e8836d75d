"""Variables of the environment that concern our requests: what cannot be used is named, and loopback needs none of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.kit.errors import Unreachable, UsageError
from app.kit.http import open_http, proxy_warnings

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@asynccontextmanager
async def answering() -> AsyncIterator[int]:
    """The port of a server on this machine that answers every request."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:1080"},
        {"HTTP_PROXY": "socks5h://127.0.0.1:1080", "HTTPS_PROXY": "ftp://x"},
        {"HTTP_PROXY": "http://u:p@ss/w@x:port"},
        {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "fd00::/8"},
        {"NO_PROXY": "fd00::/8,::1,[::1],localhost"},
        {"NO_PROXY": "%zz,:,[,://"},
        {"REQUESTS_CA_BUNDLE": "/no/such/file", "CURL_CA_BUNDLE": "/no/such/file"},
        {"SSL_CERT_FILE": "", "SSL_CERT_DIR": "", "SSLKEYLOGFILE": ""},
    ],
    ids=str,
)
async def test_this_machine_is_reached_whatever_they_say(
    variables: Mapping[str, str], given: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        given.setenv(name, value)
    async with answering() as port, open_http() as http:
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            assert (await http.request("GET", f"http://{host}:{port}/")).body == "ok"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://u:hunter2@127.0.0.1:1080"),
        ("HTTP_PROXY", "ftp://u:hunter2@127.0.0.1:1080"),
        ("http_proxy", "http://u:hunter2/@127.0.0.1:1080"),
        ("HTTP_PROXY", "http://u:hunter2@127.0.0.1:port"),
        ("HTTP_PROXY", "http://u:hunter2@exa mple:1080"),
    ],
)
async def test_a_request_that_needs_an_unusable_proxy_fails_and_names_it(
    name: str, value: str, given: pytest.MonkeyPatch
) -> None:
    given.setenv(name, value)
    async with open_http() as http:
        with pytest.raises(
            Unreachable, match=f"^airflow.example is behind a proxy, and {name.upper()} cannot"
        ) as raised:
            await http.request("GET", "http://airflow.example/x")
    assert "hunter2" not in raised.value.detail
    assert "hunter2" not in "".join(proxy_warnings())


async def test_a_proxy_that_is_away_is_named(given: pytest.MonkeyPatch) -> None:
    given.setenv("HTTP_PROXY", "http://u:hunter2@127.0.0.1:1")
    async with open_http() as http:
        with pytest.raises(
            Unreachable, match=r"^cannot connect to a\.example through the proxy that HTTP_PROXY"
        ) as raised:
            await http.request("GET", "http://a.example/x")
    assert "hunter2" not in raised.value.detail


async def test_an_entry_of_no_proxy_is_obeyed(given: pytest.MonkeyPatch) -> None:
    given.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    given.setenv("NO_PROXY", "fd00::/8,.invalid")
    async with open_http() as http:
        with pytest.raises(Unreachable, match=r"^cannot connect to airflow\.invalid"):
            await http.request("GET", "http://airflow.invalid/x")


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"])
def test_a_path_of_tls_that_cannot_be_used_is_named(name: str, given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "no" / "such.pem"
    given.setenv(name, str(path))
    with pytest.raises(UsageError, match=f"^{name}: {path} "):
        open_http()


def test_a_file_that_holds_no_certificate_is_named(given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    given.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(
        UsageError, match=r"^SSL_CERT_FILE: .*ca.pem cannot be used \(it holds no certificates in PEM\)"
    ):
        open_http()
