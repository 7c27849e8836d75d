"""What leaves over HTTP is bounded, and what comes back, or does not, is named for what it means."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app.kit.access import Access
from app.kit.errors import Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.kit.http import MAX_ANSWER, Answer, Http, open_http
from tests.fakes.authority import Authority

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[int]:
    """A real socket on loopback; its port."""
    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


@asynccontextmanager
async def tls_server(handle: Handler, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The same with a certificate."""
    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def says(raw: bytes) -> Handler:
    """Read a request's head, answer with these bytes, close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    return handle


def answers(status: int = 200, **kwargs: object) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(status, **kwargs))  # type: ignore[arg-type]


def raises(error: Exception) -> httpx.MockTransport:
    def handle(_: httpx.Request) -> httpx.Response:
        raise error

    return httpx.MockTransport(handle)


FAILURES = [
    pytest.param(httpx.ConnectError("[Errno 111] refused"), Unreachable, Unreachable, "connect", id="refused"),
    pytest.param(httpx.ConnectError("[Errno -2] Name unknown"), Unreachable, Unreachable, "connect", id="dns"),
    pytest.param(httpx.ConnectTimeout(""), Unreachable, Unreachable, "connect_timeout", id="connect timeout"),
    pytest.param(httpx.PoolTimeout(""), Unreachable, Unreachable, "pool_timeout", id="no free connection"),
    pytest.param(httpx.ProxyError("403"), Unreachable, Unreachable, "proxy", id="the proxy refuses"),
    pytest.param(httpx.UnsupportedProtocol(""), Unreachable, Unreachable, "bad_url", id="not http"),
    pytest.param(httpx.ReadTimeout(""), Unreachable, Ambiguous, "timeout", id="read timeout"),
    pytest.param(httpx.WriteTimeout(""), Unreachable, Ambiguous, "timeout", id="write timeout"),
    pytest.param(httpx.ReadError("reset"), Unreachable, Ambiguous, "disconnected", id="reset while reading"),
    pytest.param(httpx.WriteError("reset"), Unreachable, Ambiguous, "disconnected", id="reset while writing"),
    pytest.param(httpx.CloseError("reset"), Unreachable, Ambiguous, "disconnected", id="reset while closing"),
    pytest.param(httpx.RemoteProtocolError("gone"), Unreachable, Ambiguous, "disconnected", id="no whole answer"),
    pytest.param(httpx.LocalProtocolError("odd"), Unreachable, Ambiguous, "disconnected", id="our own protocol error"),
    pytest.param(httpx.DecodingError("gzip"), Unreachable, Ambiguous, "disconnected", id="cannot be decoded"),
]


@pytest.mark.parametrize(("error", "on_read", "on_write", "code"), FAILURES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"])
async def test_a_failure_of_the_transport_tells_whether_a_write_may_have_happened(
    method: str, error: Exception, on_read: type[TargetError], on_write: type[TargetError], code: str
) -> None:
    async with open_http(transport=raises(error)) as http:
        with pytest.raises(TargetError) as raised:
            await http.request(method, "http://airflow.test/x")
    assert type(raised.value) is (on_read if method in {"GET", "HEAD"} else on_write)
    assert raised.value.code == code
    assert "airflow.test" in raised.value.detail


@pytest.mark.parametrize("error", [p.values[0] for p in FAILURES], ids=[str(p.id) for p in FAILURES])
async def test_no_failure_repeats_the_query_the_user_or_the_headers(error: Exception) -> None:
    async with open_http(transport=raises(error)) as http:
        with pytest.raises(TargetError) as raised:
            await http.request(
                "POST", "http://user:s3cret-a@airflow.test/s3cret-b?key=s3cret-c", headers={"X-Key": "s3cret-d"}
            )
    assert "s3cret" not in f"{raised.value!s}{raised.value!r}"
    assert raised.value.__suppress_context__, "the library's error would carry the request into a printed traceback"
    assert raised.value.__cause__ is None


async def test_a_closed_port_on_a_real_socket_is_unreachable_for_a_write_too() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with open_http() as http:
        with pytest.raises(Unreachable) as raised:
            await http.request("POST", f"http://127.0.0.1:{port}/x", json={})
    assert raised.value.code == "connect"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="closed without a byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", id="closed inside the body"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="not HTTP at all"),
    ],
)
async def test_a_broken_answer_on_a_real_socket_is_ambiguous_for_a_write_only(raw: bytes) -> None:
    async with server(says(raw)) as port, open_http() as http:
        with pytest.raises(Ambiguous):
            await http.request("POST", f"http://127.0.0.1:{port}/x", json={})
        with pytest.raises(Unreachable):
            await http.request("GET", f"http://127.0.0.1:{port}/x")


async def test_silence_on_a_real_socket_ends_at_the_read_timeout() -> None:
    async with server(says(b"HTTP/1.1 200 OK\r\n")) as port, open_http(read=0.05) as http:
        with pytest.raises(Ambiguous):
            await http.request("POST", f"http://127.0.0.1:{port}/x", json={})


async def test_an_answer_that_never_ends_is_cut_at_the_longest_time_of_a_request() -> None:
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
    async with open_http(transport=transport) as http:
        http.longest = 0.02
        with pytest.raises(Ambiguous) as raised:
            await http.request("POST", "http://airflow.test/x")
    assert raised.value.code == "timeout"


def test_the_longest_time_of_a_request_follows_from_its_timeouts() -> None:
    assert open_http(connect=1.0, read=5.0, transport=answers()).longest == 8.0


@pytest.mark.parametrize(
    ("method", "expected"), [pytest.param("GET", Refused, id="read"), pytest.param("POST", Ambiguous, id="write")]
)
async def test_a_huge_answer_is_not_read_to_its_end(method: str, expected: type[TargetError]) -> None:
    sent = 0

    class Huge(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(1000):
                sent += 64 * 1024
                yield b"x" * 64 * 1024

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Huge()))
    async with open_http(transport=transport) as http:
        with pytest.raises(expected) as raised:
            await http.request(method, "http://airflow.test/x")
    assert raised.value.code == "answer_too_large"
    assert sent <= MAX_ANSWER + 2 * 64 * 1024


async def test_an_answer_of_exactly_the_cap_is_read() -> None:
    async with open_http(transport=answers(text="x" * MAX_ANSWER)) as http:
        assert len((await http.request("GET", "http://airflow.test/x")).body) == MAX_ANSWER


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_redirect_is_an_answer_and_is_not_followed(method: str, status: int) -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(status, headers={"location": "http://elsewhere.test/"})

    async with open_http(transport=httpx.MockTransport(handle)) as http:
        answer = await http.request(method, "http://airflow.test/x", headers={"Authorization": "Bearer t"})
    assert answer.status == status
    assert asked == ["http://airflow.test/x"]


BODIES = [
    pytest.param(b'{"a": [1]}', "application/json", {"a": [1]}, id="JSON"),
    pytest.param(b'{"a": 1}', "application/problem+json; charset=utf-8", {"a": 1}, id="problem+json"),
    pytest.param(b"null", "application/json", None, id="JSON null"),
    pytest.param(b"<html>", "text/html", "<html>", id="HTML"),
    pytest.param(b'{"a": 1}', "text/plain", '{"a": 1}', id="JSON that says it is text"),
    pytest.param(b"{nope", "application/json", "{nope", id="JSON that is none"),
    pytest.param(b"[" * 50_000, "application/json", "[" * 50_000, id="nested too deeply"),
    pytest.param(b"\xff\xfe", "application/json", "\ufffd\ufffd", id="not UTF-8"),
    pytest.param(b"", "application/json", "", id="empty"),
]


@pytest.mark.parametrize(("raw", "kind", "body"), BODIES)
async def test_a_body_is_json_only_where_it_says_so_and_is(raw: bytes, kind: str, body: object) -> None:
    async with open_http(transport=answers(content=raw, headers={"Content-Type": kind})) as http:
        answer = await http.request("GET", "http://airflow.test/x")
    assert answer.body == body
    assert answer.headers["content-type"] == kind
    assert answer.seconds >= 0


@pytest.mark.parametrize("status", [200, 204, 400, 404, 418, 500, 503])
async def test_every_status_is_an_answer(status: int) -> None:
    async with open_http(transport=answers(status)) as http:
        assert (await http.request("POST", "http://airflow.test/x")).status == status


async def test_a_body_is_sent_as_json_and_parameters_as_a_query() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    async with open_http(transport=httpx.MockTransport(handle)) as http:
        await http.request("POST", "http://airflow.test/x", json={"a": "é"}, params={"limit": 2, "q": "a b"})
    (request,) = seen
    assert request.content == b'{"a":"\\u00e9"}'
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert dict(request.url.params) == {"limit": "2", "q": "a b"}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param({"a": float("nan")}, {}, id="NaN"),
        pytest.param({"a": object()}, {}, id="an object"),
        pytest.param({}, {"Authorization": "Bearer s3cret-é"}, id="a header that is not ASCII"),
    ],
)
async def test_what_cannot_be_written_is_rejected_without_repeating_it(body: object, headers: dict[str, str]) -> None:
    async with open_http(transport=answers()) as http:
        with pytest.raises(Rejected) as raised:
            await http.request("POST", "http://airflow.test/x", json=body, headers=headers)
    assert raised.value.code == "unsendable"
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://[::1", "http://host:port/x", "ftp://airflow.test/x", "airflow.test/x"])
async def test_a_bad_address_is_unreachable(url: str) -> None:
    async with open_http() as http:
        with pytest.raises(Unreachable) as raised:
            await http.request("POST", url)
    assert raised.value.code == "bad_url"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://airflow.test/x", "airflow.test"),
        ("http://airflow.test:8080/s3cret", "airflow.test:8080"),
        ("http://user:s3cret@airflow.test:8080/x", "airflow.test:8080"),
        ("http://[2001:db8::7]:8080/x", "[2001:db8::7]:8080"),
        ("http://[2001:db8::7]/x", "[2001:db8::7]"),
    ],
)
async def test_an_error_names_host_and_port_as_a_url_has_them_and_nothing_else_of_it(url: str, target: str) -> None:
    async with open_http(transport=raises(httpx.ConnectError("refused"))) as http:
        with pytest.raises(Unreachable) as raised:
            await http.request("GET", url)
    assert raised.value.detail == f"cannot connect to {target}: refused"


@asynccontextmanager
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
    """A proxy that the environment names for everything; the request lines that it was asked."""
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(OK)
        await writer.drain()
        writer.close()

    async with server(handle) as port:
        for name in ["NO_PROXY", "no_proxy"]:
            monkeypatch.delenv(name, raising=False)
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]:
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        yield asked


async def test_loopback_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy(monkeypatch) as asked, server(says(OK)) as port, open_http() as http:
        for host in ["127.0.0.1", "localhost"]:
            assert (await http.request("GET", f"http://{host}:{port}/x")).body == "ok"
        for host in ["127.8.8.8", "[::1]", "gateway.localhost"]:
            # Where nobody listens the request fails, and even then the proxy is not asked.
            with pytest.raises(Unreachable):
                await http.request("GET", f"http://{host}:1/x")
    assert asked == []


async def test_anything_else_goes_through_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy(monkeypatch) as asked, open_http() as http:
        await http.request("GET", "http://airflow.example/x")
    assert asked == [b"GET http://airflow.example/x HTTP/1.1"]


async def test_a_certificate_that_is_not_trusted_is_unreachable() -> None:
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    async with open_http(verify=ssl.create_default_context(), transport=raises(error)) as http:
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await http.request("POST", "https://airflow.test/x")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param(" 0 ", 0.0, id="zero with spaces"),
        pytest.param("86400", 3600.0, id="a day is cut to an hour"),
        pytest.param("Mon, 23 Nov 2026 12:01:30 GMT", 90.0, id="a date"),
        pytest.param("Mon, 23 Nov 2026 11:00:00 GMT", 0.0, id="a date gone by"),
        pytest.param("Mon, 23 Nov 2099 11:00:00 GMT", 3600.0, id="a date far off"),
        pytest.param("Mon, 23 Nov 2026 12:00:10 -0000", 10.0, id="a date without a zone"),
        pytest.param("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None, id="a year that is none"),
        pytest.param("-3", None, id="negative"),
        pytest.param("1.5", None, id="a fraction"),
        pytest.param("inf", None, id="infinite"),
        pytest.param("soon", None, id="a word"),
        pytest.param("", None, id="empty"),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert Answer(503, "", {"retry-after": value}, 0.1).retry_after(NOW) == seconds


def test_no_retry_after_is_none() -> None:
    assert Answer(503, "", {}, 0.1).retry_after(NOW) is None


async def test_a_ca_file_is_what_counts_for_the_certificate_and_a_changed_one_counts_at_once(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    ours.certify("server", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ours.path("server.pem"), ours.path("server.key"))
    file = tmp_path / "ca.pem"
    bundles = [f"# Főtanúsítvány\n{Path(authority.path('ca.pem')).read_text()}" for authority in (ours, theirs, ours)]  # noqa: ASYNC240
    async with tls_server(says(OK), context) as port, open_http() as http:
        url = f"https://127.0.0.1:{port}/"
        private = http.using(Access(ca_file=file))

        async def tried(which: Http) -> str:
            try:
                return str((await which.request("GET", url)).body)
            except TargetError as error:
                return error.code

        assert (await tried(http), await tried(private)) == ("connect", "ca_file")
        found = []
        for bundle in bundles:
            file.write_text(bundle)
            found.append(await tried(private))
        assert found == ["ok", "connect", "ok"]
        assert await tried(http) == "connect", "who has no ca_file trusts the usual CAs alone"


BROKEN = [
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok", id="shorter than it says"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", id="no gzip"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="no chunk"),
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER + 1), id="too large"),
]


@pytest.mark.parametrize("raw", BROKEN)
async def test_a_status_is_an_answer_when_nobody_needs_the_body(raw: bytes) -> None:
    async with server(says(raw)) as port, open_http() as http:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(Ambiguous):
            await http.request("POST", url, json={})
        answer = await http.request("POST", url, json={}, body_needed=False)
    assert (answer.status, answer.body) == (200, "")
