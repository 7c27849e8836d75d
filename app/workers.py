"""`serve --workers N`: several processes behind one port, kept alive, ended together."""

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from app.clock import monotonic
from app.errors import GatewayError, UsageError

log = logging.getLogger(__name__)

_YOUNG = 10.0  # seconds; a process that ends earlier has not come up
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before the next start of a process that keeps ending
_HOPELESS = 5  # young deaths in a row after which the rest is ended too


def bind(host: str, port: int) -> socket.socket:
    """The port that the processes share. Raises UsageError when it cannot be had."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise UsageError(f"cannot serve on {host}:{port}: {error.strerror}") from error
    return bound


def run_workers(number: int, work: Callable[[], None]) -> None:
    """Run `work` (picklable) in `number` processes until SIGTERM or Ctrl-C, which they get as SIGTERM. One that dies is
    started again, after a pause that grows while it keeps dying; GatewayError when none of it comes up."""
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    context = multiprocessing.get_context("spawn")
    places: list[_Place] = [_Place(work, context) for _ in range(number)]
    try:
        while not stopping.wait(0.2):
            for place in places:
                place.tend()
            if all(place.hopeless for place in places):
                raise GatewayError("no serving process comes up; the log above says why")
    finally:
        for place in places:
            place.end()
        for place in places:
            place.wait()


class _Place:
    """One of the processes, and how its predecessors fared."""

    def __init__(self, work: Callable[[], None], context: multiprocessing.context.SpawnContext) -> None:
        self._work = work
        self._context = context
        self._process: BaseProcess | None = None
        self._began = 0.0
        self._young_deaths = 0
        self._start()

    @property
    def hopeless(self) -> bool:
        return self._young_deaths >= _HOPELESS

    def tend(self) -> None:
        """Start the process again when it has died and its pause is over."""
        if self._process is not None and not self._process.is_alive():
            young = monotonic() - self._began < _YOUNG
            self._young_deaths = self._young_deaths + 1 if young else 0
            log.error("a serving process ended with %s", self._process.exitcode)
            self._process = None
            self._began = monotonic()  # from here the pause counts
        if self._process is None and not self.hopeless:
            pause = _PAUSES[min(self._young_deaths, len(_PAUSES)) - 1] if self._young_deaths else 0.0
            if monotonic() - self._began >= pause:
                self._start()

    def _start(self) -> None:
        self._process = self._context.Process(target=_child, args=(self._work, os.getpid()))
        self._process.start()
        self._began = monotonic()

    def end(self) -> None:
        if self._process is not None and self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGTERM)

    def wait(self) -> None:
        if self._process is not None:
            self._process.join()


def _child(work: Callable[[], None], parent: int) -> None:
    """The process' body. Without its parent it ends as by SIGTERM: nobody else would ever end it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    # Ctrl-C reaches the whole group; the parent passes it on as SIGTERM, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
    work()
