"""The HTTP server below the application, from raw sockets: each request has one meaning, and nothing hidden in one is done.

A question follows each case on the same connection. Its answer comes only when both sides agree where the case ended.
"""

import asyncio
import json
import re
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from demo.processes import stop
from tests.integration.processes import WEBHOOK, Process, alert
from tests.servers import TestServers
from tests.sizes import seed, size

pytestmark = pytest.mark.slow

PATIENCE = 30.0  # seconds; a busy machine
NEXT = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")

Pieces = list[bytes]
Case = Callable[[bytes, bytes], Pieces]  # of a body with one alert, and of a whole request with another: as it is sent


@pytest.fixture(scope="module")
def gateway(servers: TestServers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One gateway for all cases: it must be well after each."""
    urls = {"database_url": servers.fresh_database(template), "redis_url": servers.valkey.url}
    process = Process(tmp_path_factory.mktemp("listener"), urls)
    process.begin()
    try:
        asyncio.run(process.ready())
        yield process
    finally:
        assert process.server is not None
        asyncio.run(stop([process.server]))


def body_of(model: str) -> bytes:
    return json.dumps({"version": "4", "alerts": [alert(model)]}).encode()


def head(*fields: str, line: str = f"POST {WEBHOOK} HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: localhost", *fields, "", ""]).encode()


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


def request(body: bytes, *fields: str, line: str = f"POST {WEBHOOK} HTTP/1.1") -> bytes:
    return head(*fields, length(body), line=line) + body


def chunks(body: bytes, size: int = 100, extension: str = "", trailers: str = "") -> bytes:
    cut = [body[at : at + size] for at in range(0, len(body), size)]
    parts = [b"%x%b\r\n%b\r\n" % (len(part), extension.encode(), part) for part in cut]
    return b"".join(parts) + b"0\r\n" + trailers.encode() + b"\r\n"


def talk(gateway: Process, pieces: Pieces, *, half_close: bool = False) -> tuple[list[int], bytes]:
    """Send the pieces in packets of their own, and read to the end. The statuses of the answers, and every byte."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(0.05)  # So that the pieces are read one by one; right is right at any speed.
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # It has answered already.
        got = b""
        while part := connection.recv(65536):
            got += part
    return [int(found) for found in STATUS.findall(got)], got


def counted(gateway: Process, model: str) -> int:
    with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE)) as connection:
        connection.request("GET", f"/api/v1/alerts?label=model%3D{model}")
        return sum(found["count"] for found in json.load(connection.getresponse())["items"])


def chunked(*fields: str, line: str = f"POST {WEBHOOK} HTTP/1.1") -> bytes:
    return head("Transfer-Encoding: chunked", *fields, line=line)


def h2c(*fields: str, connection: str = "Upgrade, HTTP2-Settings", upgrade: str = "h2c") -> Case:
    settings = "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"
    return lambda body, _: [request(body, f"Connection: {connection}", f"Upgrade: {upgrade}", settings, *fields)]


def upgraded(body: bytes, *more: str) -> bytes:
    """The head of a request for h2c."""
    return head("Connection: Upgrade", "Upgrade: h2c", *more, length(body))


def holding(body: bytes, hidden: bytes) -> bytes:
    """A body with a whole request inside."""
    return body[:-1] + b',"x":\r\n\r\n"' + hidden.replace(b'"', b"'").replace(b"\r\n", b" ") + b'"}'


