"""Bring what the journal holds to the server: in order per stream, in the background, at exit, or when asked."""

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from mlflow_spool.breaker import Breaker
from mlflow_spool.errors import Refused, TransportError
from mlflow_spool.files import Files
from mlflow_spool.joining import Batch, joined
from mlflow_spool.journal import Journal
from mlflow_spool.locks import locked
from mlflow_spool.records import ONCE, Answer, Kind, Record, references
from mlflow_spool.replay import HEALTH, Done, Later, Never, Outcome, Server, Waits, drive, finding, is_well, replay
from mlflow_spool.uploads import RATE, Uploader, send_file

log = logging.getLogger("mlflow_spool")
IDLE = 30.0  # seconds between two looks for what other processes left behind
RETRY = 1.0  # seconds until what waits for something else than the server is tried again
STUBBORN = 12  # attempts answered with 500 by a server that is well otherwise, before a record is set aside
LONGEST_PAUSE = 300.0  # seconds between two attempts of a record that is answered with 500
STRANGER_PATIENCE = 86_400.0  # seconds that a record waits for a run that another machine's journal holds
LOOK = 10.0  # seconds between two looks for what the gateway or another machine creates
KEEP_DELIVERED = 86_400.0  # seconds that reads are answered from what was delivered


@dataclass(frozen=True)
class Clock:
    """Time as the spool reads it: `now` milliseconds since 1970 (UTC), `monotonic` seconds; `pause` waits seconds."""

    now: Callable[[], int]
    monotonic: Callable[[], float]
    pause: Callable[[float], None]


class Target(Server, Uploader, Protocol):
    """MLflow, with the artifact store behind it."""


