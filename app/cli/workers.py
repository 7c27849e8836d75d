"""`serve --workers N`: several processes that share a port, are restarted when they die, and end together. And SIGHUP."""

import asyncio
import errno
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from app.bootstrap.settings import authority
from app.kit.clock import monotonic
from app.kit.errors import GatewayError, UsageError
from app.web.security import is_loopback

log = logging.getLogger(__name__)

_YOUNG = 10.0  # seconds; a process that ends earlier counts as not started
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before the next start of a process that keeps ending
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # This machine lacks the address, or its whole family.
_HOPELESS = 5  # a process that ends young so often in a row is not started again


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind every address of `host`, for one process or for several that share them; all have the same port.

    Raises UsageError when another program has the port, or when no address of `host` is one of this machine.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise cannot_serve(host, port, error) from error
    addresses = list(dict.fromkeys((socket.AddressFamily(family), place) for family, *_, place in found))
    bound: list[socket.socket] = []
    missing: list[OSError] = []
    for family, place in addresses:
        # With GATEWAY_PORT=0 the kernel chose a port for the first address, and the others take the same one.
        chosen = bound[0].getsockname()[1] if bound else port
        try:
            bound.append(_bound(family, (place[0], chosen, *place[2:]), shared=len(addresses) == 1))
        except OSError as error:
            missing.append(error)
            if error.errno not in _NOT_HERE:
                break
    if not bound or (missing and missing[-1].errno not in _NOT_HERE):
        for each in bound:
            each.close()
        raise cannot_serve(host, port, missing[-1]) from missing[-1]
    return bound


def _bound(family: socket.AddressFamily, place: tuple[Any, ...], *, shared: bool) -> socket.socket:
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` alone takes IPv4 as well, whatever the machine's default is. Beside a socket for IPv4 it must not.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not shared)
        made.bind(place)
    except OSError:
        made.close()
        raise
    return made


def cannot_serve(host: str, port: int, error: OSError | UnicodeError) -> UsageError:
    """The error for an address that cannot be bound. It says what to do."""
    number = getattr(error, "errno", None)
    cause = getattr(error, "strerror", None) or str(error)
    step = "End the program that uses the port, or set GATEWAY_HOST and GATEWAY_PORT to a free address of this machine"
    if ":" in host and (number == errno.EAFNOSUPPORT or (number == errno.EADDRNOTAVAIL and is_loopback(host))):
        cause = "this machine has no IPv6"
        step = f"Set GATEWAY_HOST={'127.0.0.1' if is_loopback(host) else '0.0.0.0'}"
    return UsageError(f"cannot serve on {authority(host, port)}: {cause}. {step}")


def run_workers(number: int, work: Callable[[], None]) -> None:
    """Run `work` (picklable) in `number` processes until SIGTERM or Ctrl-C, which both reach them as SIGTERM. SIGHUP is
    passed on as it is. A process that dies is started again, after a pause that grows while it keeps dying. Raises
    GatewayError when every process keeps dying."""
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    context = multiprocessing.get_context("spawn")
    places: list[_Place] = [_Place(work, context) for _ in range(number)]

    def reload() -> None:
        for place in places:
            place.signal(signal.SIGHUP)

    on_hangup = _on_hangup(reload)
    signal.signal(signal.SIGHUP, lambda *_: on_hangup())
    try:
        while not stopping.wait(0.2):
            for place in places:
                place.tend()
            if all(place.hopeless for place in places):
                raise GatewayError("every serving process ends soon after its start: the log above says why")
    finally:
        for place in places:
            place.signal(signal.SIGTERM)
        for place in places:
            place.wait()


class _Place:
    """The place of one process: the process that runs there now, and how often earlier ones died young."""

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
            self._began = monotonic()  # The pause begins here.
        if self._process is None and not self.hopeless:
            pause = _PAUSES[min(self._young_deaths, len(_PAUSES)) - 1] if self._young_deaths else 0.0
            if monotonic() - self._began >= pause:
                self._start()

    def _start(self) -> None:
        self._process = self._context.Process(target=_child, args=(self._work, os.getpid()))
        self._process.start()
        self._began = monotonic()

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)

    def wait(self) -> None:
        if self._process is not None:
            self._process.join()


def _child(work: Callable[[], None], parent: int) -> None:
    """What the child process runs. When its parent dies it ends as by SIGTERM, because nobody else would end it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    # Ctrl-C reaches the whole process group, and the parent passes it on as SIGTERM, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # Until it can reload. The parent notices when the terminal closes.
    threading.Thread(target=watch, daemon=True).start()
    work()


@contextmanager
def reloading_on_hangup(reload: Callable[[], None]) -> Iterator[None]:
    """While the block runs in an event loop, SIGHUP calls `reload`. When SIGHUP comes because the terminal was closed, the
    process ends as by SIGTERM, since nobody asked for a daemon."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGHUP, _on_hangup(reload))
    except (RuntimeError, ValueError):  # Outside the main thread no signal arrives.
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _on_hangup(reload: Callable[[], None]) -> Callable[[], None]:
    # Under nohup SIGHUP is ignored from the start, and the process must outlive its terminal.
    had_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN

    def hangup() -> None:
        if had_terminal and not _has_terminal():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            reload()

    return hangup


def _has_terminal() -> bool:
    """Whether there is a controlling terminal. When it closes, the kernel takes it from every process of the session."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