TAKEN: dict[str, Case] = {
    "a length": lambda body, _: [request(body)],
    "head and body in two packets": lambda body, _: [head(length(body)), body],
    "an empty line before it": lambda body, _: [b"\r\n\r\n" + request(body)],
    "chunked": lambda body, _: [chunked() + chunks(body)],
    "chunks of a byte": lambda body, _: [head("Transfer-Encoding: Chunked") + chunks(body, 1)],
    "chunk extensions": lambda body, _: [chunked() + chunks(body, extension=';a=b;c="d;e"')],
    "leading zeros in a chunk's size": lambda body, _: [chunked() + b"000%x\r\n%b\r\n00\r\n\r\n" % (len(body), body)],
    "trailers": lambda body, _: [
        chunked("Trailer: Authorization")
        + chunks(body, trailers="Authorization: Bearer x\r\nHost: evil.example\r\nSec-Fetch-Site: cross-site\r\n")
    ],
    "a length with blanks around it": lambda body, _: [head(f"Content-Length: \t {len(body)} \t") + body],
    "absolute-form": lambda body, _: [request(body, line=f"POST http://localhost:80{WEBHOOK} HTTP/1.1")],
    "absolute-form in capitals": lambda body, _: [request(body, line=f"POST HTTP://LOCALHOST{WEBHOOK} HTTP/1.1")],
    "a query": lambda body, _: [request(body, line=f"POST {WEBHOOK}?a=b HTTP/1.1")],
    "a URL in a query": lambda body, _: [request(body, line=f"POST {WEBHOOK}?a=http://evil.example/ HTTP/1.1")],
    "a body that holds a request": lambda body, hidden: [request(holding(body, hidden))],
    "a head of nearly 64 KiB": lambda body, _: [request(body, *(f"X-{n}: {'x' * 1000}" for n in range(62)))],
    "a head of 100 fields": lambda body, _: [request(body, *(f"X-{n}: x" for n in range(98)))],
    "h2c, as every HttpClient of the JDK": h2c(),
    "h2c in capitals": h2c(connection="UPGRADE, HTTP2-Settings", upgrade="H2C"),
    "h2c and keep-alive": h2c(connection="keep-alive, Upgrade, HTTP2-Settings"),
    "h2c, two fields Connection": h2c("Connection: keep-alive"),
    "h2c without Connection": h2c(connection="keep-alive"),
    "several protocols": h2c(upgrade="h2c, websocket, foo/2"),
    "two fields Upgrade": h2c("Upgrade: websocket"),
    "TLS/1.0": h2c(upgrade="TLS/1.0, HTTP/1.1"),
    "websocket": h2c("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", upgrade="websocket"),
    "h2c, the body in a second packet": lambda body, _: [upgraded(body), body],
    "h2c, cut within the head": lambda body, _: [upgraded(body)[:60], upgraded(body)[60:] + body],
    "h2c, cut within the body": lambda body, _: [upgraded(body) + body[:9], body[9:]],
    "h2c, chunked": lambda body, _: [chunked("Connection: Upgrade", "Upgrade: h2c"), chunks(body)],
}


@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN.keys())
def test_a_request_is_read_to_its_end_and_no_further(gateway: Process, case: Case) -> None:
    model, hidden = f"m-{uuid.uuid4()}", f"hidden-{uuid.uuid4()}"
    pieces = case(body_of(model), request(body_of(hidden)))
    statuses, got = talk(gateway, [*pieces[:-1], pieces[-1] + NEXT])
    assert statuses == [202, 200], got
    assert (counted(gateway, model), counted(gateway, hidden)) == (1, 0)


@pytest.mark.parametrize("fields", [(), ("Connection: Upgrade", "Upgrade: h2c")], ids=["plain", "h2c"])
def test_a_second_packet_that_is_a_request_by_itself_is_a_body(gateway: Process, fields: tuple[str, ...]) -> None:
    """Behind a proxy that shares connections this would be somebody else's request."""
    hidden = f"hidden-{uuid.uuid4()}"
    inner = request(body_of(hidden))
    statuses, got = talk(gateway, [head(*fields, length(inner)), inner + NEXT])
    assert statuses == [400, 200], got
    assert counted(gateway, hidden) == 0


def lengths(*values: str) -> Case:
    return lambda body, _: [head(*(f"Content-Length: {value}" for value in values)) + body]


def codings(*values: str) -> Case:
    return lambda body, _: [head(*(f"Transfer-Encoding: {value}" for value in values)) + chunks(body)]


def aimed(target: str) -> Case:
    return lambda body, _: [request(body, line=f"POST {target} HTTP/1.1")]


def sized(size: str, end: str = "\r\n") -> Case:
    """A chunk whose size is written so."""
    return lambda body, _: [chunked() + f"{size}{end}".encode() + body + f"{end}0{end}{end}".encode()]


