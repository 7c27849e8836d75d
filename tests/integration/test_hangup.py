"""SIGHUP reloads; the SIGHUP of a terminal that was closed ends the gateway, since nobody asked for a daemon."""

import os
import pty
import signal
import sys

import pytest

from app.kit.embedded.processes import wait_for

PROGRAM = """
import asyncio, os, signal, sys
from app.cli.workers import reloading_on_hangup

async def main():
    done = asyncio.Event()
    for number in (signal.SIGTERM,):
        asyncio.get_running_loop().add_signal_handler(number, lambda: (os.write({out}, b"ended "), done.set()))
    with reloading_on_hangup(lambda: os.write({out}, b"reloaded ")):
        os.write({out}, b"ready ")
        await asyncio.wait_for(done.wait(), 30)

if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
asyncio.run(main())
"""


class Terminal:
    """A program that is the leader of a terminal of its own, and what it has written so far."""

    def __init__(self, *arguments: str) -> None:
        self._reads, writes = os.pipe()
        os.set_inheritable(writes, True)
        os.set_blocking(self._reads, False)
        self.output = ""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # The tests themselves may run under nohup.
            os.execv(sys.executable, [sys.executable, "-c", PROGRAM.replace("{out}", str(writes)), *arguments])
        os.close(writes)

    def wait_for(self, word: str) -> None:
        def heard() -> bool | None:
            try:
                self.output += os.read(self._reads, 1000).decode()
            except BlockingIOError:
                return None
            return word in self.output or None

        assert wait_for(heard, 20), self.output


@pytest.mark.parametrize(
    ("arguments", "then"), [((), "ended"), (("nohup",), "reloaded reloaded")], ids=["usually", "under nohup"]
)
def test_a_signal_reloads_and_a_closed_terminal_ends(arguments: tuple[str, ...], then: str) -> None:
    terminal = Terminal(*arguments)
    try:
        terminal.wait_for("ready")
        os.kill(terminal.pid, signal.SIGHUP)
        terminal.wait_for("reloaded")
        os.close(terminal.master)
        terminal.wait_for(then)
    finally:
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)
