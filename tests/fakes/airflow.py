"""A fake Airflow 3, faithful to what Airflow 3.3.2 was measured to answer, and to nothing else.

    fake = FakeAirflow(clock)                      # clock: anything with now() -> aware datetime; no real time is used
    fake.add_dag("retrain_model")
    http = open_http(transport=fake.transport())   # in memory; or serve `fake` itself, it is an ASGI app
    client = AirflowClient(http, fake.url, PasswordAuth(fake.username, fake.password), clock)

What it knows
    add_dag / pause / unpause / break_dag / remove_dag / repair_dag / add_broken_file; `users`, `viewers` (may only
    read), `all_admins` (no token needed), `components` (what health says), expire_tokens / rotate_secret / mint.

The scheduler moves only when told: `start_run(id)`, `finish(id, state)`, `advance()` (starts what is queued and may
    run). With `auto_finish=timedelta(...)` runs start when they are posted (or unpaused) and end that much later by the
    clock, in the state that `outcome(run)` gives ("success"); this is worked out at every request, so nobody needs to
    call advance. Runs of a paused DAG, and all runs while `components["scheduler"]` is not "healthy", stay queued.

What goes wrong is scripted with `disturb(fault, on=..., times=...)`, see tests.fakes.faults for the faults, and with
    `down = True` (nobody listens). `on` is an operation: "login", "trigger", "run", "list_runs", "fail_run", "dag",
    "patch_dag", "import_errors", "health", "version", "unknown"; or a predicate on the Call; or None for every request.
    `calm()` ends it all. Requests that `limbo()` keeps back take effect with `land()`.

What tests assert on
    `posts`: the bodies of accepted triggers, in order: "exactly one POST" is len(fake.posts) == 1.
    `runs`: every DAG run by (dag_id, dag_run_id); `open_runs()`; `most_open`: the most runs ever open at once.
    `seen`: every request with the status the server gave it; `calls("trigger")`: those of one operation.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx

from tests.fakes.airflow_api import AirflowApi, operation
from tests.fakes.airflow_nouns import FakeDag, FakeRun, HasNow
from tests.fakes.airflow_state import AirflowState
from tests.fakes.faults import Call, Fault, Faults, LostError, On, Reply, Seen, refuse

__all__ = ["FakeAirflow", "FakeDag", "FakeRun"]

ASGIMessage = MutableMapping[str, Any]


class FakeAirflow(AirflowState):
    """See the module's docstring."""

    url = "http://airflow.test:8080"

    def __init__(
        self,
        clock: HasNow,
        *,
        auto_finish: timedelta | None = None,
        outcome: Callable[[FakeRun], str] = lambda _run: "success",
        all_admins: bool = False,
        token_life: timedelta = timedelta(hours=24),
    ) -> None:
        super().__init__(clock, auto_finish=auto_finish, outcome=outcome, all_admins=all_admins, token_life=token_life)
        self.seen: list[Seen] = []
        self.down = False
        self.most_open = 0
        self._api = AirflowApi(self)
        self._faults = Faults()
        self._late: list[Call] = []

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
            reply = self.exchange(_call(scope["method"], scope["path"], scope["query_string"].decode(), headers, raw))
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
        if self.auto_finish is not None:
            self.advance()
        reply = self._api.answer(call)
        self.most_open = max(self.most_open, len(self.open_runs()))
        self.seen.append(Seen(call, reply.status, self.clock.now()))
        return reply


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, fake: FakeAirflow) -> None:
        self._fake = fake

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raw = await request.aread()
        # Other tasks get their turn here, as they would while a real answer is on its way.
        await asyncio.sleep(0)
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            reply = self._fake.exchange(_call(request.method, unquote(path), query, headers, raw))
        except LostError as lost:
            raise lost.as_httpx(request) from None
        status, sent, body = reply.raw()
        return httpx.Response(status, headers=sent, content=body, request=request)


def _call(method: str, path: str, query: str, headers: Mapping[str, str], raw: bytes) -> Call:
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = raw.decode(errors="replace")
    return Call(operation(method, path), method, path, dict(parse_qsl(query)), headers, body)
