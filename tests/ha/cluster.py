"""PostgreSQL as a primary with a standby, from the wheel's programs: made, killed, promoted, rewound, restored.

It does what docs/operations/high-availability.md says, in the same order and with the same programs. Everybody may log in
from loopback: the machine is a test's.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from app.kit.embedded import nameless
from app.kit.embedded.directory import ServerDirectory
from app.kit.embedded.postgres import _programs
from app.kit.embedded.processes import clean_environment, free_port, wait_for

USER = "postgres"
START_SECONDS = 60.0
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "wal_level": "replica",
    "max_wal_senders": "8",
    "hot_standby": "on",
    "wal_keep_size": "256MB",
    # The standby archives, too: a segment that the primary had filled and not yet archived when it died is not lost.
    "archive_mode": "always",
    # A promotion that meets a standby between two looks at the archive waits for the next one: 5 s by default.
    "wal_retrieve_retry_interval": "500ms",
    "timezone": "UTC",
}


CHAPTER = Path(__file__).resolve().parents[2] / "docs/operations/high-availability.md"


def _told(setting: str) -> str:
    """What the chapter tells to write into postgresql.conf."""
    (value,) = re.findall(rf"^{setting} = '(.*)'", CHAPTER.read_text(), re.MULTILINE)
    return str(value)


@dataclass
class Node:
    """One PostgreSQL in `base`/`name`; WAL that is full goes to `base`/archive, which all nodes share."""

    base: Path
    name: str
    durable: bool  # False leaves out fsync, for machines whose power does not fail during a test
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.base / self.name

    @property
    def archive(self) -> Path:
        return self.base / "archive"

    @property
    def _restore(self) -> str:
        return f"restore_command = '{_told('restore_command').replace('/archive/', f'{self.archive}/')}'\n"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """An empty cluster."""
        _own(self.archive, self._user())
        made = ("--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8")
        self._run("initdb", f"--pgdata={self.data}", f"--username={USER}", *made)
        # In the file and not on the command line: pg_rewind looks for it there.
        self._write("postgresql.auto.conf", self._restore)

    def copy_of(self, other: "Node", *, standby: bool) -> None:
        """A base backup of `other`, while it works; with `standby` one that follows it from there on."""
        follow = ["--write-recovery-conf", f"--dbname=application_name={self.name}"] if standby else []
        where = ["--host=127.0.0.1", f"--port={other.port}", f"--username={USER}", "--no-sync", "--checkpoint=fast"]
        self._run("pg_basebackup", f"--pgdata={self.data}", "--wal-method=stream", *where, *follow)

    def follow(self, other: "Node") -> None:
        """From its next start on a standby of `other`."""
        settings = f"primary_conninfo = 'host=127.0.0.1 port={other.port} user={USER} application_name={self.name}'\n"
        self._write("standby.signal", "")
        self._write("postgresql.auto.conf", self._restore + settings)

    def never_write(self) -> None:
        """From its next start on a server that only reads and follows nobody: a primary that was replaced."""
        self._write("standby.signal", "")

    def recover_to(self, moment: str) -> None:
        """From its next start on what the archive tells up to that moment (RFC 3339), and then a primary of its own."""
        target = f"recovery_target_time = '{moment}'\nrecovery_target_action = 'promote'\n"
        self._write("recovery.signal", "")
        self._write("postgresql.auto.conf", self._restore + target)

    def rewind_to(self, other: "Node") -> None:
        """Take back what this node wrote and `other` never got; `other` must be the primary."""
        source = f"--source-server=host=127.0.0.1 port={other.port} user={USER} dbname=postgres"
        self._run("pg_rewind", f"--target-pgdata={self.data}", source, "--no-sync", "--restore-target-wal")

    def start(self, **settings: str) -> None:
        """Start it with these settings besides SETTINGS; returns when it answers."""
        # What is archived is never overwritten; the other node's copy of the same segment will do.
        keep = _told("archive_command").replace("/archive/", f"{self.archive}/").replace("$(hostname)", self.name)
        chosen = SETTINGS | {"port": str(self.port), "archive_command": keep, **settings}
        chosen |= {} if self.durable else {"fsync": "off"}
        options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
        with (self.base / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._as_server(str(_programs() / "postgres"), "-D", str(self.data), *options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
                cwd="/",
                start_new_session=True,
            )
        process = self.process
        up = wait_for(lambda: False if process.poll() is not None else (self._answers() or None), START_SECONDS)
        assert up, (self.base / f"{self.name}.log").read_text()[-3000:]

    def kill(self) -> None:
        """kill -9 of every process of it: what was not yet sent or written is gone."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            for child in _session(self.process.pid):  # Its children lead process groups of their own.
                os.kill(child, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """The fast shutdown."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)
            self.process = None

    async def sql(self, statement: str, *values: object, database: str = "postgres") -> list[asyncpg.Record]:
        """The rows of one statement, outside any transaction."""
        connection = await asyncpg.connect(self.url(database), timeout=10)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *values)
            return rows
        finally:
            await connection.close()

    def _answers(self) -> bool:
        ready = [str(_programs() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, env=clean_environment(), check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        _own(self.data, self._user())
        with ServerDirectory(self.base, self.name).name_for_server() as name:
            done = subprocess.run(
                self._as_server(str(_programs() / program), *arguments),
                capture_output=True,
                text=True,
                pass_fds=name,
                env=clean_environment() | nameless.environment(name),
                cwd="/",
            )
        assert done.returncode == 0, done.stdout + done.stderr

    def _user(self) -> tuple[int, int]:
        return ServerDirectory(self.base, self.name).server_user()

    def _as_server(self, *command: str) -> list[str]:
        return ServerDirectory(self.base, self.name).as_server_user(list(command))

    def _write(self, name: str, text: str) -> None:
        ServerDirectory(self.base, self.name).write_for_server(self.data / name, text)


def multi_host(nodes: Sequence[Node], database: str, parameters: Mapping[str, str] = {}) -> str:
    """The URL by which the gateway finds whichever of these nodes is the primary."""
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    more = "".join(f"&{name}={value}" for name, value in parameters.items())
    return f"postgresql://{USER}@{hosts}/{database}?target_session_attrs=read-write{more}"


def mlflow_multi_host(nodes: Sequence[Node], database: str) -> str:
    """The same for MLflow: SQLAlchemy with psycopg2."""
    hosts = "&".join(f"host=127.0.0.1:{node.port}" for node in nodes)
    return f"postgresql+psycopg2://{USER}@/{database}?{hosts}&target_session_attrs=read-write"


def _own(folder: Path, user: tuple[int, int]) -> None:
    """A directory of the server's user."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(folder, *user)


def _session(leader: int) -> list[int]:
    """The processes of a session, whatever their process groups (the sixth field of /proc/PID/stat)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            found.append(int(entry.name))
    return found
