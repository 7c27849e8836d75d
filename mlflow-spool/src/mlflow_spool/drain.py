"""Bring what the journal holds to the server: in order per stream, one stream after another, as far as it goes along."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlflow_spool.breaker import Breaker
from mlflow_spool.delivery import Clock, Delivery, Target
from mlflow_spool.errors import Refused
from mlflow_spool.files import Files
from mlflow_spool.joining import Batch, joined
from mlflow_spool.journal import Journal
from mlflow_spool.locks import locked
from mlflow_spool.records import Record
from mlflow_spool.replay import Done, Later, Never
from mlflow_spool.uploads import RATE

KEEP_DELIVERED = 86_400.0  # seconds that reads are answered from what was delivered
#: Seconds for the next request. With 0 or less none is begun any more, in the midst of a stream too.
Allowed = Callable[[], float]


class Drainer:
    """Delivers the records of one journal to one server, each stream held while it is at it."""

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
        self._breaker = breaker
        self._lock_file = lock_file
        self._clock = clock
        self._delivery = Delivery(journal, files, target, breaker, clock, settle)

    def now_or_never(self, record: Record, timeout: float) -> Done | None:
        """Deliver a record just written down, for a caller who waits; None when it stays for the background, or somebody
        has delivered it already. timeout: seconds.

        Raises Refused when the server says no: the caller is told, so the record is forgotten.
        """
        # Behind others it waits for the background anyhow, and whoever delivers those holds the stream for long.
        wait = 0.0 if self._journal.is_behind(record.stream, record.seq) else timeout
        with locked(self._lock_file, record.stream, wait=wait) as ours:
            if not ours or not self._journal.is_next(record):
                return None
            fresh = replace(record, attempted_at=None)
            outcome = self._delivery.send(fresh, timeout, returned=False)
            if isinstance(outcome, Never):
                self._breaker.succeeded()
                self._delivery.settle(record, outcome)
                raise Refused(outcome.answer.status, outcome.answer.body)
            self._delivery.note(record, outcome)
            return outcome if isinstance(outcome, Done) else None

    def upload_now(self, record: Record, file: Path, timeout: float) -> bool:
        """Upload a file for a caller who waits, without keeping it; False when that cannot be done now.

        timeout: seconds, and more for a large file. Raises Refused.
        """
        with locked(self._lock_file, record.stream, wait=timeout) as ours:
            if not ours or self._journal.pending(record.stream, 1):
                return False
            if file.stat().st_size > RATE and not self.probe(timeout):
                return False
            outcome = self._delivery.upload(record, file, timeout)
        if isinstance(outcome, Never):
            raise Refused(outcome.answer.status, outcome.answer.body)
        if isinstance(outcome, Later) and outcome.unwell:
            self._breaker.failed(outcome.retry_after)
        return isinstance(outcome, Done)

    def step(self, allowed: Allowed) -> bool:
        """One round over all streams, as far as the server goes along and time allows. True: something was delivered."""
        if self._breaker.is_open and not self.probe(min(allowed(), 5.0)):
            return False
        delivered = False
        for stream in self._journal.pending_streams():
            if self._delivery.is_paused(stream):
                continue
            delivered = self._stream(stream, allowed) or delivered
            if self._breaker.is_open or allowed() <= 0:
                break
        return delivered

    def has_pending(self) -> bool:
        """Whether anything waits."""
        return self._journal.has_pending()

    def probe(self, timeout: float) -> bool:
        """Ask the server whether it is well, and tell the breaker. timeout: seconds."""
        return self._delivery.probe(timeout)

    def tidy(self) -> None:
        """Drop what was delivered long ago, and copies of files whose records are gone."""
        self._journal.forget_delivered(self._clock.now() - int(KEEP_DELIVERED * 1000))
        for key in self._files.orphans():
            if not self._journal.waits(key):
                self._files.drop(key)

    def _stream(self, stream: str, allowed: Allowed) -> bool:
        delivered = False
        with locked(self._lock_file, stream) as ours:
            while ours:
                records = self._journal.pending(stream)
                for batch in joined(records):
                    if not self._together(batch, allowed):
                        return delivered
                    delivered = True
                ours = bool(records)
        return delivered

    def _together(self, batch: Batch, allowed: Allowed) -> bool:
        """Whether the stream goes on after these records."""
        first = batch.records[0]
        if len(batch.records) > 1 and (timeout := allowed()) > 0:
            outcome = self._delivery.send(replace(first, call=batch.call), timeout)
            if isinstance(outcome, Done):
                self._breaker.succeeded()
                self._journal.settle(batch.records)
                return True
            if isinstance(outcome, Later) and outcome.unwell:
                return self._delivery.note(first, outcome)
            # One of them may be what the server does not take: alone, each shows what it is.
        return all((timeout := allowed()) > 0 and self._delivery.deliver(one, timeout) for one in batch.records)
