"""The delivery of records to MLflow: one attempt at a stream, with the spool's own code for the replay.

An attempt delivers the records of the stream in order, for at most half of its time. A record that MLflow refuses for good
is set aside with the reason, and the rest goes on. So is a record that breaks our own code a few times. After any other
trouble the stream waits, and no record is given up.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.clock import Clock, monotonic
from app.kit.db import OF_THE_DATABASE, is_about_rows, transaction
from app.kit.errors import Ambiguous, GatewayError, OutOfFiles, Refused, Rejected, Unreachable
from app.kit.mlflow.client import Mlflow
from app.kit.outbox.model import Delivered, Item, Outcome, Retry
from app.kit.outbox.relay import Destination
from app.lineage import record_store as store
from app.lineage.mlflow_client import MlflowOf
from app.lineage.model import Place
from app.policy.core import Core
from mlflow_spool.errors import NoAnswer, NotSent, SpoolError, TransportError
from mlflow_spool.joining import Batch, joined
from mlflow_spool.patience import DOUBT, cause_of, is_hopeless
from mlflow_spool.questions import Steps, is_up, lets_in
from mlflow_spool.records import ONCE, Answer, Call, Record, ids_in
from mlflow_spool.replay import Done, Later, Never, Waits, finding, replaying

log = logging.getLogger(__name__)

PAGE = 1000  # records that one attempt reads
SETTLE = 5.0  # seconds from a creation with an unknown end until MLflow is searched for its result
#: A record waits this long for an id that no record here creates and that MLflow does not know. Then it is set aside.
STRANGER_PATIENCE = timedelta(days=1)

#: A record that breaks the delivery's own code so often is set aside. It can be sent again after the next upgrade.
MOST_BREAKS = 3

#: Sends one request to MLflow and returns its answer, whatever the status. Raises TargetError.
Send = Callable[[Call], Awaitable[Answer]]


def sending(mlflow: Mlflow, clock: Clock) -> Send:
    """A function that sends the requests of the spool's code to this MLflow."""

    async def send(call: Call) -> Answer:
        body, params = (None, call.body) if call.method == "GET" else (call.body or None, None)
        raw = await mlflow.send(call.method, call.path, body, params)
        content = raw.body if isinstance(raw.body, dict) else {"message": str(raw.body)[:500]}
        return Answer(raw.status, content, raw.retry_after(clock.now()))

    return send


async def drive(steps: Steps[Any], send: Send) -> Any:
    """Run `steps` of the spool's code, await each of its requests, and return what the steps return."""
    try:
        call = next(steps)
        while True:
            try:
                answer = await _sent(call, send)
            except TransportError as error:
                call = steps.throw(error)
            else:
                call = steps.send(answer)
    except StopIteration as end:
        return end.value


async def _sent(call: Call, send: Send) -> Answer:
    """Send a call, and translate our errors into the spool's. A Rejected call could not be sent: the record is at fault."""
    try:
        return await send(call)
    except OutOfFiles:  # It says nothing of MLflow, nor of the record.
        raise
    except (Unreachable, Refused) as error:  # Refused: our own fault, such as a login that cannot be read.
        raise NotSent(error.detail) from None
    except Ambiguous as error:
        raise NoAnswer(error.detail) from None
    except Rejected as error:
        return Answer(400, {"error_code": error.code, "message": error.detail})


def _is_of_a_record(error: Exception) -> bool:
    """Whether an unexpected error is the fault of a record: it is none of our database or of this machine."""
    return is_about_rows(error) or not isinstance(error, (*OF_THE_DATABASE, MemoryError, GatewayError))