REFUSED: dict[str, tuple[int, Case]] = {
    "a length and chunks": (400, lambda b, _: [head(length(b), "Transfer-Encoding: chunked") + chunks(b)]),
    "chunks and a length": (400, lambda b, _: [head("Transfer-Encoding: chunked", "Content-Length: 4") + chunks(b)]),
    "chunks, a length and h2c": (400, lambda b, _: [upgraded(b, "Transfer-Encoding: chunked") + chunks(b)]),
    "two lengths": (400, lengths("9", "400")),
    "one length twice": (400, lengths("9", "9")),
    "a list of lengths": (400, lengths("9, 9")),
    **{f"the length {value!r}": (400, lengths(value)) for value in ("+9", "-9", "9 9", "0x9", "9.0", "", "9" * 30)},
    "a blank before the colon": (400, lambda body, _: [head(f"Content-Length : {len(body)}") + body]),
    "a blank in a name": (400, lambda body, _: [request(body, "Content Length: 0")]),
    "a folded field": (400, lambda body, _: [request(body, "X: a\r\n b")]),
    "a folded length": (400, lambda body, _: [head(f"Content-Length:\r\n {len(body)}") + body]),
    "a folded first line": (400, lambda body, _: [request(body, line=f"POST {WEBHOOK} HTTP/1.1\r\n X: y")]),
    "only line feeds": (400, lambda body, _: [request(body).replace(b"\r\n", b"\n")]),
    "a line feed alone": (400, lambda body, _: [request(body, "X: a\nY: b")]),
    "a carriage return alone": (400, lambda body, _: [request(body, "X: a\rY: b")]),
    **{
        f"NUL in {where}": (400, case)
        for where, case in {
            "a value": lambda body, _: [request(body, "X: a\0b")],
            "a name": lambda body, _: [request(body, "X\0Y: a")],
            "the target": lambda body, _: [request(body, line=f"POST {WEBHOOK}\0 HTTP/1.1")],
        }.items()
    },
    "no Host": (400, lambda body, _: [request(body).replace(b"Host: localhost\r\n", b"")]),
    "two Hosts": (400, lambda body, _: [request(body, "Host: evil.example")]),
    **{
        f"the target {target!r}": (400, aimed(target))
        for target in (
            "http://localhost",
            "http://localhost?a=b",
            "http:///livez",
            f"http://localhost:99999{WEBHOOK}",
            f"http://[::1{WEBHOOK}",
            f"http://evil.example{WEBHOOK}",
            f"http://localhost:81{WEBHOOK}",
        )
    },
    "no method": (400, lambda body, _: [request(body, line=f"{WEBHOOK} HTTP/1.1")]),
    "an unknown method": (400, lambda body, _: [request(body, line=f"SMUGGLE {WEBHOOK} HTTP/1.1")]),
    "TLS": (400, lambda body, _: [b"\x16\x03\x01\x02\x00\x01\x00"]),
    "HTTP/2": (400, lambda body, _: [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
    "the version 2.0": (505, lambda body, _: [request(body, line=f"POST {WEBHOOK} HTTP/2.0")]),
    "HTTP/0.9": (505, lambda body, _: [b"GET /livez\r\n\r\n"]),
    "CONNECT": (501, lambda body, _: [request(body, line="CONNECT localhost:80 HTTP/1.1")]),
    **{
        f"the coding {value!r}": (501, codings(value))
        for value in ("gzip, chunked", "identity", "xchunked", ", chunked")
    },
    "gzip, then chunked": (501, codings("gzip", "chunked")),
    "chunked, then gzip": (400, codings("chunked", "gzip")),
    "chunked twice": (400, codings("chunked", "chunked")),
    "chunks in HTTP/1.0": (400, lambda body, _: [chunked(line=f"POST {WEBHOOK} HTTP/1.0") + chunks(body)]),
    **{f"the chunk size {size!r}": (400, sized(size)) for size in ("+9", "-9", "0x9", "9 ", " 9", "g", "", "F" * 17)},
    "a chunk that is longer": (400, sized("9")),
    "chunks with line feeds": (400, sized("1", "\n")),
    "a length as a trailer": (400, lambda body, _: [chunked() + chunks(body, trailers="Content-Length: 9\r\n")]),
    "a target of 9,000 bytes": (414, lambda body, _: [request(body, line=f"POST {WEBHOOK}?{'a' * 9000} HTTP/1.1")]),
    "a target without end": (414, lambda body, _: [b"GET /" + b"a" * 2_000_000]),
    "101 fields": (431, lambda body, _: [request(body, *(f"X-{n}: x" for n in range(99)))]),
    "101 fields and h2c": (431, lambda b, _: [request(b, "Upgrade: h2c", *["X: x"] * 97, "Connection: Upgrade")]),
    "a head over 64 KiB": (431, lambda body, _: [request(body, *(f"X-{n}: {'x' * 1000}" for n in range(68)))]),
    "a field without end": (431, lambda body, _: [head()[:-2] + b"X: " + b"a" * 2_000_000]),
    "fields without end": (431, lambda body, _: [head()[:-2] + b"X: y\r\n" * 500_000]),
    "trailers without end": (400, lambda body, _: [chunked() + chunks(body)[:-2] + b"X: y\r\n" * 500_000]),
    "an extension without end": (400, lambda body, _: [chunked() + b"9;" + b"a" * 2_000_000]),
}


@pytest.mark.parametrize(("status", "case"), REFUSED.values(), ids=REFUSED.keys())
def test_what_could_be_read_in_two_ways_or_has_no_end_is_refused(gateway: Process, status: int, case: Case) -> None:
    model, hidden = f"m-{uuid.uuid4()}", f"hidden-{uuid.uuid4()}"
    pieces = case(body_of(model), b"")
    statuses, got = talk(gateway, [*pieces[:-1], pieces[-1] + request(body_of(hidden)) + NEXT])
    assert statuses == [status], got
    head, _, shown = got.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    problem = json.loads(shown)
    assert (b"application/problem+json" in head, problem["status"]) == (True, status)
    assert (counted(gateway, model), counted(gateway, hidden)) == (0, 0)


OLD = f"POST {WEBHOOK} HTTP/1.0"

#: The pieces, whether the sender then closes its direction, the statuses, and how often each of two alerts is counted.
TOGETHER: dict[str, tuple[Callable[[bytes, bytes], Pieces], bool, list[int], tuple[int, int]]] = {
    "half-closed": (lambda a, _: [request(a)], True, [202], (1, 0)),
    "half-closed, chunked": (lambda a, _: [chunked() + chunks(a)], True, [202], (1, 0)),
    "half-closed, h2c": (lambda a, _: [upgraded(a), a], True, [202], (1, 0)),
    "half-closed, two": (lambda a, b: [request(a) + request(b)], True, [202, 202], (1, 1)),
    "half-closed behind half a head": (lambda a, b: [request(a) + request(b)[:30]], True, [202], (1, 0)),
    "half-closed in the head": (lambda a, _: [request(a)[:40]], True, [], (0, 0)),
    "half-closed in the body": (lambda a, _: [request(a)[:-9]], True, [], (0, 0)),
    "half-closed in a chunk": (lambda a, _: [chunked() + chunks(a)[:40]], True, [], (0, 0)),
    "half-closed in the largest chunk": (lambda a, _: [chunked() + b"F" * 16 + b"\r\n" + a], True, [], (0, 0)),
    "two at once": (lambda a, b: [request(a) + request(b) + NEXT], False, [202, 202, 200], (1, 1)),
    "h2c, two at once": (lambda a, b: [upgraded(a) + a + upgraded(b) + b + NEXT], False, [202, 202, 200], (1, 1)),
    "good, then bad": (lambda a, b: [request(a) + b"\x16\x03" + request(b)], False, [202, 400], (1, 0)),
    "good, then a bad chunk": (
        lambda a, b: [request(a) + chunked() + b"-9\r\n" + request(b)],
        False,
        [202, 400],
        (1, 0),
    ),
    "good, then a target that is no path": (
        lambda a, b: [request(a) + request(b, line="POST http://localhost HTTP/1.1")],
        False,
        [202, 400],
        (1, 0),
    ),
    "half-closed in the second body": (lambda a, b: [request(a) + request(b)[:-9]], True, [202], (1, 0)),
    "half-closed behind a bad chunk": (lambda a, _: [request(a) + chunked() + b"-9\r\n"], True, [202, 400], (1, 0)),
    "close, and then another": (lambda a, b: [request(a, "Connection: close") + request(b)], False, [202], (1, 0)),
    "h2c, close, and another": (lambda a, b: [upgraded(a, "Connection: close") + a + request(b)], False, [202], (1, 0)),
    "close, and a body that is too large": (
        lambda a, _: [head("Connection: close", "Content-Length: 9999999") + b" " * 3_000_000],
        False,
        [413],
        (0, 0),
    ),
    "HTTP/1.0": (lambda a, _: [request(a, line=OLD)], False, [202], (1, 0)),
    "HTTP/1.0 without a Host": (lambda a, _: [f"{OLD}\r\n{length(a)}\r\n\r\n".encode() + a], False, [202], (1, 0)),
    "HTTP/1.0, two": (lambda a, b: [request(a, "Connection: keep-alive", line=OLD) + request(b)], False, [202], (1, 0)),
    "HTTP/1.0 expects": (lambda a, _: [request(a, "Expect: 100-continue", line=OLD)], False, [202], (1, 0)),
    "expects": (lambda a, _: [head("Expect: 100-continue", length(a)), a + NEXT], False, [100, 202, 200], (1, 0)),
    "h2c expects": (lambda a, _: [upgraded(a, "Expect: 100-continue"), a + NEXT], False, [100, 202, 200], (1, 0)),
    # It may leave the body out, or not: what follows the answer can be read in two ways.
    "expects, refused, and another": (
        lambda a, _: [head("Expect: 100-continue", "Content-Length: 99999999"), request(a)],
        False,
        [413],
        (0, 0),
    ),
    "expects, nothing is there, and another": (
        lambda a, _: [head("Expect: 100-continue", length(a), line="POST /nowhere HTTP/1.1"), request(a)],
        False,
        [404],
        (0, 0),
    ),
    "expects, too large": (
        lambda a, _: [head("Expect: 100-continue", "Content-Length: 99999999", line=OLD)],
        False,
        [413],
        (0, 0),
    ),
}


@pytest.mark.parametrize(("case", "half_close", "expected", "counts"), TOGETHER.values(), ids=TOGETHER.keys())
def test_every_request_of_a_connection_gets_its_own_answer(
    gateway: Process,
    case: Callable[[bytes, bytes], Pieces],
    half_close: bool,
    expected: list[int],
    counts: tuple[int, int],
) -> None:
    first, second = f"a-{uuid.uuid4()}", f"b-{uuid.uuid4()}"
    statuses, got = talk(gateway, case(body_of(first), body_of(second)), half_close=half_close)
    assert statuses == expected, got
    assert (counted(gateway, first), counted(gateway, second)) == counts


def test_a_sender_that_goes_away_leaves_no_traceback(gateway: Process) -> None:
    """Its first request is under way, and its next one waits behind."""
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request(body_of(f"m-{uuid.uuid4()}")) * 3)
    assert talk(gateway, [NEXT])[0] == [200]
    log = (gateway.folder / f"serve-{gateway.port}.log").read_text()
    assert "Traceback" not in log, log[-3000:]


def test_requests_that_wait_on_one_connection_are_bounded(gateway: Process) -> None:
    statuses, _ = talk(gateway, [NEXT.replace(b"Connection: close\r\n", b"") * 500])
    assert statuses[-1] == 503
    assert set(statuses[:-1]) == {200}
    assert len(statuses) < 150


SPLIT: dict[str, Callable[[bytes], bytes]] = {
    "a length": request,
    "chunks": lambda body: chunked() + chunks(body, 50, ";a=b", "X: y\r\n"),
    "h2c": lambda body: upgraded(body) + body,
}


@pytest.mark.parametrize("sent", SPLIT.values(), ids=SPLIT.keys())
async def test_a_request_may_be_split_at_every_byte(gateway: Process, sent: Callable[[bytes], bytes]) -> None:
    model = f"m-{uuid.uuid4()}"
    whole = sent(body_of(model)) + NEXT
    step = size(3, 1)
    places = range(1 + seed() % step, len(whole) - len(NEXT) + 1, step)
    at_once = asyncio.Semaphore(100)

    async def split(*parts: bytes) -> list[int]:
        async with at_once, asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0.02)  # As in `talk`.
            got = await reader.read()
            writer.close()
            return [int(found) for found in STATUS.findall(got)]

    answers = await asyncio.gather(
        *(split(whole[:at], whole[at:]) for at in places), split(*(bytes([byte]) for byte in whole))
    )
    assert [at for at, statuses in zip([*places, 0], answers, strict=True) if statuses != [202, 200]] == []
    assert counted(gateway, model) == len(answers)
