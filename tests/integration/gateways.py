"""Processes that use embedded servers as a gateway does, and the questions tests ask about them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncpg
import redis

from app.kit.embedded import unprivileged
from app.kit.embedded.directory import NOBODY
from app.kit.embedded.processes import wait_for

ROOT = os.geteuid() == 0
NAMELESS = 54321  # no user of any machine, as OpenShift chooses one for a container
REPOSITORY = Path(__file__).parents[2]

# It ends without a word when its standard input does, as a process that leaves everything to atexit.
PROGRAM = """
import json, sys
from pathlib import Path
from app.kit.embedded import start_postgres, start_valkey
from app.kit.errors import UsageError
try:
    postgres, valkey = start_postgres(Path(sys.argv[1]), durable=False), start_valkey(Path(sys.argv[1]))
except UsageError as error:
    sys.exit(str(error))
print(json.dumps([postgres.url, valkey.url]), flush=True)
sys.stdin.read()
"""


@dataclass(slots=True)
class Gateway:
    """A process of its own that has started the servers of a directory, as the user `uid` if root may choose."""

    data_dir: Path
    uid: int = os.geteuid()
    environment: Mapping[str, str] | None = None
    program: str = PROGRAM
    process: subprocess.Popen[str] | None = None
    postgres: str = ""
    valkey: str = ""

    def begin(self) -> Self:
        """Start the process without waiting for it."""
        command = [sys.executable, "-c", self.program, str(self.data_dir)]
        if self.uid != os.geteuid():
            become = [unprivileged.__file__, str(self.uid), str(self.uid), str(self.data_dir.parent)]
            command = [sys.executable, "-I", "-S", *become, *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(self.environment or {})},
        )
        return self

    def ready(self) -> Self:
        """Wait until its servers answer."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.refusal()
        self.postgres, self.valkey = json.loads(line)
        return self

    def refusal(self) -> str:
        """What it said when it could not start."""
        assert self.process is not None
        return self.process.communicate(timeout=30)[1]

    def end(self) -> None:
        """Let it end by itself, as after Ctrl-C."""
        assert self.process is not None
        self.process.communicate(timeout=30)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate(timeout=30)

    def __enter__(self) -> Self:
        return self.begin().ready()

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.end()


def ask(url: str, *statements: str) -> Any:
    """Run SQL statements on one connection; the first value of the last one."""

    async def run() -> Any:
        connection = await asyncpg.connect(url, timeout=30)
        try:
            answers = [await connection.fetchval(statement) for statement in statements]
        finally:
            await connection.close()
        return answers[-1]

    return asyncio.run(run())


def write(postgres: str, valkey: str, word: str) -> None:
    """Keep a word in both servers."""
    ask(postgres, "CREATE TABLE IF NOT EXISTS kept (word text)", f"INSERT INTO kept VALUES ('{word}')")
    with redis.Redis.from_url(valkey) as client:
        client.set("kept", word)


def read(postgres: str, valkey: str) -> tuple[Any, Any]:
    """The word kept in each of them."""
    with redis.Redis.from_url(valkey, decode_responses=True) as client:
        return ask(postgres, "SELECT string_agg(word, ',') FROM kept"), client.get("kept")


def pid_of(data_dir: Path, server: str) -> int:
    """The pid that the server has written into its own pid file."""
    file = {"postgres": "postgres/postmaster.pid", "valkey": "valkey/valkey.pid"}[server]
    return int((data_dir / file).read_text().split()[0])


def has_ended(pid: int) -> bool:
    """Whether that process is gone within 30 seconds, or is only a zombie that nobody has asked for."""

    def gone() -> bool | None:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return True if not state.stdout.strip() or state.stdout.startswith("Z") else None

    return bool(wait_for(gone, 30.0))


def kill(pid: int) -> None:
    """kill -9, and wait for the end."""
    os.kill(pid, signal.SIGKILL)
    assert has_ended(pid)


def ordinary_users() -> list[int]:
    """Who the tests can be: the user who runs them, and for root an ordinary one too."""
    return [os.geteuid(), NOBODY] if ROOT else [os.geteuid()]


def nameless_users() -> list[int]:
    """A user without a name, whom only root can become."""
    return [NAMELESS] if ROOT else []
