"""What every room does with Postgres: transactions, retries after races, rows in and out."""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
from pydantic_core import to_json
from sqlalchemy import Table, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.selectable import TextualSelect
from sqlalchemy.types import TypeEngine

from app.kit.clock import monotonic
from app.kit.postgres.connection import UnusableDatabase, open_pool, read_url

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: A statement did not get a lock in time.
LOCK_TIMEOUT = "55P03"
#: Try the batch again: serialization failure, deadlock, a row that another process has inserted, lock timeout.
TRY_AGAIN = frozenset({"40001", "40P01", "23505", LOCK_TIMEOUT})
#: How often that is tried, in all.
ATTEMPTS = 5
#: Errors of asyncpg while it connects. SQLAlchemy does not wrap them.
CONNECTING = (asyncpg.PostgresError, asyncpg.InterfaceError, UnusableDatabase)
#: The classes of SQLSTATE that are about the data, not about the server's health.
DATA_ERRORS = ("22", "23", "21", "54")
#: Errors of the database, or of the way to it.
OF_THE_DATABASE = (SQLAlchemyError, *CONNECTING, OSError, EOFError)


def open_engine(url: str, *, pool_size: int = 10, read_only: bool = False) -> AsyncEngine:
    """An engine whose connections give up: on a lock after 2 s, on a statement after 5 s, in an idle transaction after 10 s.
    So a peer that is stuck costs a retry, not the service. With `read_only` the server refuses every write.

    Raises UsageError for a URL that cannot be used.
    """
    settings = {
        "lock_timeout": "2s",
        "statement_timeout": "5s",
        "idle_in_transaction_session_timeout": "10s",
        "jit": "off",
    }
    if read_only:
        settings["default_transaction_read_only"] = "on"
    engine = open_pool(
        read_url(url, "GATEWAY_DATABASE_READ_URL" if read_only else "GATEWAY_DATABASE_URL"),
        settings,
        command_timeout=6,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=1800,
    )
    event.listen(engine.sync_engine, "invalidate", _end_at_once)
    return engine


