"""The bodies of requests: who may send one, how large they may be, one and all, and their Content-Encoding (RFC 9110, 8.4),
for every route at once.

A compressed body is read piece by piece, and never further than the limit: a few bytes can stand for gigabytes.
"""

import sys
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.errors import Problem
from app.web.problems import problem_answer
from app.web.security import CALLER, Guard, guard_of
from app.web.tokens import Caller

if sys.version_info >= (3, 14):
    from compression import zstd

_PIECE = 65536  # bytes that are inflated at once
_MOST_CODINGS = 4  # on top of each other; each of them costs time
_MOST_STREAMS = 1000  # one after the other in a body; an empty one costs time and gives nothing
_WINDOW = 23  # zstd: 8 MiB of memory, which RFC 8878 asks every reader to have and no writer to exceed
_AS_SENT = "gateway.body_as_sent"

#: The encodings that are undone, as an Accept-Encoding header names them. `x-gzip` is an old name of gzip.
ENCODINGS = ("gzip", "deflate", *(("zstd",) if sys.version_info >= (3, 14) else ()))


#: Bytes of a body for a route that is not `takes_large`: a request of a person or a script, an event of MLflow.
MOST_OF_A_REQUEST = 256 * 1024
SMALL = 65536  # bytes of a body that finds room where a larger one does not

_BUSY = Problem(
    503,
    "unavailable",
    "The gateway holds as many bytes of bodies as it may, of this token or of all (GATEWAY_BODY_BUDGET). Send it again.",
    headers={"Retry-After": "5"},
)


