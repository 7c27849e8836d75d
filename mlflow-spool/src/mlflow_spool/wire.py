"""HTTP/1.1 with the standard library alone: one request, and its whole answer within a time limit.

Our thread imports nothing (see `quiet`), so all that a request needs is loaded with this module. Connections stay open
for the next request.
"""

import encodings.idna
import http.client
import io
import os
import queue
import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from mlflow_spool.errors import NoAnswer, NotSent

LARGEST = 256_000_000  # bytes of an answer, headers included
SLOWEST = 100_000  # bytes a second: an answer that comes at least so fast is read beyond its time limit
HOPS = 5  # redirects that are followed
PIECE = 65_536  # bytes that are sent or read at once
IDLE = 8  # open connections that are kept for each server
#: What may stay in a URL as it is, as in the client of `requests`.
SAFE = "!#$%&'()*+,/:;=?@[]~"
_LOADED = (encodings.idna,)  # `getaddrinfo` would import it at the first lookup.

#: Adds headers to a request with this method, URL, headers and body.
Sign = Callable[[str, str, Mapping[str, str], "bytes | Path | None"], Mapping[str, str]]


@dataclass(frozen=True)
class Way:
    """How one server is reached, and what every request to it carries."""

    base: str  # http(s)://host[:port][/prefix], without a login
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: str = field(default="", repr=False)  # its URL, which may hold a login
    tls: ssl.SSLContext | None = None
    sign: Sign | None = field(default=None, repr=False)
    redirects: bool = True


@dataclass(frozen=True)
class Reply:
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    is_file: bool = False  # the content went into the file that the caller named


class _Bounded(io.RawIOBase):
    """The bytes of one answer: all of them in time, and not too many.

    By itself the timeout of a socket is the time between two pieces. An answer without an end would be read without end.
    """

    def __init__(self, connection: socket.socket, raw: io.RawIOBase, largest: int, slowest: float) -> None:
        self._connection = connection
        self._raw = raw
        self._end = time.monotonic() + (connection.gettimeout() or 0.0)
        self.room, self._slowest = largest, slowest
        self.is_body = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._connection.settimeout(left)
        size = self._raw.readinto(buffer)
        self.room -= size or 0
        if self.is_body:
            self._end += (size or 0) / self._slowest
        if self.room < 0:
            raise OSError("the answer is too long")
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """An answer that is read within the timeout of its socket, or a little later if it keeps coming."""

    largest: int = LARGEST
    slowest: float = SLOWEST

    def __init__(self, sock: socket.socket, *args: Any, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        whole: Any = self.fp
        self._bounded = _Bounded(sock, whole.detach(), self.largest, self.slowest)
        self.fp = io.BufferedReader(self._bounded)

    def begin(self) -> None:
        """See http.client: read the status and the headers."""
        super().begin()
        self._bounded.is_body = True

    def unlimit(self) -> None:
        """Let the answer be as long as it is: it goes into a file."""
        self._bounded.room = 2**62


def _found(host: str, port: int, timeout: float) -> list[Any]:
    """The addresses of a host. A lookup has no time limit of its own, so that another thread makes it."""
    try:
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except OSError:
        pass
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    try:
        threading.Thread(target=look, name="mlflow-spool-lookup", daemon=True).start()
    except RuntimeError:  # The process ends, or may have no more threads.
        look()
    try:
        answer = answers.get(timeout=max(timeout, 0.05))
    except queue.Empty:
        raise TimeoutError(f"the address of {host} was not found in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _dial(address: tuple[str, int], timeout: float, source: Any = None) -> socket.socket:  # noqa: ARG001 (http.client's)
    end, trouble = time.monotonic() + timeout, OSError(f"{address[0]} has no address")
    places = _found(*address, timeout)
    for number, (family, kind, protocol, _, place) in enumerate(places):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max((end - time.monotonic()) / (len(places) - number), 0.05))
            connection.connect(place)
        except OSError as error:
            connection.close()
            trouble = error
            continue
        connection.settimeout(max(end - time.monotonic(), 0.05))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise trouble


def _opened(way: Way, place: SplitResult, timeout: float) -> http.client.HTTPConnection:
    """A new connection for the host of a URL. Raises NotSent."""
    proxy = urlsplit(way.proxy if "://" in way.proxy or not way.proxy else f"http://{way.proxy}")
    target = proxy if way.proxy else place
    connection: http.client.HTTPConnection
    if place.scheme == "https":
        connection = http.client.HTTPSConnection(target.hostname or "", target.port, timeout=timeout, context=way.tls)
        if way.proxy:
            connection.set_tunnel(place.hostname or "", place.port or 443, _login(proxy))
    else:
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=timeout)
    connection.response_class = Response
    connection._create_connection = _dial  # type: ignore[attr-defined] # http.client's own hook.
    try:
        connection.connect()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise NotSent(f"{type(error).__name__}: {error}") from None
    return connection


def _login(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + b64encode(pair.encode()).decode()}