def _end_at_once(connection: Any, *_: object) -> None:
    """Close at once. Otherwise a server that did not answer gets 2 s more to close, and the caller waits for it."""
    connection.driver_connection.terminate()


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction. A connection to a server that has become read-only (25006: a failover) is thrown away."""
    async with engine.connect() as conn, _leaving_a_standby(engine, conn), conn.begin():
        yield conn


async def again_after_races(
    work: Callable[[], Awaitable[Result]], lost: Callable[[DBAPIError], None] = lambda _error: None
) -> Result:
    """Do `work`, and do it again from the start when it loses a race (TRY_AGAIN), ATTEMPTS times at most. Each lost race
    calls `lost`. The pauses are random, so that two processes that collided do not collide again."""
    for attempt in range(ATTEMPTS):
        try:
            return await work()
        except DBAPIError as error:
            if sqlstate(error) not in TRY_AGAIN:
                raise
            lost(error)
            if attempt == ATTEMPTS - 1:
                raise
        await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))
    raise AssertionError("the last attempt returns or raises")


async def with_retries(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
    """Do `work` in one transaction, again from the start when it loses a race. It is done more than once only if nothing of
    it was committed, so it must change nothing but the database: count and ring afterwards."""

    async def whole() -> Result:
        async with transaction(engine) as conn:
            return await work(conn)

    return await again_after_races(whole)


@asynccontextmanager
async def _leaving_a_standby(engine: AsyncEngine, conn: AsyncConnection) -> AsyncIterator[None]:
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) == "25006":
            await conn.invalidate()
            await engine.dispose(close=False)
        raise


@asynccontextmanager
async def one_statement(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """For one statement that is a transaction by itself. Without BEGIN and COMMIT it costs one round trip. Through a pooler
    it needs both, because they bring the timeouts."""
    async with engine.connect() as conn:
        if is_pooled(conn):
            async with _leaving_a_standby(engine, conn), conn.begin():
                yield conn
            return
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        async with _leaving_a_standby(engine, conn):
            yield conn


def is_pooled(conn: AsyncConnection) -> bool:
    """Whether a pooler such as PgBouncer is in between: then nothing outlives a transaction but its rows."""
    pooled: bool = _driver_of(conn).pooled
    return pooled


def backend_pid(conn: AsyncConnection) -> int | None:
    """The pid of the server process behind a connection; None when a pooler hides it. It sends no query."""
    pid: int = _driver_of(conn).get_server_pid()
    return None if is_pooled(conn) else pid


def _driver_of(conn: AsyncConnection) -> Any:
    assert conn.sync_connection is not None
    return conn.sync_connection.connection.driver_connection


async def database_now(engine: AsyncEngine) -> tuple[datetime, float]:
    """The database's time, and the value of monotonic() at that moment: half way through the round trip. The wait for a
    connection does not count."""
    async with one_statement(engine) as conn:
        before = monotonic()
        now: datetime = (await conn.execute(text("SELECT clock_timestamp()"))).scalar_one()
        return now, (before + monotonic()) / 2


def names_of(table: Table, of: str = "") -> str:
    """The columns of a table by name, for a statement; `of`: the table's name in it. Never `*`: when a newer version has
    migrated the database, the table may have columns that this one does not know."""
    return ", ".join(f'{of}."{c.name}"' if of else f'"{c.name}"' for c in table.columns)


def rows_of(statement: str, table: Table, **more: TypeEngine[Any]) -> TextualSelect:
    """SQL text that returns columns of a table, matched by name, so that values come back in their types."""
    return text(statement).columns(**{c.name: c.type for c in table.columns}, **more)


async def insert_rows(conn: AsyncConnection, table: Table, rows: list[dict[str, Any]], conflict: str = "") -> int:
    """INSERT all rows in one statement. Returns how many it inserted. All rows have the same columns; others are NULL."""
    if not rows:
        return 0
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError(f"the new rows of {table.name} do not share their columns")
    columns = ", ".join(f'"{name}"' for name in rows[0])
    values = f"jsonb_populate_recordset(NULL::{table.name}, CAST(:rows AS jsonb))"
    statement = f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {values} {conflict}"
    return (await conn.execute(text(statement), {"rows": as_json(rows)})).rowcount


async def update_rows(
    conn: AsyncConnection, table: Table, rows: list[dict[str, Any]], columns: Sequence[str], key: str = "id"
) -> None:
    """UPDATE the columns of all rows, found by their key, in one statement."""
    if not rows:
        return
    sets = ", ".join(f'"{name}" = v."{name}"' for name in columns)
    values = f"jsonb_populate_recordset(NULL::{table.name}, CAST(:rows AS jsonb)) v"
    statement = f"UPDATE {table.name} SET {sets} FROM {values} WHERE {table.name}.{key} = v.{key}"
    await conn.execute(text(statement), {"rows": as_json(rows)})


def as_json(value: Any) -> str:
    """JSON text for a jsonb parameter. Datetimes and UUIDs become text."""
    try:
        return to_json(value).decode()
    except ValueError:  # Half of a surrogate pair, say: Postgres' driver names the fault of such a text.
        return json.dumps(value, default=str, ensure_ascii=False)


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of an error: five characters. None when the error is not from Postgres."""
    seen: Any = error
    while seen is not None:
        state = getattr(seen, "sqlstate", None)
        if isinstance(state, str):
            return state
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None


def is_temporary(error: Exception) -> bool:
    """Whether an error is about a race or about the way to the database, and not about the rows to write."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or sqlstate(error) in TRY_AGAIN
    return isinstance(error, OF_THE_DATABASE)


def is_about_rows(error: Exception) -> bool:
    """Whether Postgres refuses a value that we gave it."""
    return (sqlstate(error) or "").startswith(DATA_ERRORS) and not is_temporary(error)


def log_a_bug(error: Exception) -> None:
    """For a probe, which answers after every error. An error that is not of the database is a bug: write it to the log."""
    if not isinstance(error, OF_THE_DATABASE):
        log.error("a bug: a probe broke", exc_info=error)