class Drainer:
    """Delivers the records of one journal to one server."""

    def __init__(
        self,
        journal: Journal,
        files: Files,
        target: Target,
        breaker: Breaker,
        lock_file: Path,
        clock: Clock,
        settle: float,
    ) -> None:
        self._journal = journal
        self._files = files
        self._server = target
        self._breaker = breaker
        self._lock_file = lock_file
        self._clock = clock
        self._patience = settle  # seconds after an attempt with unknown end
        self._look_after: dict[str, float] = {}  # local id -> monotonic seconds, of those that others create
        self._not_before: dict[str, float] = {}  # stream -> monotonic seconds, after answers of 500

    def now_or_never(self, record: Record, timeout: float) -> Done | None:
        """Deliver a record just written down, for a caller who waits; None when it stays for the background.

        timeout: seconds. Raises Refused when the server says no: the caller is told, so the record is forgotten.
        """
        with locked(self._lock_file, record.stream, wait=timeout) as ours:
            if not ours or self._journal.is_behind(record.stream, record.seq):
                return None
            fresh = replace(record, attempted_at=None)
            outcome = self._send(fresh, timeout, told=False)
            if isinstance(outcome, Never):
                self._breaker.succeeded()
                self._settle(record, outcome)
                raise Refused(outcome.answer.status, outcome.answer.body)
            self._note(record, outcome)
            return outcome if isinstance(outcome, Done) else None

    def step(self, timeout: float) -> bool:
        """One round over all streams, as far as the server goes along. True: something was delivered.

        timeout: seconds a request.
        """
        if self._breaker.is_open and not self.probe(min(timeout, 5.0)):
            return False
        delivered = False
        for stream in self._journal.pending_streams():
            if self._not_before.get(stream, 0.0) > self._clock.monotonic():
                continue
            delivered = self._stream(stream, timeout) or delivered
            if self._breaker.is_open:
                break
        return delivered

    def has_pending(self) -> bool:
        """Whether anything waits."""
        return bool(self._journal.pending_streams())

    def probe(self, timeout: float) -> bool:
        """Ask the server whether it is well, and tell the breaker. timeout: seconds."""
        try:
            answer = self._server.send(HEALTH, timeout)
        except TransportError:
            self._breaker.failed()
            return False
        if not is_well(answer):
            self._breaker.failed(answer.retry_after)
            return False
        self._breaker.succeeded()
        return True

    def _stream(self, stream: str, timeout: float) -> bool:
        delivered = False
        with locked(self._lock_file, stream) as ours:
            while ours:
                records = self._journal.pending(stream)
                for batch in joined(records):
                    if not self._together(batch, timeout):
                        return delivered
                    delivered = True
                ours = bool(records)
        return delivered

    def _together(self, batch: Batch, timeout: float) -> bool:
        """Whether the stream goes on after these records."""
        if len(batch.records) == 1:
            return self._deliver(batch.records[0], timeout)
        first = batch.records[0]
        outcome = self._send(replace(first, call=batch.call), timeout)
        if isinstance(outcome, Done):
            self._breaker.succeeded()
            self._journal.settle(batch.records)
            return True
        if isinstance(outcome, Later) and outcome.unwell:
            return self._note(first, outcome)
        # One of them may be what the server does not take: alone, each shows what it is.
        return all(self._deliver(record, timeout) for record in batch.records)

    def upload_now(self, record: Record, file: Path, timeout: float) -> bool:
        """Upload a file for a caller who waits, without keeping it; False when that cannot be done now.

        timeout: seconds, and more for a large file. Raises Refused.
        """
        with locked(self._lock_file, record.stream, wait=timeout) as ours:
            if not ours or self._journal.pending(record.stream, 1):
                return False
            if file.stat().st_size > RATE and not self.probe(timeout):
                return False
            outcome = self._upload(record, file, timeout)
        if isinstance(outcome, Never):
            raise Refused(outcome.answer.status, outcome.answer.body)
        if isinstance(outcome, Later) and outcome.unwell:
            self._breaker.failed(outcome.retry_after)
        return isinstance(outcome, Done)

    def _deliver(self, record: Record, timeout: float) -> bool:
        """Whether the next record of its stream may go."""
        now = self._clock.now()
        if (
            record.attempted_at is not None
            and now - record.attempted_at < self._patience * 1000
            and record.kind in ONCE
        ):
            return False
        if record.kind is Kind.VERSION and self._is_incomplete(record):
            return False
        if record.kind in ONCE:
            self._journal.attempting([record], now)
        outcome = self._send(record, timeout)
        if isinstance(outcome, Waits) and self._found(outcome.tokens, timeout):
            outcome = self._send(record, timeout)
        if isinstance(outcome, Waits):
            return self._forsaken(record, outcome)
        return self._note(record, outcome)

    def _send(self, record: Record, timeout: float, *, told: bool = True) -> Outcome:
        if record.kind is Kind.ARTIFACT:
            return self._upload(record, self._files.find(record.key), timeout)
        return replay(record, self._server, self._journal.name_of, timeout, told=told)

    def _upload(self, record: Record, file: Path | None, timeout: float) -> Outcome:
        outcome = send_file(record, file, self._server, self._journal.name_of, timeout)
        if isinstance(outcome, Later) and outcome.suspect and not self.probe(timeout):
            return replace(outcome, unwell=True, suspect=False)
        return outcome

    def _settle(self, record: Record, outcome: Done | Never) -> None:
        self._journal.settle([record], outcome.learned if isinstance(outcome, Done) else ())
        if record.kind is Kind.ARTIFACT:
            self._files.drop(record.key)

    def _is_incomplete(self, record: Record) -> bool:
        """Whether files of the model to be registered still wait."""
        body = record.call.body
        named = {str(body.get(name)) for name in ("run_id", "model_id") if body.get(name)} | references(record.call)
        owners = named | {token for name in named if (token := self._journal.token_of(name))}
        streams = (f"{noun}:{one}" for one in owners for noun in ("artifacts", "logged-model"))
        return any(self._journal.is_behind(stream, record.seq) for stream in streams)

    def _found(self, tokens: frozenset[str], timeout: float) -> bool:
        """Whether the server has some of what somebody else was to create: the gateway, or another machine."""
        learned: list[tuple[str, str]] = []
        now = self._clock.monotonic()
        for token in sorted(tokens):
            if token.startswith("version:") or self._look_after.get(token, 0.0) > now:
                continue
            if self._journal.holds(token) and not self._journal.is_handed(token):
                continue
            self._look_after[token] = now + LOOK
            try:
                learned += drive(finding(token), lambda call: self._server.send(call, timeout))
            except TransportError:
                self._breaker.failed()
                break
            except Refused:
                continue
        self._journal.learn(learned)
        return bool(learned)

    def _forsaken(self, record: Record, outcome: Waits) -> bool:
        lost = [token for token in outcome.tokens if self._journal.is_aside(token)]
        if lost:
            self._aside(record, f"it needs {', '.join(lost)}, which was set aside")
            return True
        strange = [token for token in outcome.tokens if not self._journal.holds(token)]
        if strange and self._clock.now() - record.made_at > STRANGER_PATIENCE * 1000:
            self._aside(record, f"it needs {', '.join(strange)}, which this machine's journal never held")
            return True
        return False

    def _note(self, record: Record, outcome: Outcome) -> bool:
        if isinstance(outcome, Done):
            self._breaker.succeeded()
            self._settle(record, outcome)
            return True
        if isinstance(outcome, Never):
            self._breaker.succeeded()
            self._aside(record, _said(outcome.answer))
            return True
        if isinstance(outcome, Later):
            if outcome.unwell:
                self._breaker.failed(outcome.retry_after)
            attempts = self._journal.failed(record, outcome.reason, maybe=outcome.maybe)
            if not outcome.unwell:
                return self._stubborn(record, attempts, outcome)
        return False

    def _stubborn(self, record: Record, attempts: int, outcome: Later) -> bool:
        """The server is well otherwise: this stream waits longer and longer. It may pass, or be the record's fault."""
        if outcome.suspect and attempts >= STUBBORN:
            self._aside(record, outcome.reason)
            return True
        pause = random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, 2.0 ** min(attempts, 10))
        self._not_before[record.stream] = self._clock.monotonic() + pause
        return False

    def tidy(self) -> None:
        """Drop what was delivered long ago, and copies of files whose records are gone."""
        self._journal.forget_delivered(self._clock.now() - int(KEEP_DELIVERED * 1000))
        for key in self._files.orphans():
            if not self._journal.waits(key):
                self._files.drop(key)

    def _aside(self, record: Record, problem: str) -> None:
        self._journal.set_aside(record, problem)
        log.error("MLflow refused a spooled record for good (%s, %s): %s", record.kind.value, record.stream, problem)


def _said(answer: Answer) -> str:
    return f"{answer.status} {answer.body.get('error_code', '')}: {answer.body.get('message', '')}"


class Background:
    """A thread that drains while the process lives. It is started when there is something to do."""

    def __init__(self, drainer: Drainer, breaker: Breaker, timeout: float) -> None:
        self._drainer = drainer
        self._breaker = breaker
        self._timeout = timeout
        self._work = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    def wake(self) -> None:
        """There is something to deliver."""
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="mlflow-spool", daemon=True)
                self._thread.start()
        self._work.set()

    def stop(self) -> None:
        """No new round begins; a request under way is not waited for."""
        self._stop.set()
        self._work.set()

    def _tidy(self) -> None:
        with suppress(Exception):  # It is only housekeeping, and the next round does it.
            self._drainer.tidy()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                busy = self._drainer.step(self._timeout)
            except Exception:
                log.exception("mlflow-spool could not look into its journal; it tries again")
                busy = False
            if busy:
                continue
            self._tidy()
            if self._breaker.is_open:
                self._stop.wait(self._breaker.wait() + 0.01)
            else:
                self._work.wait(RETRY if self._drainer.has_pending() else IDLE)
                self._work.clear()
