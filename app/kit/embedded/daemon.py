"""One server of one data directory, shared by every process that uses this directory.

When many processes start it at once, one server runs. After a kill -9 the next start goes on with the same data. A server
that outlived its gateway is found by the lock that it holds. It is used again if it accepts the remembered password. The
last process that uses a server stops it.
"""

import atexit
import errno
import os
import secrets
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Self

from app.kit.clock import monotonic
from app.kit.embedded import nameless
from app.kit.embedded.directory import Access, ServerDirectory
from app.kit.embedded.processes import clean_environment, command_line, free_port, is_free, wait_for
from app.kit.errors import UsageError

START_SECONDS = 120.0  # Replaying the log of a killed PostgreSQL takes tens of seconds on a slow disk.
PORT_SECONDS = 0.3
RETRY_SECONDS = 10.0
TOOL_SECONDS = 120.0
SHOWN_LOG_LINES = 6


class Daemon(ABC):
    """A server process. `start` before use, `stop` at the end; not for two threads at once."""

    name: ClassVar[str]
    title: ClassVar[str]
    setting: ClassVar[str]  # the setting that names a server of the operator's own, to use instead of this one
    stop_signals: ClassVar[Sequence[tuple[signal.Signals, float]]]  # in this order, each with the seconds to wait
    hung_seconds: ClassVar[float] = 15.0  # A server that runs and does not answer for so long is ended.
    pid_seconds: ClassVar[float] = 5.0  # for a server that starts to write its pid file, or for a tool to end
    expendable: ClassVar[str | None] = None  # a file that the server can do without: set aside when it is damaged
    damage: ClassVar[Sequence[str]] = ()  # words (lower case); each of them in the log shows that damage

    def __init__(self, data_dir: Path) -> None:
        self.directory = ServerDirectory(data_dir, self.name)
        self._access: Access | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._share: int | None = None
        self._share_pid = 0

    @abstractmethod
    def _prepare(self, access: Access) -> None:
        """Make the files that the server needs to start on this port with this password."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The command line for `access`; `_marker` is one of its arguments."""

    @abstractmethod
    def _marker(self) -> str:
        """The argument that marks the process of exactly this directory. It is checked before a signal is sent."""

    @abstractmethod
    def _pid_on_file(self) -> int | None:
        """The pid in the server's own pid file, which may be stale."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server at the remembered port accepts the remembered password and is ready for work."""

    def _environment(self) -> dict[str, str]:
        return clean_environment()

    @property
    def access(self) -> Access:
        """Port and password, from the first `start` on."""
        if self._access is None:
            raise UsageError(f"{self.title} in {self.directory.data_dir} has not been started.")
        return self._access

    def start(self) -> Self:
        """Start the server, or share the one that runs. Returns when it answers.

        Raises UsageError, which says what to do, when the server cannot run here.
        """
        with self._explaining():
            self.directory.open()
            with self.directory.alone():
                share = self.directory.take_share() if self._share is None else self._share
                try:
                    self._access = self.directory.remembered()
                    if not self._adopt():
                        self._launch()
                except BaseException:  # Ctrl-C too: a start that fails leaves nothing running.
                    self._let_go(share)
                    self._share = None
                    raise
                self._share, self._share_pid = share, os.getpid()
                atexit.unregister(self.stop)
                atexit.register(self.stop)
        return self

    def ensure_running(self) -> bool:
        """Start the server again on the same port if it has died. True when that was needed.

        Raises UsageError as `start` does, and when another program has taken the port meanwhile.
        """
        with self._explaining(), self.directory.alone():
            if self.directory.remembered() != self.access:
                raise UsageError(f"{self.title} was started again on another port: start this process again too.")
            if self._adopt():
                return False
            self._launch(keep_port=True)
            return True

    def stop(self) -> None:
        """Give the server up, and stop it when no other process uses it. Waits at most 16 s for its end, then kills it."""
        share, self._share = self._share, None
        atexit.unregister(self.stop)
        # A forked child holds the same lock, and would always take itself for the last process that uses the server.
        if share is None or self._share_pid != os.getpid():
            return
        try:
            with self.directory.alone():
                self._let_go(share)
        except FileNotFoundError:
            # Somebody removed the data directory while the server ran, so it has nothing left to write.
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def leave(self) -> None:
        """Give the server up and let it run on. The next start adopts it."""
        share, self._share = self._share, None
        atexit.unregister(self.stop)
        if share is not None:
            os.close(share)

    def _let_go(self, share: int) -> None:
        """Give up a share. Call it inside `alone`, so that no other process takes a share meanwhile."""
        try:
            if self.directory.is_last(share):
                self._terminate()
        finally:
            os.close(share)

    def _adopt(self) -> bool:
        """Whether a server of this directory runs and answers. A server that runs and does not answer is ended."""
        if self._access is not None and wait_for(self._state, self.hung_seconds):
            return True
        self._terminate()
        if self.directory.is_alive():
            raise UsageError(
                f"{self.title} of {self.directory.data_dir} runs where this process cannot reach it, in another container "
                "for example: end it there, or set GATEWAY_DATA_DIR to another directory."
            )
        return False

    def _state(self) -> bool | None:
        """True: it answers. False: there is none. None: it runs and does not answer."""
        if not self.directory.is_alive():
            return False
        return True if self._answers() else None

    def _launch(self, *, keep_port: bool = False) -> None:
        deadline = monotonic() + RETRY_SECONDS
        known = self._access or Access(free_port(), secrets.token_hex(24))
        # A process that was killed a moment ago may still be closing its sockets.
        is_ours = wait_for(lambda: is_free(known.port) or None, PORT_SECONDS)
        port = known.port if is_ours or keep_port else free_port()
        while True:
            access = Access(port, known.password)
            self._prepare(access)
            # Remembered before the start, so that a server is found and adopted if its gateway is killed right now.
            self._access = access
            self.directory.remember(access)
            log = self._spawn()
            if log is None:
                return
            port_taken = not keep_port and not is_free(port)
            if not (port_taken or self._set_aside(log)) or monotonic() > deadline:
                raise UsageError(self._explained(log))
            if port_taken:
                port = free_port()

    def _spawn(self) -> str | None:
        """Start the server and wait until it is ready. Returns None, or the log of a start that failed."""
        with self.directory.open_log() as log, self.directory.life() as life:
            begin = log.tell()
            process = self._process = subprocess.Popen(
                self.directory.as_server_user(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(life,),
                cwd="/",
                env=self._environment(),
                start_new_session=True,  # Ctrl-C must not end the database: the gateway needs it until it has ended.
            )
        if wait_for(lambda: False if process.poll() is not None else (self._state() or None), START_SECONDS):
            return None
        self._terminate()
        return self.directory.log_since(begin)

    def _terminate(self) -> None:
        """End this directory's server if it runs, with the mildest signal first."""
        for number, seconds in (*self.stop_signals, (signal.SIGKILL, 3.0)):
            pid = wait_for(lambda: self._running_pid() if self.directory.is_alive() else 0, self.pid_seconds)
            if not pid:
                break
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            if wait_for(lambda: None if self.directory.is_alive() else True, seconds):
                break
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1)  # so that no zombie stays

    def _running_pid(self) -> int | None:
        """The pid of this directory's server. None when the pid file is stale and its pid belongs to another process."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        pid = self._pid_on_file()
        return pid if pid and self._marker() in command_line(pid) else None

    def _set_aside(self, log: str) -> bool:
        """Whether the start failed because of the expendable file. Then the file is moved out of the way."""
        if self.expendable is None or not any(words in log.lower() for words in self.damage):
            return False
        file = self.directory.server / self.expendable
        aside = file.with_name(file.name + ".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        file.rename(aside)
        return True

    def _run_tool(self, command: list[str], directory: Path, text: str = "") -> None:
        """Run a program of the server as the server's user, to its end. Raises UsageError with its output if it fails."""
        with self.directory.life() as life, self.directory.name_for_server() as name:
            done = subprocess.run(
                self.directory.as_server_user(command, directory),
                input=text,
                capture_output=True,
                text=True,
                # A program that outlives us uses the server's files, so it must hold the lock too.
                pass_fds=(life, *name),
                cwd="/",
                env=clean_environment() | nameless.environment(name),
                start_new_session=True,
                timeout=TOOL_SECONDS,
                check=False,
            )
        if done.returncode != 0:
            raise UsageError(self._explained(done.stdout + done.stderr))

    def _explained(self, log: str) -> str:
        place = self.directory.data_dir
        if os.strerror(errno.ENOSPC) in log:
            return _disk_full(place)
        tail = "\n  ".join(log.strip().splitlines()[-SHOWN_LOG_LINES:]) or "(the log is empty)"
        return (
            f"{self.title} cannot run in {place}: mend what the end of its log below says (the whole log is "
            f"{self.directory.log}), or set {self.setting} to a server of your own.\n  {tail}"
        )

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turn an error of the operating system into a sentence that says what to do."""
        try:
            yield
        except subprocess.TimeoutExpired as error:
            raise UsageError(self._explained(f"{error.cmd[0]} did not end within {TOOL_SECONDS:.0f} s")) from error
        except OSError as error:
            place = self.directory.data_dir
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UsageError(_disk_full(place)) from error
            raise UsageError(
                f"{self.title} cannot use {place} ({error.strerror}: {error.filename}): make it a directory you may "
                f"write to, set GATEWAY_DATA_DIR to another, or {self.setting} to a server of your own."
            ) from error


def _disk_full(place: Path) -> str:
    return (
        f"No space is left on the disk of {place}: free some, or set GATEWAY_DATA_DIR to a directory on another disk."
    )
