"""One connection to Postgres, straight or through a pooler such as PgBouncer.

Straight, the gateway's settings belong to the session. A pooler may give each transaction to another session of Postgres
(PgBouncer's `pool_mode = transaction`). So through a pooler they are set again at the beginning of each transaction, in the
same message as BEGIN, and no prepared statement has a name.

Nobody has to say that there is a pooler. It refuses the settings of a start (08P01), or answers with another process id than
the session has.
"""

import asyncio
import getpass
import os
import socket
import ssl
from collections.abc import Mapping
from configparser import ConfigParser, Error
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.kit.errors import UsageError
from app.kit.postgres.url import PostgresUrl, parse_postgres_url

#: Settings of a role or a database that would change what our statements mean.
MEANING: Final = {
    "default_transaction_isolation": "read committed",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
}
OLDEST: Final = 14  # the oldest major version that PostgreSQL's project did not give up before 2026-11
_KEEPALIVE: Final = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}
_FACTS: Final = """
    SELECT pg_backend_pid() AS pid, getdatabaseencoding() AS encoding, current_database() AS database,
        current_setting('server_version_num')::int / 10000 AS version, current_setting('synchronous_commit') AS commits,
        coalesce(current_setting('idle_session_timeout', true), '0') AS patience
"""


class UnusableDatabase(UsageError):
    """The database answers, and the gateway cannot keep its promises with it. `step` is what to do."""

    def __init__(self, cause: str, step: str) -> None:
        super().__init__(f"{cause}: {step}")
        self.cause = cause
        self.step = step


class _Pooled(Exception):
    """A pooler answers, and the connection was opened as if there were none."""


def read_url(text: str, setting: str = "GATEWAY_DATABASE_URL") -> PostgresUrl:
    """A URL with the parameters of its service file, if it names one. Raises UsageError with one sentence, also for a file
    that cannot be read."""
    try:
        url = parse_postgres_url(text)
        if url.service is not None:
            url = parse_postgres_url(text, _service(*url.service))
        for name, path in url.files.items():
            _readable(name, Path(path))  # As libpq and the driver, which know no `~` here.
    except ValueError as error:
        raise UsageError(f"{setting}: {error}") from None
    except OSError as error:
        raise UsageError(f"{setting}: {error.filename} cannot be read: {error.strerror}") from error
    return url


def _readable(name: str, path: Path) -> None:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
    if name == "passfile" and mode & 0o077:
        raise ValueError(f"passfile {path} is open to other users, so libpq's rules forbid to use it: chmod 600")


