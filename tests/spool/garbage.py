"""A raw socket on loopback that answers what no server should: bytes as they stand here, cut, endless or dripping."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat

#: The pieces of one answer, sent one after another. The connection ends after the last.
Pieces = Iterable[bytes]
RESET = b"reset"  # as the only piece: the connection is reset


def answer(status: str, body: bytes, *headers: bytes) -> bytes:
    """A well-formed HTTP answer."""
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 " + status.encode(), *headers, length, b"", body])


def cut(status: str, body: bytes) -> bytes:
    """An answer whose body is shorter than its Content-Length."""
    return b"HTTP/1.1 %b\r\nContent-Length: 500\r\n\r\n%b" % (status.encode(), body)


def chunked(status: str, body: bytes) -> bytes:
    """An answer with the raw `body` where its chunks should be."""
    return b"HTTP/1.1 %b\r\nTransfer-Encoding: chunked\r\n\r\n%b" % (status.encode(), body)


def _drip(content: bytes) -> Iterator[bytes]:
    """Byte by byte: each comes within the timeout of a socket, the whole does not."""
    for byte in content:
        time.sleep(0.02)
        yield bytes([byte])


def garbage(good: bytes, status: str) -> dict[str, Callable[[], Pieces]]:
    """Answers by their names. good: a body that the client would take; status: with this status line."""
    head = f"HTTP/1.1 {status}\r\n".encode()
    plain: dict[str, bytes] = {
        "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
        "a status that is no number": b"HTTP/1.1 two OK\r\n\r\n" + good,
        "a status out of range": b"HTTP/1.1 99999 OK\r\n\r\n" + good,
        "an unknown version": b"HTTP/7.0 200 OK\r\n\r\n" + good,
        "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "early hints and no more": b"HTTP/1.1 103 Early Hints\r\n\r\n",
        "nothing": b"",
        "a reset": RESET,
        "half a header": head + b"Content-Le",
        "a header line too long": head + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        "too many headers": head + b"X: y\r\n" * 500 + b"\r\n",
        "a short body": cut(status, good),
        "a chunk without a size": chunked(status, b"zz\r\n" + good),
        "a chunk that is cut": chunked(status, b"ff\r\n" + good),
        "no body": answer(status, b""),
        "HTML": answer(status, b"<html>Please log in</html>"),
        "half of the JSON": answer(status, good[:-1]),
        "a JSON list": answer(status, b"[" + good + b"]"),
        "a JSON string": answer(status, b'"taken"'),
        "JSON null": answer(status, b"null"),
        "JSON too deep": answer(status, b"[" * 200_000),
        "a JSON number too long": answer(status, b'{"taken": %b}' % (b"1" * 5000)),
        "bytes that are no UTF-8": answer(status, b'{"taken": "\xff\xfe\xff"}'),
        "an unknown encoding": answer(status, b"\xff\x00", b"Content-Type: text/plain; charset=undefined"),
        "gzip that is none": answer(status, b"\x1f\x8bno", b"Content-Encoding: gzip"),
        "an error in HTML": answer("404 Not Found", b"<html>Not found</html>"),
        "an error whose body is short": cut("503 Service Unavailable", b"{"),
        "an error whose chunks are bad": chunked("500 Internal Server Error", b"zz\r\n"),
        "a Retry-After that is no ASCII digit": answer("503 Busy", b"{}", b"Retry-After: \xb2"),
        "a redirect without an address": answer("302 Found", b""),
        "a redirect to no address": answer("302 Found", b"", b"Location: http://[::1/"),
        "a redirect to itself": answer("302 Found", b"", b"Location: metadata"),
        "a redirect to a good answer": answer("302 Found", b"", b"Location: good"),
    }
    endless: dict[str, Callable[[], Pieces]] = {
        "an endless status line": lambda: repeat(b"HTTP/1.1 "),
        "an endless header": lambda: chain([head, b"X: "], repeat(b"x" * 1000)),
        "endless headers": lambda: chain([head], repeat(b"X: y\r\n")),
        "endless promises": lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
        "an endless body": lambda: chain([head, b"\r\n"], repeat(b" " * 65_536)),
        "an answer that drips": lambda: _drip(head + b"X: " + b"x" * 1000),
    }
    return {name: lambda whole=whole: [whole] for name, whole in plain.items()} | endless


class GarbageServer:
    """`choose` is given a request (its line and its body) and returns the pieces of the answer."""

    def __init__(self, choose: Callable[[str, bytes], Pieces]) -> None:
        self.choose = choose
        self.seen: list[tuple[str, bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        with suppress(OSError):  # The listener is closed.
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # A client that gave up.
            connection.settimeout(10)
            line, body = _request(connection)
            self.seen.append((line, body))
            for piece in self.choose(line, body):
                if piece == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                connection.sendall(piece)


def _request(connection: socket.socket) -> tuple[str, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536) or b"\r\n\r\n"
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length:")]
    while lengths and len(body) < lengths[0]:
        body += connection.recv(65_536)
    return head.partition(b" HTTP")[0].decode(), body


@contextmanager
def answering(choose: Callable[[str, bytes], Pieces]) -> Iterator[GarbageServer]:
    """A server that answers so."""
    server = GarbageServer(choose)
    try:
        yield server
    finally:
        server.stop()
