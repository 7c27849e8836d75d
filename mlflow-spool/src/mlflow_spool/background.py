"""The thread that delivers while the process lives."""

import logging
import threading
from contextlib import suppress

from mlflow_spool import quiet
from mlflow_spool.breaker import Breaker
from mlflow_spool.delivery import Clock
from mlflow_spool.drain import Drainer
from mlflow_spool.forks import Guard, register

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
        self._guard = Guard()
        register(self)

    def wake(self) -> None:
        """There is something to deliver."""
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="mlflow-spool", daemon=True)
                self._thread.start()
        self._work.set()

    def before_fork(self, until: float) -> None:
        """See `forks`."""

    def after_fork(self, *, in_child: bool) -> None:
        """The child has no such thread yet."""
        if in_child:
            self._work, self._stop, self._thread = threading.Event(), threading.Event(), None

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
        quiet.begin()
        while not self._stop.is_set():
            try:
                busy = self._drainer.step(lambda: 0.0 if self._stop.is_set() else self._timeout)
            except Exception as error:
                quiet.note(
                    logging.ERROR, "mlflow-spool could not deliver from its journal; it tries again", error=error
                )
                busy = False
            if busy:
                continue
            self._tidy()
            if self._breaker.is_open:
                self._stop.wait(self._breaker.wait() + 0.01)
            else:
                self._work.wait(RETRY if self._drainer.has_pending() else IDLE)
                self._work.clear()
