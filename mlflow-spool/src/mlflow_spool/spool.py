"""MLflow's REST API with a journal before it. The plugin's stores use only `Spool.call`."""

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow_spool import family, quiet
from mlflow_spool.answers import answer_write
from mlflow_spool.asking import PAUSE, Asking, Unanswerable
from mlflow_spool.background import RETRY, Background
from mlflow_spool.breaker import Breaker
from mlflow_spool.certificate import Certificate, certifying, gather
from mlflow_spool.custody import AT_GATEWAY
from mlflow_spool.delivery import Clock, Target
from mlflow_spool.drain import Drainer
from mlflow_spool.errors import Offline, Refused, SpoolFull, TransportError
from mlflow_spool.files import Files, names_local_ids
from mlflow_spool.forks import Guard
from mlflow_spool.gateway import Gateway, Taker
from mlflow_spool.handover import HandOver
from mlflow_spool.journal import Journal
from mlflow_spool.knowledge import Knowledge
from mlflow_spool.locks import prepare
from mlflow_spool.questions import drive
from mlflow_spool.records import Answer, Call, Kind, Record, concerns, draft, is_repeatable, needed, new_key, translated
from mlflow_spool.settings import Settings, user_in, with_login, without_login
from mlflow_spool.shelf import Shelf
from mlflow_spool.uploads import FILES, artifact
from mlflow_spool.watchdog import Watchdog

log = logging.getLogger("mlflow_spool")


