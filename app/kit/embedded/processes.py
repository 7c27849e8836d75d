"""What the operating system is asked: who is that pid, is this port free, has it happened yet."""

import itertools
import os
import random
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


def wait_for(probe: Callable[[], Answer | None], seconds: float) -> Answer | None:
    """The first answer of `probe` that is not None, asked every 10 ms; None when `seconds` went by without one."""
    deadline = monotonic() + seconds
    while (answer := probe()) is None and monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return answer


def clean_environment() -> dict[str, str]:
    """What a server may know of ours: nothing that changes its behaviour (PG*, LC_*, TZ), only where libraries are."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def command_line(pid: int) -> list[str]:
    """The arguments a process was started with; empty when there is no such process or it has ended (a zombie)."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            return []
    # Without /proc (macOS) the line comes unquoted: every run of its words may be an argument with blanks in it.
    line = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    words = line.stdout.strip().split(" ")
    return [" ".join(words[begin:end]) for begin in range(len(words)) for end in range(begin + 1, len(words) + 1)]


def is_free(port: int) -> bool:
    """Whether nobody listens on this port of 127.0.0.1 now; it may be taken a moment later."""
    with socket.socket() as probe:
        # Without it, connections that closed lately (TIME_WAIT) would make our own port of a minute ago look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now; see `free_ports`."""
    [port] = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, all different. Somebody may still take one before you do.

    They lie below the range from which systems take the near end of outgoing connections (32768 and up on Linux, ip(7);
    49152 and up elsewhere, RFC 6335). A port of that range is lost to any program's connection while its server is away.
    """
    free = (port for port in random.sample(SERVER_PORTS, len(SERVER_PORTS)) if is_free(port))
    return list(itertools.islice(free, count))
