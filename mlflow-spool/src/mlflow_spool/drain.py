"""Bring what the journal holds to the server: in order within a stream, one stream after another, as far as it is taken."""

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
from mlflow_spool.shelf import Shelf
from mlflow_spool.stores import PATIENCE
from mlflow_spool.uploads import RATE, lane

KEEP_DELIVERED = 86_400.0  # seconds for which reads are answered from what was delivered
TURN = 1.0  # seconds that training code waits for another upload of its run
#: Seconds for the next request. At 0 or less no request begins any more, in the middle of a stream too.
Allowed = Callable[[], float]


class Drainer:
    """Delivers the records of one journal to one server. It holds the lock of a stream meanwhile."""

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
        self._shelf = Shelf(journal, files)
        self._delivery = Delivery(journal, files, target, breaker, clock, settle)

    def now_or_never(self, record: Record, timeout: float) -> Done | None:
        """Deliver a record that was just written, for a caller that waits. timeout: seconds.

        None: the record stays for the background, or it was delivered already. Raises Refused when the server refuses; the
        record is settled then, since the caller knows.
        """
        # Behind other records it waits for the background anyway, and their delivery holds the stream for long.
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

    def patience(self, root: str, timeout: float) -> float | None:
        """For how many seconds training code waits for an upload below an artifact root; None when it does not wait.

        timeout: seconds for a store that is behind MLflow.
        """
        if self._breaker.is_open:
            return None
        real = self._shelf.real_root(root)
        if real is None or real.startswith("mlflow-artifacts:"):
            return timeout
        return max(timeout, PATIENCE) if self._delivery.is_at_hand(real) else None

    def upload_now(self, record: Record, file: Path, timeout: float) -> bool:
        """Upload a file for a caller that waits, without a copy that waits. False: that is not possible now.

        timeout: seconds, and more for a large file. Raises Refused.
        """
        with locked(self._lock_file, record.stream, wait=min(timeout, TURN)) as ours:
            if not ours or self._journal.pending(record.stream, 1):
                return False
            if file.stat().st_size > RATE and not self.probe(timeout):
                return False
            outcome = self._delivery.upload(record, file, timeout)
        if isinstance(outcome, Never):
            raise Refused(outcome.answer.status, outcome.answer.body)
        if isinstance(outcome, Later) and outcome.unwell:
            self._breaker.failed(outcome.retry_after)
        if isinstance(outcome, Done):
            self._shelf.note(str(record.call.body["root"]), str(record.call.body["path"]), file)
        return isinstance(outcome, Done)

    def step(self, allowed: Allowed) -> bool:
        """Make one round over all streams, as far as the server and the time allow. True: something was delivered."""
        if self._breaker.is_open and not self.probe(min(allowed(), 5.0)):
            return False
        delivered = False
        # Files are large, and their store may be away while MLflow is well. No metadata waits for those of a run.
        for stream in sorted(self._journal.pending_streams(), key=lambda name: name.startswith("artifacts:")):
            if self._delivery.is_paused(stream):
                continue
            delivered = self._stream(stream, allowed) or delivered
            if self._breaker.is_open or allowed() <= 0:
                break
        return delivered

    def behind(self, stream: str) -> list[str]:
        """The streams of that name, or whose names begin so (`run:`), with records that this machine should deliver now."""
        if not stream:
            return []
        noun, _, name = stream.partition(":")
        whole = f"{noun}:{self._journal.names.token_of(name) or name}" if name else stream
        waiting = (
            each for each in self._journal.pending_streams() if (each == whole if name else each.startswith(whole))
        )
        return [each for each in waiting if not self._delivery.is_paused(each)]

    def deliver(self, stream: str, allowed: Allowed) -> bool:
        """Deliver the records of one stream. False: nothing was delivered, or somebody else delivers it."""
        return self._stream(stream, allowed)

    def has_pending(self) -> bool:
        """Whether anything waits."""
        return self._journal.has_pending()

    def probe(self, timeout: float) -> bool:
        """Ask whether the server is well, and set the breaker so. timeout: seconds."""
        return self._delivery.probe(timeout)

    def tidy(self) -> None:
        """Drop records that were delivered long ago, and copies of files without a record."""
        self._journal.forget_delivered(self._clock.now() - int(KEEP_DELIVERED * 1000))
        self._shelf.tidy()
        for key in self._files.orphans():
            if not self._journal.waits(key):
                self._files.drop(key)

    def _stream(self, stream: str, allowed: Allowed) -> bool:
        if stream.startswith("artifacts:"):
            return self._files_of(stream, allowed)
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

    def _files_of(self, stream: str, allowed: Allowed) -> bool:
        """Upload the files of a run. One that is not taken holds up only later files of the same path."""
        delivered = False
        with locked(self._lock_file, stream) as ours:
            more = ours
            while more:
                more, held = False, set[str]()
                for record in self._journal.pending(stream):
                    own = lane(record)
                    if own in held or self._delivery.is_paused(own):
                        held.add(own)
                        continue
                    if (timeout := allowed()) <= 0 or self._breaker.is_open:
                        return delivered
                    if self._delivery.deliver(record, timeout):
                        more = delivered = True
                    else:
                        held.add(own)
        return delivered

    def _together(self, batch: Batch, allowed: Allowed) -> bool:
        """Whether the stream goes on after these records."""
        first = batch.records[0]
        if len(batch.records) > 1 and (timeout := allowed()) > 0:
            outcome = self._delivery.send(replace(first, call=batch.call), timeout)
            outcome = self._delivery.cause_of(first, outcome, timeout)
            if isinstance(outcome, Done):
                self._breaker.succeeded()
                self._journal.settle(batch.records)
                return True
            if isinstance(outcome, Later) and outcome.unwell:
                return self._delivery.note(first, outcome)
            # The server may refuse only one of them: each is sent alone, to find it.
        return all((timeout := allowed()) > 0 and self._delivery.deliver(record, timeout) for record in batch.records)
