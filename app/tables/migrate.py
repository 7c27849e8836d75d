"""Migrate the database to the schema of this version, by Alembic, from a checkout or from the wheel."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from app.kit.clock import monotonic
from app.kit.db import is_pooled
from app.kit.errors import GatewayError
from app.kit.postgres.connection import open_pool, read_url

#: A constant ("gateway" in ASCII). Every replica of every version must use the same.
_LOCK = 0x67617465776179
_LOCK_POLL = 0.2  # seconds
_LIMITS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")


def migrations_dir() -> Path:
    """The folder of env.py and the versions: in the installed package, or beside `app/` in a checkout.

    Raises GatewayError when neither exists: the installation is broken.
    """
    app = Path(__file__).resolve().parents[1]
    for candidate in (app / "_migrations", app.parent / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise GatewayError("The database migrations are missing from this installation; install trigger-gateway again.")


def migration_engine(url: str) -> AsyncEngine:
    """An engine for schema changes: no limit on how long a statement may take, whatever the role's limits are.

    `url` is a plain `postgresql://` URL. Raises UsageError when it cannot be used.
    """
    parsed = read_url(url)
    parsed = replace(parsed, application_name=f"{parsed.application_name} migrate")
    return open_pool(parsed, dict.fromkeys(_LIMITS, "0"), poolclass=NullPool)


async def upgrade(url: str, *, migrations: Path | None = None) -> None:
    """Migrate the database at the plain `postgresql://` URL to the newest schema, if it is not there yet.

    `migrations` is the folder of the migrations; default: `migrations_dir()`. Any number of replicas may call this at
    once: one migrates, and the others wait for it. Raises the errors of asyncpg and SQLAlchemy when the database cannot
    be reached or refuses, and GatewayError when another replica takes more than 300 s.
    """
    engine = migration_engine(url)
    try:
        async with engine.connect() as connection:
            await under_lock(connection, partial(_upgrade, migrations or migrations_dir()))
    finally:
        await engine.dispose()


async def under_lock(
    connection: AsyncConnection, work: Callable[[Connection], None], *, patience: float = 300.0
) -> None:
    """Run `work` while no other process migrates this database. Raises GatewayError after `patience` seconds.

    The lock belongs to the session: it stays over the commits of single migrations, and ends when its process is killed.
    It is polled. A session that waits inside Postgres holds a snapshot, and CREATE INDEX CONCURRENTLY in the migrating
    session would wait for that snapshot (see the documentation of CREATE INDEX). Through a pooler there is no session: then
    the lock belongs to a transaction of a second connection, which stays open and holds no snapshot meanwhile.
    """
    if not is_pooled(connection):
        await _under_lock(connection, connection, work, patience)
        return
    async with connection.engine.connect() as holder:
        await _under_lock(connection, holder, work, patience)


async def _under_lock(
    connection: AsyncConnection, holder: AsyncConnection, work: Callable[[Connection], None], patience: float
) -> None:
    session = holder is connection
    take = "pg_try_advisory_lock" if session else "pg_try_advisory_xact_lock"
    deadline = monotonic() + patience
    while not (await holder.execute(text(f"SELECT {take}(:key)"), {"key": _LOCK})).scalar_one():
        await holder.rollback()
        if monotonic() > deadline:
            raise GatewayError(f"Another process has been migrating this database for {patience:g} s.")
        await asyncio.sleep(_LOCK_POLL)
    try:
        if session:
            await holder.commit()
        else:
            await holder.begin_nested()  # A new statement lets go of the snapshot that the last one still holds.
        await connection.run_sync(work)
    finally:
        await connection.rollback()
        if session:
            await holder.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            await holder.commit()


async def current_and_head(where: AsyncConnection | str) -> tuple[str | None, str]:
    """The revision of the database (None: never migrated), and the revision that this version of the gateway needs.

    `where` is an open connection, or a plain `postgresql://` URL: then a connection is opened and closed.
    """
    if isinstance(where, AsyncConnection):
        return await where.run_sync(_current), head()
    engine = migration_engine(where)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_current), head()
    finally:
        await engine.dispose()


async def is_newer(connection: AsyncConnection, current: str | None) -> bool:
    """Whether a newer version of the gateway has migrated the database to `current`: this version does not know that
    revision, and the tables are the gateway's. Replicas of this version go on until they are replaced."""
    if current is None or current in _revisions():
        return False
    return bool((await connection.execute(text("SELECT to_regclass('decisions') IS NOT NULL"))).scalar_one())


@cache
def _revisions() -> frozenset[str]:
    walk = ScriptDirectory.from_config(_config(migrations_dir())).walk_revisions()
    return frozenset(script.revision for script in walk)


@cache
def head() -> str:
    """The newest revision in `migrations_dir()`. It is read once, because a running process keeps its code."""
    revision = ScriptDirectory.from_config(_config(migrations_dir())).get_current_head()
    if revision is None:
        raise GatewayError("No database migration was found in this installation; install trigger-gateway again.")
    return revision


def _config(migrations: Path) -> Config:
    config = Config()
    # ConfigParser reads the values, and takes a percent sign in a path for an interpolation.
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config


def _upgrade(migrations: Path, connection: Connection) -> None:
    config = _config(migrations)
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise GatewayError(
            f"The database was migrated by another version of the gateway ({error}): run that version or a newer one, or "
            "name another database in GATEWAY_DATABASE_URL"
        ) from error
    except ValueError as error:
        # A bug of a migration. Above us a ValueError is the driver's, about a URL that it cannot read.
        raise RuntimeError("a migration ended with a ValueError, which is a bug of it") from error


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
