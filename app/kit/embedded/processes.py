"""Questions to the operating system: which process has this pid, is this port free. Waiting for an answer, and ending."""

import atexit
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from app.kit.clock import monotonic

Answer = TypeVar("Answer")

POLL_SECONDS = 0.01
SERVER_PORTS = range(20_000, 32_768)
END_SECONDS = 20  # that a program has to end by itself


def wait_for(probe: Callable[[], Answer | None], seconds: float) -> Answer | None:
    """Call `probe` every 10 ms and return its first answer that is not None; None when there is none in `seconds`."""
    deadline = monotonic() + seconds
    while (answer := probe()) is None and monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return answer


def end_in_order() -> None:
    """From now on SIGTERM and SIGHUP end this program as an error does, with the exit code that shells use, so that it stops
    what it has started. Without this, Python would end at once, and the servers would run on. Under nohup SIGHUP stays
    ignored.

    A program that has not ended then, because a library took the error for its own or waits for a thread, is ended all the
    same, and its servers first."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, _frame: object) -> None:
    # They often come together: the second must not break what this begins.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def give_up(*_: object) -> None:
        atexit._run_exitfuncs()  # `os._exit` leaves them out, and they stop the servers.
        os._exit(128 + number)

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(END_SECONDS)
    raise SystemExit(128 + number)


def clean_environment() -> dict[str, str]:
    """The part of our environment that a server gets: where programs and libraries are. Not PG*, LC_* or TZ, which would
    change its behaviour."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def command_line(pid: int) -> list[str]:
    """The arguments that a process was started with; empty when there is no such process or it has ended (a zombie)."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            return []
    # Without /proc (macOS) the line is not quoted: any words in a row may be one argument with blanks.
    line = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    words = line.stdout.strip().split(" ")
    return [" ".join(words[begin:end]) for begin in range(len(words)) for end in range(begin + 1, len(words) + 1)]


def is_free(port: int) -> bool:
    """Whether no program listens on this port of 127.0.0.1 now. One may take it a moment later."""
    with socket.socket() as probe:
        # Without this, connections that have just closed (TIME_WAIT) make our own port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A free port of 127.0.0.1: `free_ports`."""
    [port] = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which no program listens now, all different. Another program may take one before you do.

    They lie below the local ports of outgoing connections (32768 and up on Linux, ip(7); 49152 and up elsewhere, RFC 6335).
    While a server is away, any connection could take a port of that range.
    """
    free = (port for port in random.sample(SERVER_PORTS, len(SERVER_PORTS)) if is_free(port))
    return list(itertools.islice(free, count))