class BodyRefused(HTTPException):
    """An HTTPException, because FastAPI turns every other error that is raised while it reads a body into a 400."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.status)
        self.problem = problem


def budget_of(most: int, limit: int) -> int:
    """The budget in force. One of the largest bodies must always find room, compressed and as what it stands for."""
    return max(most, 4 * limit)


class Budget:
    """The bytes of all bodies that this process holds: those that come in, those that are read, and those that wait for
    Postgres.

    No token can use it up. It holds at most three times the bytes that it leaves free, with small bodies seven times. So it
    alone gets three quarters, and the next one three quarters of the rest. Some senders have not shown who they are, such as
    those of signed requests. Their bodies may fill an eighth, or three of the largest bodies; large ones may fill three
    quarters of that.
    """

    def __init__(self, most: int, limit: int) -> None:
        self.most = budget_of(most, limit)
        self.most_unproven = max(self.most // 8, 3 * limit)
        self.held = 0
        self.unproven = 0
        self.of_token: defaultdict[str, int] = defaultdict(int)  # by its name


class _Share:
    """What one request holds of the budget."""

    __slots__ = ("_budget", "_held", "_token", "_unproven", "limit")

    def __init__(self, budget: Budget, limit: int) -> None:
        self.limit = limit  # of its own body
        self._budget = budget
        self._held = 0
        self._unproven = 0
        self._token = ""  # its name, once it is known

    def take(self, size: int, caller: Caller | None) -> bool:
        """Hold `size` more bytes for `caller`; None: nobody knows yet who it is. False: there is no room for them."""
        budget = self._budget
        self._held += size
        budget.held += size
        is_small = self._held <= SMALL
        if caller is None:
            self._unproven += size
            budget.unproven += size
            part = 1 if is_small else 3 / 4
            return budget.unproven <= budget.most_unproven * part and budget.held <= budget.most * part
        self._token = caller.name
        budget.of_token[caller.name] += size
        return budget.of_token[caller.name] <= (7 if is_small else 3) * (budget.most - budget.held)

    def free(self) -> None:
        """The request has its answer."""
        self._budget.held -= self._held
        self._budget.unproven -= self._unproven
        if self._token:
            self._budget.of_token[self._token] -= self._held - self._unproven
        self._held = self._unproven = 0


class ReadBodies:
    """ASGI middleware: routes get each body without its encodings. `limit` is in bytes, and holds for the body as it is sent
    and for what it stands for. A larger one is answered 413: before it is read if it declares its length, else as soon as it
    passes the limit. `budget` is in bytes too, for all bodies together.

    The token of a route with `require` is judged before the first byte of its body is read. Only a route whose attribute
    `takes_large` is true takes more than MOST_OF_A_REQUEST.
    """

    def __init__(self, app: ASGIApp, limit: int, budget: int) -> None:
        self._app = app
        self._limit = limit
        self._budget = Budget(budget, limit)
        self._guards: dict[int, Guard | None] = {}  # by the identity of a route, which lives as long as the application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared, encodings = b"0", []
        for name, value in scope["headers"]:
            if name == b"content-length":
                declared = value
            elif name == b"content-encoding":
                encodings.append(value.decode("latin-1"))
        if declared.isdigit() and int(declared[:20]) > self._limit:
            return await problem_answer(_too_large(self._limit), scope["path"])(scope, receive, send)
        share, read = _Share(self._budget, self._limit), -1

        async def counted() -> Message:
            nonlocal read
            if read < 0:
                read = 0
                self._judge(scope)
                if not getattr(scope.get("route"), "takes_large", False):
                    share.limit = min(self._limit, MOST_OF_A_REQUEST)
            message = await receive()
            if message["type"] == "http.request" and (size := len(message.get("body", b""))):
                read += size
                if read > share.limit:
                    raise BodyRefused(_too_large(share.limit))
                if not share.take(size, scope.get(CALLER)):
                    raise BodyRefused(_BUSY)
            return message

        codings = _codings(encodings) if encodings else []
        reading = _decoded(counted, codings, scope, share) if codings else counted
        try:
            return await self._app(scope, reading, send)
        finally:
            share.free()

    def _judge(self, scope: Scope) -> None:
        """Judge the token that the route asks for. Raises BodyRefused."""
        dependant = getattr(route := scope.get("route"), "dependant", None)
        if dependant is None:
            return
        if id(route) not in self._guards:
            self._guards[id(route)] = guard_of(dependant)
        if guard := self._guards[id(route)]:
            try:
                guard(Request(scope))
            except Problem as problem:
                raise BodyRefused(problem) from None


def as_sent(request: Request, body: bytes) -> bytes:
    """The bytes that the sender sent, when `body` is what the route has read: a signature is over these."""
    return bytes(request.scope.get(_AS_SENT, body))


def _codings(encodings: Iterable[str]) -> list[str]:
    """The codings of a body in the order in which they were applied."""
    named = [coding.strip().lower() for value in encodings for coding in value.split(",")]
    return [
        coding.removeprefix("x-") if coding == "x-gzip" else coding
        for coding in named
        if coding not in ("", "identity")
    ]


def _decoded(receive: Receive, codings: list[str], scope: Scope, share: _Share) -> Receive:
    """`receive`, whose bodies are without `codings`. Raises BodyRefused when the first bytes come, so that a request without
    a body may name what it likes."""
    layers: list[_Layer] = []
    sent = scope[_AS_SENT] = bytearray()

    async def decoded() -> Message:
        message = await receive()
        if message["type"] != "http.request":
            return message
        data = message.get("body", b"")
        if data and not layers:
            layers.extend(_Layer(coding, share.limit) for coding in reversed(_known(codings)))
        sent.extend(data)
        pieces: Iterable[bytes] = [data]
        for layer in layers:
            pieces = layer.undo(pieces)
        body = b"".join(pieces)
        if not share.take(len(body), scope.get(CALLER)):
            raise BodyRefused(_BUSY)
        if not message.get("more_body", False):
            for layer in layers:
                layer.end()
        return {**message, "body": body}

    return decoded


def _known(codings: list[str]) -> list[str]:
    """`codings`. Raises BodyRefused for those that cannot be undone here."""
    taken = " or ".join((", ".join(ENCODINGS[:-1]), ENCODINGS[-1]))
    if len(codings) > _MOST_CODINGS:
        fault = f"The body has {len(codings)} encodings on top of each other, and the gateway undoes {_MOST_CODINGS}"
    elif unknown := [coding for coding in codings if coding not in ENCODINGS]:
        fault = f"The gateway does not read the encoding {unknown[0][:100]!r}"
    else:
        return codings
    headers = {"Accept-Encoding": ", ".join(ENCODINGS)}
    detail = f"{fault}: send the body as it is, or as {taken}."
    raise BodyRefused(Problem(415, "unsupported_encoding", detail, headers=headers))


class _Layer:
    """One coding of a body. What it gives is limited as well when another layer follows, which may give much less."""

    def __init__(self, coding: str, limit: int) -> None:
        self._coding = coding
        self._limit = limit
        self._stream: _Stream | None = None
        self._begun = b""  # the first byte of a stream that needs a second one to be known
        self._streams = 0
        self._read = 0

    def undo(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """What `pieces`, the next ones of the body, stand for. Raises BodyRefused."""
        for piece in pieces:
            data, self._begun = self._begun + piece, b""
            more = False
            while data or more:
                if self._stream is None and not (data := self._next(data)):
                    break
                assert self._stream is not None
                try:
                    out, data = self._stream.take(data)
                except _ERRORS as error:
                    raise self._broken("its stream is broken") from error
                self._read += len(out)
                if self._read > self._limit:
                    raise BodyRefused(_too_large(self._limit))
                more = len(out) == _PIECE
                if self._stream.eof:
                    self._stream, more = None, False
                if out:
                    yield out

    def end(self) -> None:
        """Raises BodyRefused when the body ended within its stream."""
        if self._stream is not None or self._begun:
            raise self._broken("it ends before its stream does")

    def _next(self, data: bytes) -> bytes:
        """Open the next stream, which `data` begins. Returns what is left of `data`; nothing when the stream needs more."""
        if self._coding == "gzip" and self._streams:
            data = data.lstrip(b"\0")  # Writers fill a block up with zeros, and every reader of gzip skips them.
        if self._streams and self._coding == "deflate":
            raise self._broken("bytes follow the end of its stream")
        if self._streams >= _MOST_STREAMS:
            raise self._broken(f"it has more than {_MOST_STREAMS} streams")
        if self._coding == "deflate" and len(data) < 2:
            self._begun = data
            return b""
        if data:
            self._stream = _open(self._coding, data)
            self._streams += 1
        return data

    def _broken(self, why: str) -> BodyRefused:
        detail = f"The body is not {self._coding}, as its Content-Encoding says: {why}."
        return BodyRefused(Problem(400, "bad_request", detail))


class _Stream(Protocol):
    eof: bool

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """At most _PIECE bytes of output, and the rest of `data`. A full piece may have more behind it."""
        ...


class _Zlib:
    eof = False

    def __init__(self, wbits: int) -> None:
        self._inflate = zlib.decompressobj(wbits)

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        out = self._inflate.decompress(data, _PIECE)
        self.eof = self._inflate.eof
        return out, self._inflate.unused_data if self.eof else self._inflate.unconsumed_tail


_ERRORS: tuple[type[Exception], ...] = (zlib.error,)

if sys.version_info >= (3, 14):
    _ERRORS = (zlib.error, zstd.ZstdError)

    class _Zstd:
        eof = False

        def __init__(self) -> None:
            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW}
            self._inflate = zstd.ZstdDecompressor(options=options)

        def take(self, data: bytes) -> tuple[bytes, bytes]:
            out = self._inflate.decompress(data, _PIECE)
            self.eof = self._inflate.eof
            return out, self._inflate.unused_data if self.eof else b""


def _open(coding: str, data: bytes) -> _Stream:
    if coding == "gzip":
        return _Zlib(16 + zlib.MAX_WBITS)
    if sys.version_info >= (3, 14) and coding == "zstd":
        return _Zstd()
    # "deflate" is the format of zlib, but some senders leave its wrapper out. Its first two bytes tell (RFC 1950, 2.2).
    wrapped = data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0
    return _Zlib(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


def _too_large(limit: int) -> Problem:
    whose = "this route" if limit == MOST_OF_A_REQUEST else "GATEWAY_MAX_BODY"
    return Problem(413, "too_large", f"The body is over {limit} bytes, the limit of {whose}.", limit=limit)
