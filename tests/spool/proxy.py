"""A proxy before MLflow that does to chosen requests what networks and servers do: in this process, on a free port."""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Fault(Enum):
    """What happens to a request."""

    NONE = "none"
    REFUSE = "refuse"  # the connection is closed before anything is read
    HANG = "hang"  # nothing is forwarded, and no answer comes
    UNAVAILABLE = "503"  # nothing is forwarded
    NOT_FOUND = "404 of a proxy"  # nothing is forwarded: there is no MLflow behind it
    LOGIN_PAGE = "200 of a login page"  # nothing is forwarded
    COMMIT_AND_503 = "commit, then 503"
    COMMIT_AND_DROP = "commit, then drop"  # forwarded, and the answer is lost


#: Statuses of what something else answers in the server's place.
INSTEAD = {Fault.UNAVAILABLE: 503, Fault.NOT_FOUND: 404, Fault.LOGIN_PAGE: 200}

#: Decides by the number of the request (0, 1, ...) and its line, as in "POST /api/2.0/mlflow/runs/create".
Plan = Callable[[int, str], Fault]


def never(number: int, line: str) -> Fault:
    return Fault.NONE


def always(fault: Fault) -> Plan:
    return lambda number, line: fault


def at(number: int, fault: Fault) -> Plan:
    """That fault to one request, and to none after it."""
    return lambda seen, line: fault if seen == number else Fault.NONE


def gone_after_the_phase(fault: Fault) -> Plan:
    """That fault to everything after the first tag of a run, with which a script says that MLflow may go."""
    marked: list[int] = []

    def plan(number: int, line: str) -> Fault:
        if marked and not 0 <= number <= marked[0]:
            return fault
        if line.endswith("runs/set-tag") and number >= 0:
            marked.append(number)
        return Fault.NONE

    return plan


class Proxy:
    """`plan` may be changed at any time; `seen` are the request lines so far, health checks left out."""

    def __init__(self, upstream: int, prefix: str = "") -> None:
        """prefix: of the paths here, which the server does not know."""
        self.plan: Plan = never
        self.delay: Callable[[str], float] = lambda line: 0.0  # seconds before a request with that line is handled
        self.seen: list[str] = []
        self.heads: list[dict[str, str]] = []  # of every request, names in small letters
        self._upstream, self._prefix = upstream, prefix
        self._guard = threading.Lock()
        self._released = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy._handle(self)

            do_HEAD = do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 (the base class looks for them)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: `seen` tells it."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that gave up is what these tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        line = f"{handler.command} {handler.path.partition('?')[0]}"
        self._released.wait(self.delay(line))
        self.heads.append({name.lower(): value for name, value in handler.headers.items()} | {"line": line})
        fault = self._fault(line)
        if fault is Fault.REFUSE:
            _drop(handler)
            return
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if fault is Fault.HANG:
            self._released.wait(60)
            _drop(handler)
            return
        if fault in INSTEAD:
            _answer(handler, INSTEAD[fault], b"no", [])
            return
        status, headers, answer = self._forward(handler, body)
        if fault is Fault.COMMIT_AND_DROP:
            _drop(handler)
        elif fault is Fault.COMMIT_AND_503:
            _answer(handler, 503, b"no", [])
        else:
            _answer(handler, status, answer, headers)

    def _fault(self, line: str) -> Fault:
        with self._guard:
            if line.endswith(("/health", "/version")):
                # The server's pulse follows the plan too, but is not counted: how often it is felt depends on time.
                return self.plan(-1, line)
            self.seen.append(line)
            return self.plan(len(self.seen) - 1, line)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in {"host", "connection"}}
        connection.request(handler.command, handler.path.removeprefix(self._prefix), body, headers)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        own = {"connection", "date", "keep-alive", "server", "transfer-encoding"}
        own |= set() if handler.command == "HEAD" else {"content-length"}
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in own]
        return response.status, kept, answer


def _answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    if handler.command != "HEAD":
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _drop(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    # A reset rather than an orderly end: the client cannot take it for an empty answer.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


@contextmanager
def proxied(upstream: int, prefix: str = "") -> Iterator[Proxy]:
    """A proxy before the server on port `upstream`. prefix: see `Proxy`."""
    proxy = Proxy(upstream, prefix)
    try:
        yield proxy
    finally:
        proxy.stop()
