"""The listener: every byte of a connection, before the application sees a request.

uvicorn and llhttp (httptools) parse HTTP. What they leave to others is decided here:

- **Each request can be read in one way.** `Upgrade` is ignored and the body is read: llhttp alone stops behind the head and
  takes the body for the next request. Trailers never become headers. A request that two servers could read in two ways is
  refused: two lengths, two Hosts, an unknown transfer coding, an old version. After a refusal no more bytes are parsed.
  A sender that waits for the answer 100 and gets another one may leave its body out: the connection ends there.
- **Each step is bounded.** A head may have 64 KiB, 100 fields and 10 s; its target 8 KiB; a body 30 s, and 512 bytes
  a second. An idle connection is closed. A sender that does not read its answer is cut off. The size of a body is the
  application's matter.
- **Connections are capped** below the limit of open files. At the cap a new connection takes the place of the one that
  keeps us waiting longest, so silent senders cannot keep others out. When no connection keeps us waiting, the answer is 503.

A refusal is a problem (app.web.problems). It comes after the answers that are under way. A sender that closes only its own
direction gets its answer.
"""

import asyncio
import json
import logging
from functools import partial
from http import HTTPStatus
from math import inf
from typing import Any, Final, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.web.door import Door, Limits
from app.web.problems import KINDS, MEDIA_TYPE, UNAVAILABLE, Kind, problem_body

log = logging.getLogger(__name__)

MOST_HEAD: Final = 64 * 1024  # bytes
MOST_FIELDS: Final = 100
MOST_TARGET: Final = 8 * 1024  # bytes of path and query
_MOST_PIPELINED: Final = 100  # requests that wait on one connection
_PIECE: Final = 64 * 1024  # bytes that are parsed at once; a read may be larger
_LINGER: Final = 5.0  # seconds to read and drop what a refused sender still sends, or it would not see the answer

_BAD = KINDS["bad_request"]
_SLOW = Kind("too_slow", 408, "The request was not complete in time.")
_LONG_TARGET = Kind("target_too_long", 414, f"Path and query are over {MOST_TARGET} bytes.")
_LARGE_HEAD = Kind("head_too_large", 431, f"The head is over {MOST_HEAD} bytes or {MOST_FIELDS} fields.")
_UNKNOWN = Kind("not_implemented", 501, "The gateway knows no transfer coding but chunked, and no CONNECT.")
_CROWDED = Kind("too_many_connections", 503, "The gateway has as many connections as it may. Try again later.")
_VERSION = Kind("version_not_supported", 505, "The gateway speaks HTTP/1.1 and HTTP/1.0.")
#: What the listener itself answers, beside `bad_request`.
REFUSALS: Final = (_SLOW, _LONG_TARGET, _LARGE_HEAD, _UNKNOWN, _CROWDED, _VERSION)


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """What uvicorn takes as `http=`, for one server. Raises the limit of open files, on which the cap depends."""
    return cast(type[asyncio.Protocol], partial(_Connection, Door(limits)))


