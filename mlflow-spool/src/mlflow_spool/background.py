"""The thread that delivers while the process lives."""

import logging
import threading
from contextlib import suppress

from mlflow_spool.breaker import Breaker
from mlflow_spool.delivery import Clock
from mlflow_spool.drain import Drainer

log = logging.getLogger("mlflow_spool")
IDLE = 30.0  # seconds between two looks for records that other processes left
RETRY = 1.0  # seconds until the next attempt of records that do not wait for the server
TIDY = 600.0  # seconds between two rounds of housekeeping, which read the whole journal


class Background:
    """A thread that delivers while the process lives. The first record starts it."""

    def __init__(self, drainer: Drainer, breaker: Breaker, clock: Clock, timeout: float) -> None:
        """timeout: seconds of each request."""
        self._drainer = drainer
        self._clock = clock
        self._tidy_at = 0.0  # monotonic seconds
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
        """Begin no further request. A request that is under way is not waited for."""
        self._stop.set()
        self._work.set()

    def _tidy(self) -> None:
        if (now := self._clock.monotonic()) < self._tidy_at:
            return
        self._tidy_at = now + TIDY
        with suppress(Exception):  # Housekeeping can wait for the next round.
            self._drainer.tidy()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                busy = self._drainer.step(lambda: 0.0 if self._stop.is_set() else self._timeout)
            except Exception:
                log.exception("mlflow-spool could not deliver from its journal; it tries again")
                busy = False
            if busy:
                continue
            self._tidy()
            if self._breaker.is_open:
                self._stop.wait(self._breaker.wait() + 0.01)
            else:
                self._work.wait(RETRY if self._drainer.has_pending() else IDLE)
                self._work.clear()