def system_clock() -> Clock:
    """The machine's clocks. Deliveries and the breaker read no others."""
    return Clock(now=lambda: time.time_ns() // 1_000_000, monotonic=time.monotonic, pause=time.sleep)


def journal_folder(settings: Settings, uri: str) -> Path:
    """The folder with the journal of the server at `uri`. Each server has its own, and each login and workspace there."""
    address, user = without_login(uri), settings.user or user_in(uri)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", address.partition("://")[2]).strip("-")[:60]
    whole = f"{address} {user}" if user else address
    whole += f" workspace {settings.workspace}" if settings.workspace else ""
    return settings.folder / f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def gateway_of(settings: Settings) -> Taker | None:
    """The gateway that takes over the records; None when there is none."""
    return Gateway(settings.gateway_url, settings.gateway_token) if settings.gateway_url else None


def of_journal(journal: Journal, settings: Settings) -> tuple[str, Settings]:
    """The address of a journal's server, with its login if the environment has it, and the settings with the journal's
    place."""
    uri, user, workspace = (journal.names.fact(name) or "" for name in ("uri", "user", "workspace"))
    return with_login(uri, user), replace(settings, user=user, workspace=workspace)


def lock_file(folder: Path) -> Path:
    """The lock file of the journal in `folder`: a stream is delivered or handed over under its lock."""
    return folder / "streams.lock"


_watchdog = Watchdog()


def _unwatched(_what: str) -> AbstractContextManager[None]:
    return nullcontext()


class Spool:
    """The spool of one server in this process. Every thread may use it, and a child of a fork."""

    def __init__(
        self,
        uri: str,
        target: Target,
        settings: Settings,
        clock: Clock,
        *,
        background: bool = True,
        taker: Taker | None = None,
    ) -> None:
        """background: deliver in a thread too; without it, only calls and `finish` deliver. taker: the gateway, instead of
        its address in the settings."""
        self.uri = without_login(uri)
        folder = journal_folder(settings, uri)
        self.journal = Journal(folder, settings.max_bytes, settings.spare)
        place = {"uri": self.uri, "user": settings.user or user_in(uri), "workspace": settings.workspace}
        for fact, value in place.items():
            if self.journal.names.fact(fact) != value:
                self.journal.names.remember(fact, value)
        self._server = target
        self._watching = _watchdog.watching if settings.debug else _unwatched
        self._settings = settings
        self._clock = clock
        prepare(lock_file(folder))
        self._breaker = Breaker(clock.monotonic)
        self._files = Files(folder / "files")
        self.shelf = Shelf(self.journal, self._files)
        self._drainer = Drainer(
            self.journal, self._files, target, self._breaker, lock_file(folder), clock, settings.settle
        )
        gateway = taker or gateway_of(settings)
        self._handover = HandOver(self.journal, gateway, lock_file(folder), clock) if gateway else None
        self._background = (
            Background(self._drainer, self._breaker, clock, settings.request_timeout) if background else None
        )
        self._late: set[str] = set()  # streams that reads have waited for in vain
        self.knowledge = Knowledge(self.journal)
        self.asking = Asking(target, self._drainer, self._breaker, clock, settings, self.wake)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make one call of the REST API; takes and returns JSON objects.

        On return a write is durable, delivered or not. Raises Refused (the server refuses), Offline (the server is away, and
        the journal cannot answer the read), SpoolFull (only with MLFLOW_SPOOL_STRICT).
        """
        quiet.speak()
        call = Call(method, path, body or {})
        record = draft(call, self._clock.now())
        with self._watching(f"{method} {path}"):
            return self._read(call) if record is None else self._write(self._homed(record))

    def put_file(self, root: str, path: str, file: Path) -> None:
        """Log `file` as the artifact `path` below `root`. On return it is uploaded, or kept for it.

        Raises Refused, OSError when it cannot be read, SpoolFull (only with MLFLOW_SPOOL_STRICT).
        """
        with self._watching(f"the upload of {path}"):
            self._put(root, path, file)

    def _put(self, root: str, path: str, file: Path) -> None:
        record = self._homed(artifact(new_key(), root, path, file.stat().st_size, self._clock.now()))
        wait = self._drainer.patience(root, self._settings.probe_timeout)  # seconds
        ready = not names_local_ids(file)
        if ready and wait is not None and self._drainer.upload_now(record, file, wait):
            return
        try:
            self.journal.make_room(0, int(record.call.body["bytes"]))
            self._files.keep(record.key, file)
            kept = self.journal.append(record)
        except SpoolFull as error:
            self._files.drop(record.key)
            instead = ready and wait is None and not self._breaker.is_open  # Nobody has waited for its store yet.
            if instead and self._drainer.upload_now(record, file, self._settings.request_timeout):
                return
            if self._settings.strict:
                raise
            log.error("mlflow-spool does not keep the artifact %s: %s", path, error)
            return
        if wait is None or self._drainer.now_or_never(kept, wait) is None:
            self.wake()

    def list_files(self, root: str, folder: str) -> list[dict[str, Any]]:
        """The files and folders directly below `folder` of an `mlflow-artifacts:` root, as MLflow shows them.

        Raises Refused, Offline.
        """
        path = "/".join(part for part in (urlsplit(root).path.strip("/"), folder) if part)
        with self._watching(f"the list of {path}"):
            found = self._read(Call("GET", FILES, {"path": path})).get("files", [])
        return [file for file in found if isinstance(file, dict) and isinstance(file.get("path"), str)]

    def fetch_file(self, root: str, path: str, target: Path) -> None:
        """Write the artifact `path` below `root` to `target`. Raises Refused, Offline."""
        with self._watching(f"the download of {path}"):
            self._fetch(root, path, target)

    def _fetch(self, root: str, path: str, target: Path) -> None:
        copy = self.shelf.find(root, path, uploaded=self._breaker.is_open)
        real = self.shelf.real_root(root)
        if copy is None and real is not None:
            found = self.asking.read(
                lambda: self.asking.ask(lambda limit: self._server.download(real, path, target, limit), again=True),
                lambda: self.shelf.find(root, path, uploaded=True),
            )
            if isinstance(found, Answer):
                if found.status >= 400:
                    raise Refused(found.status, found.body)
                return
            copy = found
        if copy is None:
            raise Offline(f"MLflow at {self.uri} is away, and the file {path} is not on this machine")
        shutil.copyfile(copy, target)

    def certificates(self) -> Iterator[Certificate]:
        """Certify every run whose creation this journal still holds. Raises Refused, Offline, TransportError."""
        for token in self.journal.inventory.runs():
            if self.journal.names.name_of(token) is None and self.journal.state_of(token) in AT_GATEWAY:
                self.knowledge.find_elsewhere(Call("GET", token), self.found)
            ids = [token, *filter(None, [self.journal.names.name_of(token)])]
            logged = gather(
                ids, self.journal.inventory.streams, self.journal.inventory.of_kind, self.journal.inventory.refused
            )
            steps = certifying(token, logged, self.journal.names.name_of)
            yield drive(steps, lambda call: self.asking.send(call, self._settings.request_timeout))

    def wake(self) -> None:
        """Let the thread look for what waits, also from processes that are gone."""
        if self._background is not None:
            self._background.wake()

    def finish(self, budget: float, *, patient: bool = False) -> int:
        """Deliver what is left within `budget` seconds; returns how many records still wait.

        patient: wait for a server that is away. Without it, a server that is away is asked once. Then the gateway gets what
        is left, for whatever reason, within `budget` seconds more.
        """
        if self._background is not None:
            self._background.stop()
        end = self._clock.monotonic() + budget
        if self._handover is None:
            self.journal.custody.take_back(self._clock.monotonic())
        self._drain(end, patient=patient)
        if self._handover is not None:
            if self._background is not None:
                self._server.abandon()  # Our thread may wait for MLflow for long. What it holds would stay here.
            # A patient caller stays here, so that the gateway only gets more of the streams that it has already.
            self._handover.run(budget, everything=not patient)
            if self.journal.custody.take_back(self._clock.monotonic()):
                self._drain(end, patient=patient)
        return self.journal.inventory.counts().pending

    def _drain(self, end: float, *, patient: bool) -> None:
        """Deliver until nothing waits, or `end` (monotonic seconds). Unless patient, stop when the server is away."""
        while (left := end - self._clock.monotonic()) > 0 and self._drainer.has_pending():
            if self._drainer.step(lambda: min(end - self._clock.monotonic(), self._settings.request_timeout)):
                continue
            if self._breaker.is_open and not patient:
                return
            self._clock.pause(min(left, self._breaker.wait() or RETRY))

    def knows_version(self, name: str, version: str) -> bool:
        """Whether the registration of that version waits here."""
        return self.knowledge.is_waiting_version(name, str(version))

    def _homed(self, record: Record) -> Record:
        """The same record in the stream of the local id, if its run or model has one."""
        noun, _, name = record.stream.partition(":")
        token = self.journal.names.token_of(name)
        return replace(record, stream=f"{noun}:{token}") if token else record

    def _write(self, record: Record) -> dict[str, Any]:
        direct = not self._breaker.is_open
        try:
            kept = self.journal.append(record, attempted=direct)
        except SpoolFull as error:
            return self._unkept(record, error)
        if direct:
            done = self._drainer.now_or_never(kept, self._settings.probe_timeout)
            if done is not None:
                return done.body
            self._secure(kept)
        self.knowledge.queued(kept)
        self.wake()
        # Only an update answers with the whole run or model. To read that for each metric would cost more and more.
        history = self.journal.history(kept.stream) if kept.kind is Kind.WRITE else ()
        return answer_write(kept, history)

    def _secure(self, record: Record) -> None:
        """Make a record durable that the server may not have: this journal may be the only place that has it."""
        try:
            self.journal.secure(record)
        except SpoolFull as error:
            if self._settings.strict:
                raise
            log.error("mlflow-spool may lose a %s if the power fails: %s", record.kind.value, error)

    def _unkept(self, record: Record, error: SpoolFull) -> dict[str, Any]:
        """Send a call without a record, since there is no room. Training goes on, whatever comes of it."""
        if self._settings.strict:
            raise error
        log.error("mlflow-spool keeps no record of this %s: %s", record.kind.value, error)
        try:
            answer = self.asking.send(translated(record.call, self.journal.names.name_of))
        except (TransportError, Offline):
            return answer_write(record, [record])
        if answer.status >= 400:
            raise Refused(answer.status, answer.body)
        return answer.body

    def _read(self, call: Call) -> dict[str, Any]:
        known = self.knowledge.answer(call, waiting_only=not self._breaker.is_open)
        if known is not None:
            return self.shelf.housed(known)
        created = self.knowledge.created_here(call)
        try:
            found = self.asking.read(
                lambda: self._asked(call),
                lambda: self.knowledge.answer(call, waiting_only=False),
                again=is_repeatable(call),
            )
        except Unanswerable:
            raise
        except Offline as error:
            raise Offline(f"MLflow at {self.uri} is away ({error}), and its journal here has no answer") from None
        if not isinstance(found, Answer):
            return self.shelf.housed(found)
        if found.status == 404 and created is not None:
            return created
        if found.status >= 400:
            raise Refused(found.status, found.body)
        self.knowledge.notice(call, found.body)
        return self.shelf.housed(found.body)

    def _asked(self, call: Call) -> Answer:
        """What the server answers to a read, once it has what was written here before. Raises Offline, TransportError."""
        self._bring(call)
        strange = any(self.journal.names.name_of(token) is None for token in needed(call, self.journal.made))
        if strange and self.knowledge.find_elsewhere(call, self.found) is None:
            raise Unanswerable(f"{call.path} names a run that neither this machine's journal nor MLflow knows")
        return self.asking.send(translated(call, self.journal.names.name_of))

    def _bring(self, call: Call) -> None:
        """Deliver what was written here and a read may show, as far as the server takes it. Raises Unanswerable.

        A server that is busy may need longer for a write than its caller waits. It must not answer with the old value. What
        is late once is not waited for again, and a search goes on without it.
        """
        wanted, end, pause = concerns(call), self._clock.monotonic() + self._settings.request_timeout, PAUSE
        while not self._breaker.is_open and (behind := self._drainer.behind(wanted)):
            self._late = {name for name in self._late if self.journal.is_waiting(name)}
            left = end - self._clock.monotonic()
            if left > 0 and (fresh := [name for name in behind if name not in self._late]):
                delivered = [self._drainer.deliver(name, lambda left=left: left) for name in fresh]  # type: ignore[misc]
                if not any(delivered):
                    self._clock.pause(min(pause, left))
                    pause = min(2 * pause, 1.0)
                continue
            self._late.update(behind)
            if wanted.endswith(":"):
                return
            raise Unanswerable(f"what was written here to {behind[0]} has not arrived at MLflow yet")

    def found(self, call: Call) -> dict[str, Any]:
        """What the server answers to one question. Raises Refused, Offline, TransportError."""
        answer = self.asking.send(call)
        if answer.status >= 400:
            raise Refused(answer.status, answer.body)
        return answer.body


_spools: dict[tuple[int, Path], Spool] = {}
_opening = Guard()


def open_spool(uri: str, connect: Callable[[], Target], settings: Settings) -> Spool:
    """The spool of this process for the server at `uri`, made on first use. connect: makes its HTTP client."""
    with _opening:
        key = (os.getpid(), journal_folder(settings, uri))
        if key not in _spools:
            _spools[key] = Spool(uri, connect(), settings, system_clock())
            family.mark(_spools[key].journal)
            _spools[key].wake()
        return _spools[key]


def adopt_children(settings: Settings, connect: Callable[[str, Settings], Target | None]) -> None:
    """Open the journals that only children of this process have used, so that `finish_all` finds them. connect: makes the
    HTTP client for an address and a journal's place; None without its login."""
    for journal in family.left(settings.folder, settings.max_bytes):
        uri, place = of_journal(journal, settings)
        key = (os.getpid(), journal.folder)
        if key not in _spools and (target := connect(uri, place)) is not None:
            # Without a thread: the process ends, and all that is left to do is at its end.
            _spools[key] = Spool(uri, target, place, system_clock(), background=False)


def finish_all(budget: float) -> None:
    """At the end of the process: deliver what can be delivered within `budget` seconds, and log what is left.

    A spool that fails, as on a broken disk, takes the turn of no other.
    """
    quiet.speak()
    for (pid, _), spool in list(_spools.items()):
        if pid != os.getpid():
            continue
        uri = spool.uri
        try:
            left = spool.finish(budget)
            handed = spool.journal.inventory.counts().handed
        except Exception:
            log.exception("mlflow-spool could not finish its work for MLflow at %s", uri)
            continue
        if left:
            log.warning("%d records for MLflow at %s are kept; `mlflow-spool flush` delivers them", left, uri)
        if handed:
            log.warning("%d records for MLflow at %s were handed over to the gateway", handed, uri)