class Delivery(Destination):
    """Delivers the records of a stream to MLflow. time: seconds of an attempt."""

    kind = store.KIND

    def __init__(self, core: Core, mlflow: MlflowOf, *, time: float) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._mlflow = mlflow
        self._time = time / 2  # the rest of an attempt is for the requests that begin last
        self._longest = time / 3  # of one request

    async def deliver(self, item: Item) -> Outcome:
        """One attempt at a stream."""
        stream, place = item.payload["stream"], store.place_of(item.payload)
        try:
            mlflow = self._mlflow.at(place)
        except Refused as error:
            async with transaction(self._engine) as conn:
                await store.note(conn, stream, place, error.detail)
            return Retry("login", error.detail, waits=True, own=True, after=30)  # MLflow was not asked.
        if mlflow is None:
            return Retry("no_mlflow", "the policy has no `mlflow`", waits=True, own=True, after=30)
        send = self._within(sending(mlflow, self._clock))
        try:
            return await self._page(stream, place, PAGE, send)
        except Exception as error:
            if not _is_of_a_record(error):
                raise
            log.exception("the delivery of a stream broke: its records are sent one by one", extra={"stream": stream})
        try:
            return await self._page(stream, place, 1, send)
        except Exception as error:
            if not _is_of_a_record(error):
                raise
            return await self._broke(stream, place, error)

    async def _page(self, stream: str, place: Place, most: int, send: Send) -> Outcome:
        """Deliver the first `most` records of a stream, as far as they go and the time of an attempt allows."""
        async with self._engine.connect() as conn:
            records = await store.pending(conn, stream, place, most)
            names = await store.names_for(conn, records)
        end = monotonic() + self._time
        progress = False
        for batch in joined(records):
            trouble = await self._together(batch, names, send)
            if trouble is not None:
                return replace(trouble, answered=True, own=False, progress=True) if progress else trouble
            progress = True
            if monotonic() > end:
                break
        return Delivered(None)

    async def _broke(self, stream: str, place: Place, error: Exception) -> Outcome:
        """The first record of a stream broke our own code. That says nothing of MLflow."""
        problem = f"the gateway cannot deliver it: {type(error).__name__}. Its log has the error"
        async with transaction(self._engine) as conn:
            row = await store.broke(conn, stream, place, problem, MOST_BREAKS)
        if row is None or row["state"] == "pending":
            return Retry("error", problem, answered=False, own=True)
        self._tell_aside(row, problem)
        return Delivered(None)

    async def answers(self, item: Item) -> bool | None:
        """Whether MLflow lets us in. The relay asks when an attempt at a stream took too long."""
        try:
            mlflow = self._mlflow.at(store.place_of(item.payload))
        except Refused:
            return False
        if mlflow is None:
            return False
        try:
            return bool(await drive(lets_in(), sending(mlflow, self._clock)))
        except SpoolError:
            return False

    def _within(self, send: Send) -> Send:
        """The same, but no request takes more than its part of an attempt. Otherwise a record whose request hangs would end
        every attempt in the middle, and nobody could count that."""

        async def bounded(call: Call) -> Answer:
            try:
                async with asyncio.timeout(self._longest):
                    return await send(call)
            except TimeoutError:
                raise Ambiguous("timeout", "MLflow did not answer in time") from None

        return bounded

    async def settled(self, conn: AsyncConnection, item: Item, outcome: Outcome, now: datetime) -> None:
        """Keep a stream pending that still has records."""
        if isinstance(outcome, Delivered):
            await store.wake_again(conn, item.id, item.payload["stream"], now, store.place_of(item.payload))

    async def _together(self, batch: Batch, names: dict[str, str], send: Send) -> Retry | None:
        """Deliver a batch. None: the stream goes on after it."""
        if len(batch.records) == 1:
            return await self._one(batch.records[0], names, send)
        first = batch.records[0]
        outcome = await self._tried(replace(first, call=batch.call), names, send)
        if isinstance(outcome, Done):
            await self._done(batch.records, outcome, names)
            return None
        if isinstance(outcome, Later) and outcome.unwell:
            return await self._judge(first, outcome, names, send)
        for record in batch.records:  # Only one of them may be refused, or wait. Each is sent alone to find it.
            trouble = await self._one(record, names, send)
            if trouble is not None:
                return trouble
        return None

    async def _one(self, record: Record, names: dict[str, str], send: Send) -> Retry | None:
        now = int(self._clock.now().timestamp() * 1000)
        if record.kind in ONCE:
            settled_in = (record.attempted_at or 0) / 1000 + SETTLE - now / 1000
            if record.attempted_at is not None and settled_in > 0:
                problem = "the result of a request is not known yet"
                return Retry("settling", problem, waits=True, own=True, after=settled_in)
            async with transaction(self._engine) as conn:
                await store.attempting(conn, record, now)
        return await self._judge(record, await self._tried(record, names, send), names, send)

    async def _tried(self, record: Record, names: dict[str, str], send: Send) -> Done | Later | Waits | Never:
        """Make one attempt at a record."""
        outcome = await drive(replaying(record, names.get), send)
        found: Done | Later | Waits | Never = await drive(cause_of(record, outcome), send)
        return found

    async def _judge(
        self, record: Record, outcome: Done | Later | Waits | Never, names: dict[str, str], send: Send
    ) -> Retry | None:
        match outcome:
            case Done():
                await self._done((record,), outcome, names)
                return None
            case Never():
                content = outcome.answer.body
                problem = f"{outcome.answer.status} {content.get('error_code', '')}: {content.get('message', '')}"
                await self._aside(record, problem)
                return None
            case Waits():
                return await self._wait(record, outcome, names, send)
        async with transaction(self._engine) as conn:
            most = DOUBT if outcome.unwell else None
            attempts = await store.failed(conn, record, outcome.reason, maybe=outcome.maybe, most=most)
        age = self._clock.now().timestamp() - record.made_at / 1000
        if is_hopeless(outcome, attempts, age):
            await self._aside(record, outcome.reason)
            return None
        code = "away" if outcome.unwell else "server_error" if outcome.suspect or outcome.alone else "login"
        return Retry(code, outcome.reason, answered=not outcome.unwell, after=outcome.retry_after)

    async def _done(self, records: tuple[Record, ...], outcome: Done, names: dict[str, str]) -> None:
        names.update(outcome.learned)
        # A version's local number is short. Within its model it counts alone, whatever was made of another model.
        own = [
            (f"{token}@{records[0].stream}", name) for token, name in outcome.learned if token.startswith("version:")
        ]
        async with transaction(self._engine) as conn:
            await store.delivered(conn, records)
            await store.learn(conn, [*outcome.learned, *own], self._clock.now())
        self._metrics.metadata_records.labels("delivered").inc(len(records))

    async def _aside(self, record: Record, problem: str) -> None:
        async with transaction(self._engine) as conn:
            await store.set_aside(conn, record, problem)
        self._tell_aside({"key": record.key, "stream": record.stream, "kind": record.kind.value}, problem)

    def _tell_aside(self, row: Mapping[str, Any], problem: str) -> None:
        self._metrics.metadata_records.labels("aside").inc()
        extra = {name: row[name] for name in ("key", "stream", "kind")} | {"problem": problem[:500]}
        log.error("a record was set aside", extra=extra)

    async def _find(self, token: str, send: Send) -> tuple[tuple[str, str], ...] | None:
        """Search MLflow for a local id. None: MLflow did not answer."""
        try:
            if token.startswith("version:"):  # Its number is only a part of its key, which is not enough for a search.
                return () if await drive(is_up(), send) else None
            found: tuple[tuple[str, str], ...] = await drive(finding(token), send)
        except SpoolError:
            return None
        return found

    async def _wait(self, record: Record, outcome: Waits, names: dict[str, str], send: Send) -> Retry | None:
        """Handle a record with ids that do not exist yet. The records that create them show whether they can still come."""
        async with self._engine.connect() as conn:
            makers = await store.makers(conn, outcome.tokens)
        strange = sorted(outcome.tokens - makers.keys())
        answered = True
        for token in strange:
            # The machine that made the id may have delivered its record itself.
            learned = await self._find(token, send)
            answered = answered and learned is not None
            if learned:
                names.update(learned)
                async with transaction(self._engine) as conn:
                    await store.learn(conn, learned, self._clock.now())
                return Retry("found", f"MLflow has {token} now", waits=True, after=0.1)
        texts = set(strange) - ids_in(record.call)
        if answered and texts == outcome.tokens:
            # Nobody made them: it is a text of the user that looks like a local id.
            plain = await drive(replaying(record, names.get, is_local=lambda token: token not in texts), send)
            return await self._judge(record, plain, names, send)
        lost = sorted(token for token, state in makers.items() if state == "aside")
        if lost:
            await self._aside(record, f"it needs {', '.join(lost)}, which was set aside")
            return None
        if strange:
            now = self._clock.now()
            async with transaction(self._engine) as conn:
                since = await store.missing(conn, record, now if answered else None)
            if since is not None and now - since > STRANGER_PATIENCE:
                await self._aside(record, f"it needs {', '.join(strange)}, which was never handed over")
                return None
        waited = ", ".join(sorted(outcome.tokens))
        detail, after = f"{waited} has not been created yet", 30.0 if strange else 1.0
        return Retry("waits", detail, answered=answered, own=not strange, waits=True, after=after)
