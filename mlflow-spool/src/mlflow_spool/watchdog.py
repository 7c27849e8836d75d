"""MLFLOW_SPOOL_DEBUG=1: where every thread is, on stderr, when a call of training code takes long."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT = 5.0  # seconds of a call
LOOK = 0.5  # seconds between two looks


class Watchdog:
    """Watches calls on a thread of its own, which takes no lock that a hanging call could hold."""

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self._calls: dict[int, tuple[float, str]] = {}  # thread -> when its call began (monotonic), and what it is
        self._process = 0  # that has the thread: a fork leaves it behind

    @contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Report the call within, once, if it takes longer than the limit."""
        own = threading.get_ident()
        if own in self._calls:  # A call within a call.
            yield
            return
        self._start()
        self._calls[own] = time.monotonic(), what
        try:
            yield
        finally:
            self._calls.pop(own, None)

    def _start(self) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._calls.clear()
            threading.Thread(target=self._look, name="mlflow-spool-watchdog", daemon=True).start()

    def _look(self) -> None:
        reported: set[tuple[int, float]] = set()
        while True:
            time.sleep(LOOK)
            for thread, (began, what) in list(self._calls.items()):
                if time.monotonic() - began > self._limit and (thread, began) not in reported:
                    reported.add((thread, began))
                    report(
                        f"mlflow-spool: {what} takes more than {self._limit:g} seconds. Every thread, and where it is:\n"
                    )


def report(words: str) -> None:
    """Write these words, and where every thread is, without a lock or an import."""
    try:
        descriptor = (sys.__stderr__ or sys.stderr).fileno()
        os.write(descriptor, words.encode())
        # `threading.enumerate` takes a lock.
        known: dict[int, threading.Thread] = dict(getattr(threading, "_active", {}))
        names = "".join(f"  {number:#018x}: {thread.name}\n" for number, thread in known.items())
        os.write(descriptor, names.encode())
        faulthandler.dump_traceback(descriptor, all_threads=True)
    except (AttributeError, OSError, ValueError):
        return  # Nobody reads it.
