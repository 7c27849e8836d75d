"""Deliver one record of the journal, and note the outcome in it. The caller holds the lock of the record's stream."""

import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from mlflow_spool import quiet
from mlflow_spool.breaker import Breaker
from mlflow_spool.custody import AT_GATEWAY
from mlflow_spool.errors import Refused, TransportError
from mlflow_spool.files import Files
from mlflow_spool.journal import Journal
from mlflow_spool.patience import DOUBT, REFUSALS, cause_of, is_hopeless
from mlflow_spool.questions import drive, is_up, lets_in
from mlflow_spool.records import ONCE, Answer, Call, Kind, Record, references, translated
from mlflow_spool.replay import Done, Later, Never, Outcome, Server, Waits, finding, replay
from mlflow_spool.shelf import Shelf
from mlflow_spool.uploads import Uploader, lane, send_file

LONGEST_PAUSE = 300.0  # seconds between two attempts of a record that the server answers with 500
STRANGER_PATIENCE = 86_400.0  # seconds that a record waits for a run that another machine's journal holds
LOOK = 10.0  # seconds between two searches for what the gateway or another machine creates


@dataclass(frozen=True)
class Clock:
    """Time as the spool reads it."""

    now: Callable[[], int]  # milliseconds since 1970, UTC
    monotonic: Callable[[], float]  # seconds
    pause: Callable[[float], None]  # waits so many seconds


class Target(Server, Uploader, Protocol):
    """MLflow, with the artifact store behind it."""

    def abandon(self) -> None:
        """End every request that is under way, in whatever thread. It gets no answer."""
        ...


