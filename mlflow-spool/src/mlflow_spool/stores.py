"""Stores before which MLflow does not stand (S3 and others). Their clients wait for minutes: training code must not.

A client works in a thread of its own, and the caller waits within a limit. A client that is late goes on, and nobody waits
for it. A store that did not answer is not asked again for a while.
"""

import glob
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mlflow_spool.errors import NoAnswer

PAUSE = 30.0  # seconds for which a store that did not answer is not asked
READ = 10.0  # seconds in which a store begins its answer to a read, or sends more of it
Found = TypeVar("Found")


class NoThread(Exception):
    """The process ends, and may have no more threads."""


class Stores:
    """What this process knows of the stores that it asks."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._away: dict[str, float] = {}  # scheme and host -> until when it is not asked
        self._late: dict[str, threading.Thread] = {}  # artifact -> the client that may still write it

    def ask(
        self,
        root: str,
        work: Callable[[], Found],
        limit: float,
        *,
        path: str = "",
        progress: Callable[[], int] = lambda: 0,
    ) -> Found:
        """What `work` finds at the store of an artifact root. path: what it writes there; limit: seconds, as often as
        `progress` has grown meanwhile.

        Never on our thread, since a client imports while it works. Raises NoAnswer when the store does not answer, NoThread,
        and what `work` raises otherwise.
        """
        return self.watched(root, path, lambda: self._within(f"{root}/{path}", work, limit, progress))

    def watched(self, root: str, path: str, work: Callable[[], Found]) -> Found:
        """What `work` finds, which has a limit of its own. Raises as `ask`."""
        place = urlsplit(root)._replace(path="", query="", fragment="").geturl()
        if self._away.get(place, 0.0) > self._monotonic():
            raise NoAnswer(f"{place} did not answer before")
        late = self._late.get(f"{root}/{path}")
        if path and late is not None and late.is_alive():  # It would write the old content over the new.
            raise NoAnswer(f"an earlier upload of {path} has not ended")
        try:
            return work()
        except Exception as error:
            if isinstance(error, NoThread) or not is_no_answer(error):
                raise
            self._away[place] = self._monotonic() + PAUSE
            raise NoAnswer(f"{place}: {str(error)[:300]}") from error

    def _within(self, what: str, work: Callable[[], Found], limit: float, progress: Callable[[], int]) -> Found:
        answers: queue.SimpleQueue[Callable[[], Found]] = queue.SimpleQueue()
        thread = threading.Thread(target=_answering, args=(work, answers.put), name="mlflow-spool-store", daemon=True)
        seen = progress()
        try:
            thread.start()
        except RuntimeError:
            raise NoThread from None
        while True:
            try:
                answer = answers.get(timeout=max(limit, 0.05))
            except queue.Empty:
                if (now := progress()) <= seen:
                    self._late[what] = thread
                    raise NoAnswer("no answer in time") from None
                seen = now
            else:
                return answer()


def _answering(work: Callable[[], Found], put: Callable[[Callable[[], Found]], None]) -> None:
    try:
        found = work()
    except BaseException as error:
        put(lambda error=error: _raised(error))  # type: ignore[misc]
    else:
        put(lambda: found)


def bytes_of(target: Path) -> int:
    """The bytes of a file, and of those whose names begin like its name: clients write beside a file first."""
    found = 0
    for part in target.parent.glob(f"{glob.escape(target.name)}*"):
        with suppress(OSError):  # It was renamed meanwhile.
            found += part.stat().st_size
    return found


def _raised(error: BaseException) -> Any:
    raise error


def status_of(error: BaseException) -> int | None:
    """The HTTP status in an error of botocore or requests; None when the error has none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def is_no_answer(error: Exception) -> bool:
    """Whether the client of a store got no answer: its own errors have no status then. MLflow's errors, those of this
    machine's files, and wrong arguments say nothing of the store."""
    if isinstance(error, NoAnswer | ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return False
    ours = isinstance(error, ValueError | TypeError | LookupError | ImportError) or hasattr(error, "error_code")
    return status_of(error) is None and not ours