class _Connection(HttpToolsProtocol):
    """One connection. `deadline` is for what it owes us now, in the loop's time. `in_body`: its body is incomplete."""

    def __init__(self, door: Door, **given: Any) -> None:
        super().__init__(**given)
        self._door = door
        self._limits = door.limits
        self._waiting = door.waiting
        self.deadline = inf
        self._read_by = inf  # for the answer, while the sender does not take it
        self._body_since, self._body_size = 0.0, 0  # when the body began to come, and how much of it is there
        self._read: object = None  # the newest request whose head is complete
        self.in_body = False
        self._running: Any = None  # what answers now; `cycle` is the newest request, which may wait behind it
        self._end_by = inf  # after SIGTERM: for a body that is incomplete
        self._timed: tuple[object, bool] | None = None  # the request whose head, or else body, has a deadline
        self._size = 0  # bytes of that head after its first piece; in a body, bytes since the last payload
        self._reason: tuple[Kind, str] | None = None  # why a callback of the parser ended the request
        self._refused = False
        self._last_words: bytes | None = None  # a refusal that waits for the answers before it

    # The transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.deadline = self.loop.time() + self._limits.head
        if not self._door.enter(self):
            self._refused = True
            self.transport.write(self._answer(_CROWDED))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn marks the newest request alone.
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            if len(data) <= _PIECE:
                self._feed(data)
            else:
                for start in range(0, len(data), _PIECE):
                    self._feed(data[start : start + _PIECE])
        except HttpParserCallbackError:
            self._refuse(*(self._reason or (_BAD, "The target of the request is not a path.")))
        except HttpParserError as error:
            self._refuse(_BAD, f"This is not HTTP/1.1: {error}.")

    def eof_received(self) -> bool:  # type: ignore[override]
        """The sender closed its direction, or went away. True keeps ours open for an answer that is under way."""
        if self.in_body and self._running is not self.cycle:  # Requests before it have answers to come.
            if not self._refused:
                self._refused, self.deadline = True, inf
                self.pipeline.popleft()
                last = self.pipeline[0][0] if self.pipeline else self._running
                last.keep_alive = False
            return True
        if self.in_body or not self._answering():
            return False
        self.cycle.keep_alive = False
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_by = self.loop.time() + self._limits.answer
        self._door.waits(self)
        self._door.unread(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_by = inf
        self._door.has_read(self)
        if self._answering() and not self.in_body:
            self._waiting.pop(self, None)

    def shutdown(self) -> None:
        super().shutdown()
        self._end_by = self.loop.time() + self._limits.last

    def look(self, now: float) -> None:
        """End the connection when it is overdue."""
        if self.transport.is_closing() and self.deadline == inf:
            self.deadline = now + self._limits.answer  # It has answers to take before it is closed.
        ending = self.in_body and now >= self._end_by and not self._refused
        if self.in_body and self.flow.read_paused:
            self._body_since, self._body_size = now, 0  # It is we who do not read.
        seconds = now - self._body_since if self.in_body and not self._refused else 0.0
        slow = seconds > self._limits.free and self._body_size < seconds * self._limits.rate
        if now < self.deadline and now < self._read_by and not ending and not slow:
            return
        if now >= self._read_by or self._refused or self.transport.is_closing():
            self.transport.abort()
        elif self.in_body and self.flow.read_paused:
            self.deadline = now + self._limits.body  # It is we who do not read.
        elif ending:
            self._refuse(UNAVAILABLE, "The gateway is stopping. Send the request again.")
        elif slow and now < self.deadline:
            self._refuse(_SLOW, f"The body came with less than {self._limits.rate} bytes a second.")
        elif self.in_body:
            self._refuse(_SLOW, f"The body was not complete within {self._limits.body:g} s.")
        elif self.scope is not self._read:
            self._refuse(_SLOW, f"The head was not complete within {self._limits.head:g} s.")
        else:
            self.deadline = now + self._limits.answer
            self.transport.close()

    # The parser

    def _feed(self, data: bytes) -> None:
        if self._refused:
            return  # It is read and dropped.
        received = len(data)
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except HttpParserUpgrade as stopped:
                data = data[stopped.args[0] :]
                self._read_on()
        if self.in_body or self.scope is not self._read:
            self._measure(received)

    def _read_on(self) -> None:
        """Read a request with an Upgrade as if it had none. llhttp stopped behind its head and would skip its body. A new
        parser gets the head again, without that field."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            raise self._because(_UNKNOWN)
        kept = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # As uvicorn: what follows is dropped.
        self.parser.feed_data(b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version.encode(), b"".join(kept)))

    def _measure(self, received: int) -> None:
        """Bound the time of an incomplete request, and what the parser holds of it."""
        if self._timed is None or self._timed[0] is not self.scope or self._timed[1] is not self.in_body:
            self._timed = self.scope, self.in_body
            self._size = 0  # Other requests may stand before it in this piece.
            self.deadline = self.loop.time() + (self._limits.body if self.in_body else self._limits.head)
            if self in self._waiting:
                self._door.waits(self)  # An idle connection is the first to make room, and a new request is not.
        else:
            self._size += received
        if self.in_body:
            # Between two bytes of payload there may be an extension of a chunk, or trailers.
            if self._size > MOST_HEAD + _PIECE:
                self._refuse(_BAD, f"The body has over {MOST_HEAD} bytes that are no payload.")
        elif len(self.url) > MOST_TARGET:
            self._refuse(_LONG_TARGET)
        elif self._size > MOST_HEAD or len(self.headers) > MOST_FIELDS:
            self._refuse(_LARGE_HEAD)

    def on_headers_complete(self) -> None:
        self._check_head()
        if self.parser.should_upgrade():
            return  # `_read_on` comes here again.
        super().on_headers_complete()  # It may raise, for the target.
        self._read = self.scope
        self.in_body = True
        self._body_since, self._body_size = self.loop.time(), 0
        self.headers = []  # For trailers: nobody reads them.
        if self.expect_100_continue:
            self.cycle.keep_alive = False  # Until its body is there.
        if not self.cycle.keep_alive:
            self.cycle.transport = cast(asyncio.Transport, _Last(self))

    def on_body(self, body: bytes) -> None:
        self._size = 0
        self._body_size += len(body)
        HttpToolsProtocol.on_body(self, body)  # A body in tiny chunks comes here often.

    def on_message_complete(self) -> None:
        if self.scope is not self._read:
            return  # An Upgrade: its body comes yet.
        self.in_body = False
        self.deadline = inf
        self._waiting.pop(self, None)  # It is our turn: nothing may end the connection.
        if self.expect_100_continue and not self.cycle.response_started and self._end_by == inf:
            self.cycle.keep_alive = self.parser.should_keep_alive()
        super().on_message_complete()
        if self.cycle.response_complete:
            self._rest()

    def _check_head(self) -> None:
        """Raise for a head that is too large, or that two servers could read in two ways."""
        if len(self.url) > MOST_TARGET:
            raise self._because(_LONG_TARGET)
        if len(self.headers) > MOST_FIELDS or (
            self._timed is not None
            and self._timed[0] is self.scope  # It came in several pieces.
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MOST_HEAD
        ):
            raise self._because(_LARGE_HEAD)
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise self._because(_CROWDED, "Too many requests of this connection wait for their answers.")
        version = self.parser.get_http_version()
        fields = dict(self.headers)
        if version != "1.1":
            if version != "1.0":
                raise self._because(_VERSION)
            self.expect_100_continue = False  # An old sender does not know the answer 100.
            if b"transfer-encoding" in fields:
                raise self._because(_BAD, "HTTP/1.0 has no Transfer-Encoding.")
        elif b"host" not in fields:
            raise self._because(_BAD, "The request has no Host.")
        if len(fields) != len(self.headers) and sum(name == b"host" for name, _ in self.headers) > 1:
            raise self._because(_BAD, "The request has two Hosts.")
        if (
            self.url[:1] != b"/"
            and b"://" in self.url
            and b"host" in fields
            and _host(self.url) != _host(b"http://" + fields[b"host"])
        ):
            raise self._because(_BAD, "The target of the request names another host than its Host.")
        if b"transfer-encoding" in fields:
            codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
            if codings != [b"chunked"]:
                raise self._because(_UNKNOWN, "The gateway knows no transfer coding but chunked.")

    # The answers

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            self._door.waits(self)  # Until it has taken its answer.
        elif self.pipeline:
            super().on_response_complete()  # The next request begins.
            if self.in_body and self._running is self.cycle:
                self._door.waits(self)  # It is incomplete.
        else:
            self.flow.resume_reading()
            if self._last_words is not None:
                self._say(self._last_words)
            elif not self.in_body and self.scope is self._read:
                self._rest()
            else:
                self._door.waits(self)  # Its next request is incomplete.

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _answering(self) -> bool:
        return self.cycle is not None and not (self.cycle.response_complete or self.cycle.disconnected)

    def _rest(self) -> None:
        """The sender has its answers: its next request may come."""
        self.deadline = self.loop.time() + self._limits.idle
        self._waiting[self] = None

    def _because(self, kind: Kind, detail: str = "") -> HttpParserCallbackError:
        """To be raised in a callback of the parser, which forgets what was raised."""
        self._reason = kind, detail
        return HttpParserCallbackError(kind.code)

    def _refuse(self, kind: Kind, detail: str = "") -> None:
        """Answer with a problem after the answers that are under way, and close. Nothing more is read."""
        if self._refused:
            return
        self._refused = True
        words, cycle = self._answer(kind, detail), self.cycle
        self.deadline = inf
        if self._door.may_log_refusal():
            log.info("a request was refused", extra={"client": self.client, "problem": kind.code, "detail": detail})
        if self.in_body:
            cycle.disconnected = True  # For the application: the body never ends.
            cycle.message_event.set()
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
                self._last_words = words
            elif cycle.response_started:
                self.transport.close()
            else:
                self._say(words)
        elif self._answering():
            self._last_words = words
        else:
            self._say(words)

    def _say(self, words: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(words)
            self.linger()

    def linger(self) -> None:
        """Nothing more is said. Drop what still comes: a close with unread bytes would destroy the words on their way."""
        self._refused = True
        self.deadline = self.loop.time() + _LINGER
        self._door.waits(self)
        self.transport.write_eof()
        self.flow.resume_reading()

    def _answer(self, kind: Kind, detail: str = "") -> bytes:
        body = json.dumps(problem_body(kind.status, kind.code, detail or kind.detail, "/", {})).encode()
        fields = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if kind.status == HTTPStatus.SERVICE_UNAVAILABLE:
            fields.append((b"retry-after", b"5"))
        line = f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\n".encode()
        return line + b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n" + body


class _Last:
    """The transport of a request after which the connection ends."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        if self._connection.in_body and not self.is_closing():
            self._connection.linger()
        else:
            self._connection.transport.close()


def _host(url: bytes) -> tuple[bytes, int]:
    """Host and port of a URL. Raises what the parser turns into a refusal of the target."""
    found = parse_url(url)
    return (found.host or b"").lower(), found.port or 80