class Delivery:
    """Delivers records of one journal to one server.

    settle: seconds after an attempt to create with an unknown end, before the next attempt.
    """

    def __init__(
        self, journal: Journal, files: Files, target: Target, breaker: Breaker, clock: Clock, settle: float
    ) -> None:
        self._journal = journal
        self._files = files
        self._shelf = Shelf(journal, files)
        self._server = target
        self._breaker = breaker
        self._clock = clock
        self._settle_seconds = settle
        self._look_after: dict[str, float] = {}  # local id that others create -> monotonic seconds of the next search
        self._sought: set[str] = set()  # the local ids whose last search the server answered
        self._refusals: Counter[str] = Counter()  # key -> answers of a proxy in a row
        self._unclear: dict[str, float] = {}  # key -> monotonic seconds of the last attempt with an unknown end
        self._not_before: dict[str, float] = {}  # lane -> monotonic seconds, after answers of 500

    def is_paused(self, lane_or_stream: str) -> bool:
        """Whether the server, though well otherwise, failed on a record of a lane a moment ago (see `lane`)."""
        return self._not_before.get(lane_or_stream, 0.0) > self._clock.monotonic()

    def probe(self, timeout: float) -> bool:
        """Ask whether the server is well, and set the breaker so. timeout: seconds of each request."""
        answers: list[Answer] = []

        def ask(call: Call) -> Answer:
            answers.append(self._server.send(call, timeout))
            return answers[-1]

        doubts = self._breaker.doubts_pulse
        try:
            there = drive(is_up(doubts_pulse=doubts), ask)
        except TransportError:
            there = False
        if not there:
            self._breaker.failed(answers[-1].retry_after if answers else None)
            return False
        self._breaker.succeeded(by_pulse=not doubts and len(answers) == 1)
        return True

    def deliver(self, record: Record, timeout: float) -> bool:
        """Deliver one record. True: the next record of its stream may go. timeout: seconds of each request."""
        now = self._clock.now()
        if record.kind in ONCE and self._settles(record, now):
            return False
        if record.kind is Kind.VERSION and self._is_incomplete(record):
            return False
        if record.kind in ONCE:
            self._journal.attempting([record], now)
        outcome = self.send(record, timeout)
        if isinstance(outcome, Waits) and self._found(outcome.tokens, timeout):
            outcome = self.send(record, timeout)
        if isinstance(outcome, Waits):
            return self._forsaken(record, outcome)
        return self.note(record, self.cause_of(record, outcome, timeout))

    def cause_of(self, record: Record, outcome: Outcome, timeout: float) -> Outcome:
        """The same outcome, or that the record alone gets no answer. timeout: seconds."""
        return drive(cause_of(record, outcome), lambda call: self._server.send(call, timeout))

    def send(self, record: Record, timeout: float, *, returned: bool = True) -> Outcome:
        """Make one attempt, and note nothing yet. timeout: seconds of each request; returned: see `replaying`."""
        if record.kind is Kind.ARTIFACT:
            return self.upload(record, self._files.find(record.key), timeout)
        names, made = self._journal.names.name_of, self._journal.made
        return replay(record, self._server, names, timeout, returned=returned, is_local=made)

    def upload(self, record: Record, file: Path | None, timeout: float) -> Outcome:
        """Make one attempt to upload a file, and note nothing yet."""
        names, made = self._journal.names.name_of, self._journal.made
        outcome = send_file(record, file, self._server, names, made, timeout)
        if isinstance(outcome, Later) and outcome.suspect and not self._is_there(timeout):
            return replace(outcome, unwell=True, suspect=False, refused=False)
        root = translated(record.call, names).body["root"]
        if isinstance(outcome, Later) and outcome.unwell and not root.startswith("mlflow-artifacts:"):
            return replace(outcome, unwell=False)  # Another store is away, not MLflow.
        return outcome

    def is_at_hand(self, root: str) -> bool:
        """See `Uploader`."""
        return self._server.is_at_hand(root)

    def settle(self, record: Record, outcome: Done | Never) -> None:
        """Note that nobody has to deliver the record any more."""
        self._unclear.pop(record.key, None)
        del self._refusals[record.key]
        self._journal.settle([record], outcome.learned if isinstance(outcome, Done) else ())
        if record.kind is Kind.ARTIFACT:
            body, file = record.call.body, self._files.find(record.key)
            if file is not None and isinstance(outcome, Done):
                self._shelf.note(str(body["root"]), str(body["path"]), file)
            self._files.drop(record.key)

    def note(self, record: Record, outcome: Outcome) -> bool:
        """Note the outcome of an attempt. True: the next record of the stream may go."""
        if isinstance(outcome, Done):
            self._breaker.succeeded()
            self.settle(record, outcome)
            return True
        if isinstance(outcome, Never):
            self._breaker.succeeded()
            status, body = outcome.answer.status, outcome.answer.body
            self._set_aside(record, f"{status} {body.get('error_code', '')}: {body.get('message', '')}")
            return True
        if isinstance(outcome, Later):
            if outcome.unwell:
                self._breaker.failed(outcome.retry_after)
            if outcome.maybe:
                self._unclear[record.key] = self._clock.monotonic()
            most = DOUBT if outcome.unwell else None
            attempts = self._journal.failed(record, outcome.reason, maybe=outcome.maybe, most=most)
            if outcome.refused:
                self._refusals[record.key] += 1
            else:
                del self._refusals[record.key]
            if not outcome.unwell:
                return self._stubborn(record, attempts, outcome)
        return False

    def _settles(self, record: Record, now: int) -> bool:
        """Whether a request of `record` with an unknown end may still be carried out.

        The clock of the machine may be set meanwhile, so that it counts only for attempts of other processes that are old
        by it. Otherwise a counter counts that never goes back, from when this process has known of the attempt.
        """
        if record.attempted_at is None:
            return False
        known = self._unclear.get(record.key)
        if known is None:
            if now - record.attempted_at >= self._settle_seconds * 1000:
                return False
            known = self._unclear[record.key] = self._clock.monotonic()
        return self._clock.monotonic() - known < self._settle_seconds

    def _is_there(self, timeout: float) -> bool:
        try:
            return drive(lets_in(), lambda call: self._server.send(call, timeout))
        except TransportError:
            return False

    def _stubborn(self, record: Record, attempts: int, outcome: Later) -> bool:
        """The server is well otherwise: the pauses of this stream grow. The trouble may pass, or the record is its cause."""
        age = (self._clock.now() - record.made_at) / 1000
        if self._refusals[record.key] >= REFUSALS or is_hopeless(outcome, attempts, age):
            self._set_aside(record, outcome.reason)
            return True
        pause = random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, 2.0 ** min(attempts, 10))
        pause = max(pause, min(outcome.retry_after or 0.0, LONGEST_PAUSE))
        self._not_before[lane(record)] = self._clock.monotonic() + pause
        return False

    def _is_incomplete(self, record: Record) -> bool:
        """Whether files of the model in a version's record still wait."""
        body = record.call.body
        named = {str(body.get(name)) for name in ("run_id", "model_id") if body.get(name)} | references(record.call)
        owners = named | {token for name in named if (token := self._journal.names.token_of(name))}
        streams = [f"{noun}:{owner}" for owner in sorted(owners) for noun in ("artifacts", "logged-model")]
        if any(self._journal.is_behind(stream, record.seq) for stream in streams):
            return True
        return bool(streams) and self._journal.siblings.is_waiting(streams, record.made_at)

    def _found(self, tokens: frozenset[str], timeout: float) -> bool:
        """Whether the server, or another journal here, has some of what others create under those local ids."""
        learned: list[tuple[str, str]] = []
        now = self._clock.monotonic()
        for token in sorted(tokens):
            if self._journal.state_of(token) is None and (name := self._journal.siblings.name_of(token)):
                learned.append((token, name))
                continue
            if token.startswith("version:") or self._look_after.get(token, 0.0) > now:
                continue
            if self._journal.state_of(token) not in {None, *AT_GATEWAY}:
                continue
            self._look_after[token] = now + LOOK
            self._sought.discard(token)
            try:
                learned += drive(finding(token), lambda call: self._server.send(call, timeout))
            except TransportError:
                self._breaker.failed()
                break
            except Refused:
                continue
            self._sought.add(token)
        self._journal.names.learn(learned)
        return bool(learned)

    def _forsaken(self, record: Record, outcome: Waits) -> bool:
        """Set the record aside if nobody will create what it names. True: it is aside."""
        lost = [token for token in outcome.tokens if self._journal.state_of(token) == "aside"]
        if lost:
            self._set_aside(record, f"it needs {', '.join(lost)}, which was set aside")
            return True
        # While the server is away, nobody knows what others have created meanwhile.
        sure = {token for token in outcome.tokens if token.startswith("version:") or token in self._sought}
        held = self._journal.siblings.made
        strange = sorted(token for token in sure if self._journal.state_of(token) is None and not held(token))
        if strange and self._clock.now() - record.made_at > STRANGER_PATIENCE * 1000:
            self._set_aside(record, f"it needs {', '.join(strange)}, which this machine's journal never held")
            return True
        return False

    def _set_aside(self, record: Record, problem: str) -> None:
        self._journal.set_aside(record, problem)
        del self._refusals[record.key]
        message = "MLflow refused a spooled record for good (%s, %s): %s"
        quiet.note(logging.ERROR, message, record.kind.value, record.stream, problem)
