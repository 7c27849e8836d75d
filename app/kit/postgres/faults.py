"""Why Postgres cannot be used, and what to do: one sentence for a person, for every command. It repeats no password.

The cause is taken from the SQLSTATE and the kind of the error, never from the words of a server.
"""

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError

from app.kit.db import sqlstate
from app.kit.errors import GatewayError, UsageError, unless_out_of_files

#: What can go wrong on the way to Postgres and in it. ValueError: asyncpg cannot read the URL or a variable.
FAULTS: Final = (
    *(OSError, EOFError, DBAPIError, ValueError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
)
#: libpq's variables, which fill in what a URL leaves out.
FILLING_IN: Final = (
    *("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGPASSFILE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS"),
    *("PGSSLMODE", "PGSSLNEGOTIATION", "PGSSLROOTCERT", "PGSSLCRL", "PGSSLCERT", "PGSSLKEY"),
    *("PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION", "PGKRBSRVNAME", "PGGSSLIB"),
)
_ESCAPE: Final = "in a user or password write @ : / ? # % as %40 %3A %2F %3F %23 %25"
_SHAPE: Final = f"Write GATEWAY_DATABASE_URL as postgresql://user:password@host:5432/database; {_ESCAPE}"
_LOGIN: Final = f"Correct user and password in GATEWAY_DATABASE_URL; {_ESCAPE}"
_CERTIFICATE: Final = "Correct sslmode, sslrootcert, sslcert and sslkey in GATEWAY_DATABASE_URL"
_POOLER: Final = (
    "Let PgBouncer keep transactions together (pool_mode = transaction or session), and let it have enough connections "
    "(default_pool_size)"
)
_STEPS: Final[Mapping[str, str]] = {
    "28P01": _LOGIN,
    "28000": f"{_LOGIN}; pg_hba.conf of the server says who may come from where, and whether TLS is needed (sslmode)",
    "3D000": "Correct the database name in GATEWAY_DATABASE_URL, or create the database with `CREATE DATABASE`",
    "42501": "Let the role of GATEWAY_DATABASE_URL create tables: `GRANT CREATE ON SCHEMA public TO role`, or make it the "
    "owner of the database",
    "3F000": "Create the schema, let the role use it (`GRANT USAGE, CREATE ON SCHEMA public TO role`), or correct its "
    "search_path",
    "53300": "Raise max_connections of Postgres, or end other programs that use it",
    "57P03": "Wait until Postgres is ready, and start again",
    "25006": "Name the primary in GATEWAY_DATABASE_URL, or all hosts with target_session_attrs=read-write",
    "58030": "Look at the disk of Postgres",
    "53100": "Look at the disk of Postgres",
}


@contextmanager
def naming_postgres(url: str) -> Iterator[None]:
    """Turn an error of Postgres, or of the way to it, into a sentence that says where it is and what to do. Put nothing else
    into the block: its errors would be blamed on Postgres."""
    try:
        yield
    except FAULTS as error:
        if isinstance(error, OSError):
            unless_out_of_files(error)
        if (keys := os.environ.get("SSLKEYLOGFILE")) and getattr(error, "filename", None) == keys:
            raise UsageError(
                f"SSLKEYLOGFILE: {keys} cannot be used ({error}): correct it, or remove the variable"
            ) from error
        cause, step = explain(error, os.environ)
        more = "Look at Postgres and at GATEWAY_DATABASE_URL; `trigger-gateway doctor` says more"
        raise GatewayError(f"Postgres at {place(url)} cannot be used: {cause}. {step}. {more}") from error


def place(url: str) -> str:
    """Where a URL leads: host, port and database, without a user or a password."""
    if "://" not in url:
        return "GATEWAY_DATABASE_URL"
    after = url.rpartition("@")[2] if "@" in url else url.partition("://")[2]
    return after.partition("?")[0] or "GATEWAY_DATABASE_URL"


def explain(error: BaseException, environ: Mapping[str, str]) -> tuple[str, str]:
    """The cause and what to do."""
    state, driver = sqlstate(error), error
    if isinstance(error, DBAPIError) and error.orig is not None:
        driver = error.orig.__cause__ or error.orig  # SQLAlchemy wraps the driver's error twice.
    cause = " ".join(str(driver).split()) or type(driver).__name__
    if state is not None and not state.startswith("08"):  # Class 08 is about the connection: the driver says so itself.
        step = _STEPS.get(state, "Look at the log of Postgres")
        if isinstance(driver, asyncpg.InsufficientPrivilegeError) and getattr(error, "statement", None) is None:
            step = "Let the role of GATEWAY_DATABASE_URL connect: `GRANT CONNECT ON DATABASE name TO role`"
        return cause, _with_variables(step, environ, login=state in ("28P01", "28000", "3D000"))
    cause, step = _without_answer(driver, cause)
    return cause, _with_variables(step, environ, login=True)


def _without_answer(error: BaseException, cause: str) -> tuple[str, str]:
    """Postgres did not say why: it was not reached, or is none."""
    correct = "GATEWAY_DATABASE_URL"
    match error:
        case socket.gaierror():
            return f"its host is not known ({error.strerror})", f"Correct the host in {correct}; {_ESCAPE}"
        case ssl.SSLError():
            return f"TLS failed: {cause}", _CERTIFICATE
        case TimeoutError():
            return (
                "no answer in time",
                f"Correct host and port in {correct}, or open the way to them (a firewall, the network)",
            )
        case OSError() if error.filename is not None and not isinstance(error, ConnectionError):
            return f"{error.filename} cannot be read: {error.strerror}", _CERTIFICATE
        case FileNotFoundError() | PermissionError():
            return f"a file that it needs cannot be read: {error.strerror}", _CERTIFICATE
        case _ if any(isinstance(each, asyncpg.ProtocolViolationError) for each in (error, error.__cause__)):
            return f"a pooler in front of it ended the connection ({cause})", _POOLER
        case asyncpg.TargetServerAttributeNotMatched():
            return (
                "no host is of the kind that target_session_attrs asks for",
                f"Correct it, or the hosts, in {correct}",
            )
        case asyncpg.InterfaceError():
            return f"the URL cannot be used: {cause}", _SHAPE
        case asyncpg.PostgresError() | asyncpg.InternalClientError() | EOFError():
            return f"what answers there is not Postgres, or ended the connection ({cause})", (
                f"Correct host and port in {correct}"
            )
        case ConnectionError() if error.errno is None:  # asyncpg's own: it wants TLS, and the server has none.
            return cause, _CERTIFICATE
        case OSError():
            return f"nothing answers there ({cause})", f"Start Postgres, or correct host and port in {correct}"
    # A ValueError of asyncpg quotes the piece that it cannot read, which may be a part of the password.
    return "GATEWAY_DATABASE_URL cannot be read", _SHAPE


def _with_variables(step: str, environ: Mapping[str, str], *, login: bool) -> str:
    found = [name for name in FILLING_IN if environ.get(name)] if login else []
    return f"{step}. Where the URL says nothing, {', '.join(found)} of the environment count" if found else step
