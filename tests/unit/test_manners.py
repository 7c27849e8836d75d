"""What holds for every path of the application, found from the application itself: Host, HEAD, OPTIONS, 405."""

import re
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bootstrap.settings import read_settings
from app.web.main import create_app
from app.web.manners import is_host
from tests.integration.api import problem
from tests.integration.test_closed_routes import routes_of

APP: FastAPI = create_app(read_settings(), None)  # type: ignore[arg-type]  # Its lifespan is not entered.
ROUTES = sorted(set(routes_of(APP.routes)))
#: A path of each route. What it takes: the methods of every route whose pattern it fits, such as /metadata/{run}.
METHODS: dict[str, set[str]] = {re.sub(r"{\w+(:\w+)?}", "x", path): set() for _, path in ROUTES}
for _path, _taken in METHODS.items():
    for _method, _pattern in ROUTES:
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", re.sub(r"{\w+:path}", ".+", _pattern)), _path):
            _taken.add(_method)
#: Whether the policy has the source decides there: tests/integration/test_every_route.py.
METHODS.pop("/api/v1/webhooks/x")
every_path = pytest.mark.parametrize("path", sorted(METHODS))


def client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(APP, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def expected(path: str) -> set[str]:
    taken = METHODS[path]
    return taken | {"OPTIONS"} | ({"HEAD"} if "GET" in taken else set())


BAD_HOSTS = [
    b"",
    b" ",
    b"[::1",
    b"]",
    b"[]",
    b"::1",
    b"[::1]x",
    b"[::g]",
    b"[127.0.0.1]",
    b"a b",
    b"a\tb",
    b"a/b",
    b"a?b",
    b"a#b",
    b"user@a",
    b"a,b c",
    b"a:b",
    b"a:1:2",
    b"a:99999",
    b"a:-1",
    b"a:" + "\u00b2".encode("latin-1"),
    b"%zz",
    b"<a>",
    b"a\\b",
    b"\xff",
    "b\u00fccher.example".encode(),
    b"a" * 5 + b"\x7f",
]


@every_path
async def test_a_host_that_cannot_be_read_is_400_on_every_path(path: str) -> None:
    """What one path answers to each bad Host, and what each path answers to one of them."""
    bad = BAD_HOSTS if path == "/livez" else [b"[::1"]
    async with client() as asking:
        for method in sorted(METHODS[path]):
            for host in bad:
                answer = await asking.request(method, path, headers={b"Host": host})
                assert "Host" in problem(answer, 400, "bad_request")["detail"], host


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8090",
        "LOCALHOST",
        "127.0.0.1:0",
        "[::1]",
        "[::1]:65535",
        "[fe80::1%25eth0]:1",
        "a_b.c.",
        "a:",
        "xn--bcher-kva.example",
        "a%20b",
    ],
)
def test_a_good_host_is_taken(host: str) -> None:
    assert is_host(host)


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(st.sampled_from("[]:%.@/?#1aG-_ \u00e9"), max_size=12))
def test_a_host_that_is_taken_can_be_taken_apart(host: str) -> None:
    if is_host(host):
        parts = urlsplit(f"//{host}")
        assert parts.hostname
        assert 0 <= (parts.port or 0) <= 65535


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [("1.1", [], 400), ("1.1", [b"a", b"a"], 400), ("1.0", [], 404), ("1.0", [b"a", b"b"], 400), ("2", [b"a"], 404)],
)
async def test_a_request_has_one_host(version: str, hosts: list[bytes], status: int) -> None:
    scope = {
        "type": "http",
        "http_version": version,
        "method": "GET",
        "path": "/nowhere",
        "query_string": b"",
        "headers": [(b"host", host) for host in hosts],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await APP(scope, receive, send)
    assert sent[0]["status"] == status


@every_path
async def test_options_names_the_methods_of_every_path_and_needs_no_token(path: str) -> None:
    async with client() as asking:
        answer = await asking.options(path)
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    assert set(answer.headers["allow"].split(", ")) == expected(path)
    assert not [name for name in answer.headers if name.startswith("access-control-")], "no other site may call"


@every_path
async def test_a_method_that_a_path_does_not_take_is_405_with_all_that_it_takes(path: str) -> None:
    async with client() as asking:
        answer = await asking.request("TRACE", path)
        head = await asking.head(path) if "GET" not in METHODS[path] else None
    problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == expected(path)
    if head is not None:
        assert (head.status_code, head.content, head.headers["allow"]) == (405, b"", answer.headers["allow"])


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
async def test_an_unknown_path_is_404_for_every_method(method: str) -> None:
    async with client() as asking:
        answer = await asking.request(method, "/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
