"""Stores before which MLflow does not stand (S3 and others), asked by MLflow's clients for them, in processes of their own.

Such a client imports while it works, which our thread must not do (see `quiet`). It waits for minutes for a store that is
away, and its threads hold up the end of their process. So a client that is late is ended with its process, and a store that
did not answer is left alone for a while.
"""

import functools
import glob
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from mlflow_spool.errors import NoAnswer
from mlflow_spool.records import Answer
from mlflow_spool.uploads import RATE

PAUSE = 30.0  # seconds for which a store that did not answer is not asked
PATIENCE = 10.0  # seconds that training code waits for a store
START = 60.0  # seconds that a read waits for a process to load MLflow, on a busy machine
IDLE = 2  # processes that are kept for the next question
#: Answers after which a new process reads the logins of the environment, which may have been renewed.
STALE = frozenset({401, 403})
#: The path of no artifact. To list it shows that a store is there.
NOTHING = "mlflow-spool-looks-for-the-store"


class Stores:
    """The stores of one MLflow. Every thread may ask, and a child of a fork: a question has a process to itself."""

    def __init__(
        self,
        uri: str,
        argv: Sequence[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
    ) -> None:
        """uri: of MLflow. argv: the program of the processes. patience: seconds that a read waits."""
        self._uri = uri
        self._argv = list(argv) or [sys.executable, "-m", "mlflow_spool.helper"]
        self._monotonic = monotonic
        self._patience = patience
        self._idle: dict[int, list[_Process]] = {}  # by the process that started them
        self._busy: set[_Process] = set()
        self._away: dict[str, float] = {}  # scheme and host -> monotonic seconds until which it is not asked

    def is_ready(self, root: str) -> bool:
        """Whether a question about an artifact root may go out at once, and to a store that has not failed just now."""
        return not self._is_away(_place(root)) and any(process.is_ready for process in tuple(self._ours()))

    def put(self, root: str, path: str, file: Path, timeout: float) -> Answer:
        """Put `file` at `path` below a root. timeout: seconds, with those for its size. Raises NoAnswer."""
        size = file.stat().st_size
        if size > RATE:  # Its limit is long, so that the store has to show first that it is there.
            self._ask(root, timeout - size / RATE, timeout / 2, do="list", path=NOTHING)
        answer = self._ask(root, timeout, timeout / 2, do="store", path=path, file=str(file))
        if not answer.status:
            raise NoAnswer(str(answer.body.get("message")))
        return Answer(answer.status, answer.body if answer.status >= 300 else {})

    def files(self, root: str, path: str | None) -> Answer:
        """The files and folders directly below `path`, as `files` in the answer's body. Raises NoAnswer."""
        return self._ask(root, self._patience, START, do="list", path=path)

    def fetch(self, root: str, path: str, target: Path) -> Answer:
        """Write what lies at `path` to `target`, as long as it keeps coming. Raises NoAnswer."""
        grown = functools.partial(_bytes_of, target)
        return self._ask(root, self._patience, START, grown, do="fetch", path=path, file=str(target))

    def abandon(self) -> None:
        """End every question that is under way, in whatever thread. It gets no answer."""
        for process in tuple(self._busy):
            if process.parent == os.getpid():
                process.kill()

    def _ask(
        self, root: str, limit: float, start: float, progress: Callable[[], int] = lambda: 0, **question: Any
    ) -> Answer:
        """What a client finds. The status is 0 when it fails in a way that says nothing of the store.

        limit: seconds, as often as `progress` has grown meanwhile; start: seconds until a process has loaded MLflow. Half of
        the limit is the store's at least. Raises NoAnswer.
        """
        place, began = _place(root), time.monotonic()
        if self._is_away(place):
            raise NoAnswer(f"{place} did not answer before")
        try:
            process = self._taken()
        except OSError as error:
            raise NoAnswer(f"no process can ask {place}: {error}") from None
        if not process.has_started(start):
            self._keep(process)  # It is there for the next question.
            raise NoAnswer(f"the process that asks {place} has not started yet")
        left = max(limit - (time.monotonic() - began), limit / 2)
        self._busy.add(process)
        try:
            answer = process.ask({"root": root, **question}, left, progress)
            found = Answer(int(answer["status"]), dict(answer["body"]))
        except (NoAnswer, OSError, ValueError, KeyError) as error:
            process.end()
            self._away[place] = self._monotonic() + PAUSE
            raise NoAnswer(f"{place}: {error}") from None
        except BaseException:
            process.end()
            raise
        finally:
            self._busy.discard(process)
        if found.status in STALE:
            process.end()
        else:
            self._keep(process)
        if answer.get("silent"):
            self._away[place] = self._monotonic() + PAUSE
            raise NoAnswer(f"{place}: {found.body.get('message')}")
        return found

    def _is_away(self, place: str) -> bool:
        return self._away.get(place, 0.0) > self._monotonic()

    def _ours(self) -> "list[_Process]":
        return self._idle.setdefault(os.getpid(), [])

    def _taken(self) -> "_Process":
        """A process for one question. Raises OSError."""
        idle = self._ours()
        while idle:
            try:
                process = idle.pop()
            except IndexError:  # Another thread was faster.
                break
            if process.is_alive:
                return process
            process.end()
        return _Process(self._argv, self._uri)

    def _keep(self, process: "_Process") -> None:
        if len(self._ours()) < IDLE:
            self._ours().append(process)
        else:
            process.end()


class _Process:
    """One process. It gets one JSON object a line, and answers with one; the first answer says that it has started."""

    def __init__(self, argv: Sequence[str], uri: str) -> None:
        """Raises OSError."""
        self.parent = os.getpid()
        # A signal of the terminal is for training code alone: this process ends with it.
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._started = False
        # Everybody on the machine may read arguments, and the address may hold a login.
        self._write(uri)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def is_ready(self) -> bool:
        return self._started or _comes(self._answers, 0.0)

    def has_started(self, limit: float) -> bool:
        """Whether it has started, within `limit` seconds."""
        if not self._started and _comes(self._answers, limit):
            self._answers.readline()
            self._started = True
        return self._started

    def ask(self, question: dict[str, Any], limit: float, progress: Callable[[], int]) -> dict[str, Any]:
        """Its answer. Raises NoAnswer when it is late, OSError and ValueError when it has failed."""
        self._write(json.dumps(question))
        seen = progress()
        while not _comes(self._answers, limit):
            if (now := progress()) <= seen:
                raise NoAnswer("no answer in time")
            seen = now
        answer: dict[str, Any] = json.loads(self._answers.readline())
        return answer

    def kill(self) -> None:
        """End it, whatever it does. Who waits for its answer gets none."""
        self._process.kill()

    def end(self) -> None:
        """End it, and forget it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # The rest of a question, for a process that is gone.
                stream.close()  # type: ignore[union-attr]

    @property
    def _answers(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()


def _comes(answers: IO[bytes], limit: float) -> bool:
    """Whether an answer, or the end of the process, comes within `limit` seconds."""
    poll = select.poll()
    poll.register(answers, select.POLLIN)
    return bool(poll.poll(max(limit, 0.0) * 1000))


def _place(root: str) -> str:
    return urlsplit(root)._replace(path="", query="", fragment="").geturl()


def _bytes_of(target: Path) -> int:
    """The bytes of a file, and of those whose names begin like its name: clients write beside a file first."""
    found = 0
    for part in target.parent.glob(f"{glob.escape(target.name)}*"):
        with suppress(OSError):  # It was renamed meanwhile.
            found += part.stat().st_size
    return found
