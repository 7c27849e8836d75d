"""What every fake of somebody else's server has: a way in, faults on the way, and a record of what was asked.

A fake says what it is by `answer(call)`. It is reached in memory by `transport()`, or served itself: it is an ASGI app.
What goes wrong is scripted with `disturb(fault, on=..., times=...)`, see tests.fakes.faults, and with `down = True` (nobody
listens). `on` is the name of an operation, a predicate on the Call, or None for every request. `calm()` ends it all.
Requests that `limbo()` keeps back take effect with `land()`.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx

from tests.fakes.airflow_nouns import HasNow
from tests.fakes.faults import Call, Fault, Faults, LostError, On, Reply, Seen, refuse

ASGIMessage = MutableMapping[str, Any]


@dataclass
class Hang:
    """Requests in memory wait: `begun` when one does, until `over` is set."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class FakeServer(ABC):
    """See the module's docstring. `seen`: every request with the status the server gave it."""

    clock: HasNow

    def __init__(self, clock: HasNow) -> None:
        self.clock = clock
        self.seen: list[Seen] = []
        self.down = False
        self.hang: Hang | None = None
        self._faults = Faults()
        self._late: list[Call] = []

    def operation(self, method: str, path: str) -> str:
        """The name of what a request asks for."""
        return f"{method} {path}"

    @abstractmethod
    def answer(self, call: Call) -> Reply:
        """What the server does and answers."""

    # What goes wrong.

    def disturb(self, fault: Fault, *, on: On = None, times: int | None = 1) -> None:
        """Script a fault for the next `times` requests that match `on` (None: for ever); earlier rules go first."""
        self._faults.add(fault, on, times)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self._faults.clear()
        self.down = False

    @property
    def faults_pending(self) -> int:
        """Rules that still wait for their request; 0 shows that a test met every fault that it scripted."""
        return self._faults.pending

    def land(self) -> None:
        """Requests that were kept back in limbo take effect now."""
        late, self._late = self._late, []
        for call in late:
            self._handle(call)

    # What was asked.

    def calls(self, op: str) -> list[Seen]:
        """Every request of one operation, those that never arrived included."""
        return [seen for seen in self.seen if seen.call.op == op]

    # The way in.

    def transport(self) -> httpx.AsyncBaseTransport:
        """An httpx transport that ends here, faults and all."""
        return _Transport(self)

    def exchange(self, call: Call) -> Reply:
        """One request, with whatever goes wrong with it. Raises LostError when the sender gets no answer."""
        fault = refuse() if self.down else self._faults.take(call)
        if fault is None:
            return self._handle(call)
        if fault.action is not None:
            fault.action()
        reply = self._handle(call) if fault.reaches == "now" else None
        if reply is None:
            self.seen.append(Seen(call, None, self.clock.now()))
        if fault.reaches == "late":
            self._late.append(call)
        if fault.lost is not None:
            raise LostError(fault.lost)
        final = fault.reply or reply
        assert final is not None, "a fault either loses the request, answers it, or lets it through"
        return final

    async def __call__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[ASGIMessage]],
        send: Callable[[ASGIMessage], Awaitable[None]],
    ) -> None:
        """ASGI, for a real server in front: a timeout hangs until the client leaves, other losses become a 502."""
        if scope["type"] != "http":
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        try:
            query = scope["query_string"].decode()
            reply = self.exchange(self._call(scope["method"], scope["path"], query, headers, raw))
        except LostError as lost:
            while lost.how == "timeout":
                if (await receive())["type"] == "http.disconnect":
                    return
            reply = Reply(502, "")
        status, sent, body = reply.raw()
        encoded = [(name.encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    def _handle(self, call: Call) -> Reply:
        reply = self.answer(call)
        self.seen.append(Seen(call, reply.status, self.clock.now()))
        return reply

    def _call(self, method: str, path: str, query: str, headers: Mapping[str, str], raw: bytes) -> Call:
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = raw.decode(errors="replace")
        return Call(self.operation(method, path), method, path, dict(parse_qsl(query)), headers, body)


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raw = await request.aread()
        # Other tasks get their turn here, as they would while a real answer is on its way.
        await asyncio.sleep(0)
        if self._fake.hang is not None:
            self._fake.hang.begun.set()
            await self._fake.hang.over.wait()
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            reply = self._fake.exchange(self._fake._call(request.method, unquote(path), query, headers, raw))
        except LostError as lost:
            raise lost.as_httpx(request) from None
        status, sent, body = reply.raw()
        return httpx.Response(status, headers=sent, content=body, request=request)
