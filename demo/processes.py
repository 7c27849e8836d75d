"""Other people's servers as processes. Each has a process group of its own, is watched while we wait, and is always ended.

We sleep while we wait, because nothing else can be awaited here. Every wait has a limit and says what it waits for. When a
server does not become ready, the error shows the end of its log.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.kit.clock import monotonic
from app.kit.errors import GatewayError

Say = Callable[[str], None]  # takes one line of progress for a person

POLL: Final = 0.1  # seconds between two looks at a process
SAY_EVERY: Final = 5.0  # seconds between two lines of progress while waiting
KILL_SECONDS: Final = 5.0  # until the kernel and init have removed the killed processes
LARGEST_TAIL: Final = 64 * 1024  # bytes read from the end of a log
# prctl(2), PR_SET_PDEATHSIG = 1: the kernel ends the program when its parent has ended. A program in between sets it,
# because code between fork and exec (preexec_fn) is not safe in a process with threads.
_END_WITH_PARENT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execvp(sys.argv[1], sys.argv[1:])
"""
#: Trusts nobody, because nothing here speaks TLS: to load the authorities takes 25 ms, which a poll would pay each time.
NO_AUTHORITIES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_NOT_INHERITED: Final = ("AIRFLOW", "GATEWAY_", "MLFLOW_", "PG", "PYTHON", "RETRAIN_", "VIRTUAL_ENV", "COV_")


class ServerError(GatewayError):
    """A server ended or did not get ready in time. The message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running process with its own process group; everything it prints goes to `log`."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self.process.poll()

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(max(self.log.stat().st_size - LARGEST_TAIL, 0))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        return ""

    def failed(self, what: str) -> ServerError:
        return ServerError(f"{self.name} {what}. The end of {self.log}:\n{self.tail()}")


def launch(name: str, argv: Sequence[str | Path], *, env: Mapping[str, str], log: Path, cwd: Path) -> Server:
    """Start a process; its output replaces `log`. Call it in the main thread: the kernel ends the process when the thread
    that started it ends, so that even kill -9 of us leaves nothing running (Linux only).

    Raises ServerError when there is no such program.
    """
    program = str(argv[0])
    if shutil.which(program, path=env.get("PATH")) is None:
        raise ServerError(f"cannot start {name}: there is no program {program}")
    command = [str(argument) for argument in argv]
    if sys.platform == "linux":
        command = [sys.executable, "-ISc", _END_WITH_PARENT, *command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(name, log, process)


async def run(
    name: str,
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path,
    within: float,
    say: Say | None = None,
) -> None:
    """Run a command to its end. Raises ServerError when it takes over `within` seconds or its exit code is not 0."""
    command = launch(name, argv, env=env, log=log, cwd=cwd)

    async def ended() -> bool:
        return command.exit_code is not None

    try:
        await wait_until(f"{name} to end", ended, within=within, say=say)
    except ServerError:
        raise command.failed(f"did not end within {within:.0f} s") from None
    finally:
        await stop([command])
    if command.exit_code != 0:
        raise command.failed(f"ended with exit code {command.exit_code}")


async def wait_until(
    what: str,
    ready: Callable[[], Awaitable[bool]],
    *,
    within: float,
    servers: Sequence[Server] = (),
    say: Say | None = None,
    interval: float = POLL,
    say_every: float = SAY_EVERY,
) -> float:
    """Call `ready` every `interval` seconds until it returns True. Returns the seconds that it took.

    Raises ServerError as soon as one of `servers` ends, and after `within` seconds.
    """
    started = spoke = monotonic()
    while not await ready():
        now = monotonic()
        for server in servers:
            if server.exit_code is not None:
                raise server.failed(f"ended with exit code {server.exit_code} while we waited for {what}")
        if now - started > within:
            logs = "\n".join(f"The end of {server.log}:\n{server.tail()}" for server in servers)
            raise ServerError(f"waited {within:.0f} s for {what} in vain.\n{logs}".rstrip())
        if say and now - spoke > say_every:
            spoke = now
            say(f"  still waiting for {what}: {now - started:.0f} s")
        await asyncio.sleep(interval)
    return monotonic() - started


async def stop(servers: Sequence[Server], *, grace: float = 10.0) -> None:
    """End each process group: SIGTERM, `grace` seconds for all of them together, then SIGKILL. Never raises."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_SECONDS)):
        for server in servers:
            _signal(server, number)
        for _ in range(int(seconds / POLL)):
            if not any(_lives(server) for server in servers):
                return
            await asyncio.sleep(POLL)


def _signal(server: Server, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.process.pid, number)


def _lives(server: Server) -> bool:
    """Whether a process of its group is left: workers can outlive their leader."""
    server.process.poll()  # Without this a leader that has ended would count as alive.
    try:
        os.killpg(server.process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def clean_environment(**extra: str) -> dict[str, str]:
    """Our environment with `extra`, and without variables that would configure a server by accident."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return kept | extra


def local_environment(**extra: str) -> dict[str, str]:
    """`clean_environment` for a server that talks to this machine alone: without the proxies, which its libraries would ask
    for loopback too."""
    return {name: value for name, value in clean_environment(**extra).items() if not name.lower().endswith("_proxy")}