class Wire:
    """Sends requests. Any thread may use it; a child of a fork gets connections of its own."""

    def __init__(self) -> None:
        self._idle: dict[tuple[int, str], list[http.client.HTTPConnection]] = {}
        #: By their process: to end those of the parent would end its requests.
        self._under_way: set[tuple[int, http.client.HTTPConnection]] = set()

    def request(
        self,
        way: Way,
        method: str,
        path: str,
        timeout: float,
        body: bytes | Path | None = None,
        into: Path | None = None,
        **headers: str,
    ) -> Reply:
        """Send one request to `path` below the base, and never repeat it.

        timeout: seconds until the answer begins. body: bytes, or a file. into: a file for the content of a good answer.
        headers: with `_` for `-`. Raises NotSent, or NoAnswer when no answer comes in time.
        """
        out = {**way.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url, end = quote(way.base + path, safe=SAFE), time.monotonic() + max(timeout, 0.05)
        try:
            for _ in range(HOPS):
                reply = self._once(way, (method, url), end, body, out, into)
                url, away = _redirected(way, method, url, reply)
                if not url:
                    return reply
                if away:
                    out = {name: value for name, value in out.items() if name.lower() != "authorization"}
        except (ValueError, http.client.InvalidURL) as error:  # A UnicodeError is a ValueError.
            # http.client checks the address and the headers before it connects.
            raise NotSent(f"{type(error).__name__}: {error}") from None
        raise NoAnswer("it redirects again and again")

    def abandon(self) -> None:
        """End every request that is under way, in whatever thread. It gets no answer."""
        for process, connection in tuple(self._under_way):
            if process == os.getpid() and connection.sock is not None:
                with suppress(OSError):  # It has ended meanwhile. That of TLS would disturb its thread.
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def _once(
        self,
        way: Way,
        line: tuple[str, str],
        end: float,
        body: bytes | Path | None,
        headers: Mapping[str, str],
        into: Path | None,
    ) -> Reply:
        method, url = line
        place = urlsplit(url)
        _ = place.port  # It raises ValueError when it is no number.
        if not place.hostname:
            raise NotSent(f"{url} names no host")
        connection = self._connected(way, place, end)
        sent = dict(headers) | (dict(way.sign(method, url, headers, body)) if way.sign else {})
        target = place._replace(scheme="", netloc="", fragment="").geturl() or "/"
        if way.proxy and place.scheme == "http":
            target = url
            sent |= _login(urlsplit(way.proxy if "://" in way.proxy else f"http://{way.proxy}"))
        under_way = (os.getpid(), connection)
        self._under_way.add(under_way)
        try:
            response = self._exchange(connection, (method, target), end, body, sent)
            is_file = into is not None and response.status < 300
            content = _saved(response, into) if into is not None and is_file else response.read()
            reply = Reply(response.status, response.headers, content, is_file)  # type: ignore[arg-type]
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NoAnswer(f"{type(error).__name__}: {error}"[:300]) from None
        except BaseException:
            connection.close()
            raise
        finally:
            self._under_way.discard(under_way)
        if response.will_close:
            connection.close()
        elif len(idle := self._of(way, place)) < IDLE:
            idle.append(connection)
        return reply

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        line: tuple[str, str],
        end: float,
        body: bytes | Path | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        connection.putrequest(*line, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        length = body.stat().st_size if isinstance(body, Path) else len(body or b"")
        if body is not None or line[0] not in {"GET", "HEAD", "DELETE"}:
            connection.putheader("Content-Length", str(length))
        try:
            connection.endheaders()
            for piece in _pieces(body):
                _limit(connection, end)
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # A server that refuses a large body answers before it has all of it.
        _limit(connection, end)
        return connection.getresponse()

    def _connected(self, way: Way, place: SplitResult, end: float) -> http.client.HTTPConnection:
        idle = self._of(way, place)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # Another thread was faster.
                break
            if _is_usable(connection):
                return connection
            connection.close()
        return _opened(way, place, max(end - time.monotonic(), 0.05))

    def _of(self, way: Way, place: SplitResult) -> list[http.client.HTTPConnection]:
        key = (os.getpid(), f"{place.scheme}://{place.netloc} {way.proxy} {id(way.tls)}")
        return self._idle.setdefault(key, [])


def _saved(response: http.client.HTTPResponse, into: Path) -> bytes:
    if isinstance(response, Response):
        response.unlimit()
    with into.open("wb") as file:
        while piece := response.read(PIECE):
            file.write(piece)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b""


def _limit(connection: http.client.HTTPConnection, end: float) -> None:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    if connection.sock is not None:
        connection.sock.settimeout(left)


def _is_usable(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has not closed a connection meanwhile: it has nothing to say before a request."""
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)


def _pieces(body: bytes | Path | None) -> Iterator[bytes]:
    if isinstance(body, Path):
        with body.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
        return
    content = memoryview(body or b"")
    for start in range(0, len(content), PIECE):
        yield bytes(content[start : start + PIECE])


def _redirected(way: Way, method: str, url: str, reply: Reply) -> tuple[str, bool]:
    """The URL to ask in place of `url`, and whether it is another server's; empty when the answer counts.

    A redirect that would make a GET of a write says nothing about the write, so that it is the answer.
    """
    where = reply.headers.get("Location") if way.redirects else None
    keeps = reply.status in {307, 308} or (method in {"GET", "HEAD"} and reply.status in {301, 302, 303})
    if not where or not keeps:
        return "", False
    new = urljoin(url, quote(where, safe=SAFE))
    if urlsplit(new).scheme not in {"http", "https"}:
        return "", False
    return new, urlsplit(new).netloc != urlsplit(url).netloc