def _service(name: str, file: str | None) -> dict[str, str]:
    places = [file or os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf"]
    if directory := os.environ.get("PGSYSCONFDIR"):
        places.append(f"{directory}/pg_service.conf")
    for place in places:
        services = ConfigParser(interpolation=None)
        with suppress(FileNotFoundError, RuntimeError):  # RuntimeError: a user without a home directory
            try:
                services.read_string(Path(place).expanduser().read_text())
            except Error as error:
                raise ValueError(f"the service file {place} cannot be read: {' '.join(str(error).split())}") from None
        if services.has_section(name):
            return dict(services.items(name))
    raise ValueError(f"the service {name!r} is not in {' or '.join(places)}")


def open_pool(
    url: PostgresUrl,
    settings: Mapping[str, str],
    *,
    command_timeout: float | None = None,
    **pool: Any,
) -> AsyncEngine:
    """An engine whose transactions all have `settings`, those of MEANING and those of the URL. `pool` goes to SQLAlchemy.
    Nothing is opened yet."""
    engine = create_async_engine("postgresql+asyncpg://", **pool)
    pooled = False

    def connect(dialect: Any, *_: object) -> Any:
        nonlocal pooled
        make = partial(_connect, url, settings, command_timeout=command_timeout)
        if not pooled:
            with suppress(_Pooled):
                return dialect.loaded_dbapi.connect(async_creator_fn=partial(make, pooled=False))
            pooled = True
        # `str` gives each prepared statement the name "". Postgres holds one such at most, so SQLAlchemy must keep none.
        return dialect.loaded_dbapi.connect(
            async_creator_fn=partial(make, pooled=True),
            prepared_statement_cache_size=0,
            prepared_statement_name_func=str,
        )

    event.listen(engine.sync_engine, "do_connect", connect)
    return engine


async def _connect(
    url: PostgresUrl,
    settings: Mapping[str, str],
    *,
    pooled: bool,
    command_timeout: float | None,
) -> asyncpg.Connection:
    """A connection on which every transaction has these settings, and those of MEANING and of the URL.

    Raises _Pooled when `pooled` is false and a pooler answers; UsageError when the database cannot be used at all; and the
    errors of asyncpg.
    """
    wanted = {**url.settings, **MEANING, **settings}
    start = {"application_name": url.application_name} | ({} if pooled else wanted)
    try:
        connection: Any = await asyncpg.connect(
            **_arguments(url),
            timeout=url.timeout,
            command_timeout=command_timeout,
            server_settings=start,
            # SQLAlchemy keeps prepared statements, where they may be kept. Without a cache asyncpg's own questions have
            # no name, and each is asked in one message, so that a pooler cannot part it.
            statement_cache_size=0,
            connection_class=_PooledConnection if pooled else _Connection,
        )
    except asyncpg.ProtocolViolationError as error:
        if pooled:
            raise
        raise _Pooled from error
    try:
        _keep_alive(url.keepalive, connection.descriptor)
        facts = await connection.fetchrow(_FACTS)
        if not pooled and facts["pid"] != connection.get_server_pid():
            raise _Pooled
        _check(facts)
        mended = {}
        if facts["commits"] == "off":  # An alert is acknowledged when it is durable, whatever the role's wish is.
            mended["synchronous_commit"] = "on"
        if facts["patience"] != "0":  # It would end connections that wait for the next alert.
            mended["idle_session_timeout"] = "0"
        if mended and not pooled:
            await connection.execute("; ".join(f"SET {name} = {value}" for name, value in mended.items()))
        if pooled:
            connection.begin_with(wanted | mended)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _check(facts: Mapping[str, Any]) -> None:
    if facts["encoding"] != "UTF8":
        raise UnusableDatabase(
            f"the database {facts['database']} has the encoding {facts['encoding']}, which cannot hold every alert",
            "Make one with `CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0`, and name it in GATEWAY_DATABASE_URL.",
        )
    if facts["version"] < OLDEST:
        raise UnusableDatabase(
            f"the database is served by PostgreSQL {facts['version']}, and the gateway needs {OLDEST} or newer",
            "Upgrade PostgreSQL.",
        )


def _arguments(url: PostgresUrl) -> dict[str, Any]:
    """What asyncpg takes. It reads the names of TLS files from a URL only."""
    tls = dict(url.tls)
    found: dict[str, Any] = {
        "user": url.user or _user(),
        "password": url.password,
        "database": url.database,
        "passfile": url.files.get("passfile"),
        "target_session_attrs": url.target,
        **url.kerberos,
    }
    if url.hosts:
        found["host"] = list(url.hosts)
    if url.ports:
        found["port"] = list(url.ports)
    if tls.get("sslrootcert") == "system":
        context = ssl.create_default_context()
        if "sslcert" in tls:
            context.load_cert_chain(tls["sslcert"], tls.get("sslkey"), tls.get("sslpassword"))
        return found | {"ssl": context}
    return found | ({"dsn": f"postgresql://?{urlencode(tls, quote_via=quote)}"} if tls else {})


def _user() -> str | None:
    """None: the driver finds one. Raises UsageError for a user of this machine without a name, as in a container."""
    try:
        return None if os.environ.get("PGUSER") else getpass.getuser()
    except (KeyError, OSError):
        raise UsageError(
            "GATEWAY_DATABASE_URL names no user, and the user of this process has no name: write postgresql://USER@HOST/..."
        ) from None


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that knows the number of its socket."""

    __slots__ = ("descriptor",)

    pooled = False  # asyncpg's isinstance() takes its classes for one

    def __init__(self, protocol: Any, transport: asyncio.Transport, *more: Any) -> None:
        super().__init__(protocol, transport, *more)
        self.descriptor: int = transport.get_extra_info("socket").fileno()


class _PooledConnection(_Connection):
    """A connection to a pooler: each transaction may have another session of Postgres, and begins with its settings."""

    __slots__ = ("_begin",)

    pooled = True

    def begin_with(self, settings: Mapping[str, str]) -> None:
        """Every transaction from now on has these settings."""
        settings = dict(settings)
        isolation = settings.pop("default_transaction_isolation")
        access = " READ ONLY" if settings.pop("default_transaction_read_only", "off") == "on" else ""
        calls = ", ".join(f"set_config({_text(name)}, {_text(value)}, true)" for name, value in settings.items())
        self._begin = f"BEGIN ISOLATION LEVEL {isolation.upper()}{access}; SELECT {calls}"

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 (asyncpg's)
        """As asyncpg, which begins each transaction with it."""
        if not query.startswith("BEGIN"):
            done: str = await super().execute(query, *args, timeout=timeout)
            return done
        try:
            done = await super().execute(self._begin, timeout=timeout)
        except BaseException:
            with suppress(Exception):
                await super().execute("ROLLBACK")  # Postgres may have begun before it refused a setting.
            raise
        return done


def _text(value: str) -> str:
    """A literal that means the same whatever standard_conforming_strings is."""
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _keep_alive(wanted: Mapping[str, int], descriptor: int) -> None:
    """Let the kernel look for a peer that is gone, as libpq does unless keepalives=0."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family == socket.AF_UNIX:
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, wanted.get("keepalives", 1))
        for name, option in _KEEPALIVE.items():
            if wanted.get(name) and (number := getattr(socket, option, None)) is not None:  # 0: the system's default
                connection.setsockopt(socket.IPPROTO_TCP, number, wanted[name])
