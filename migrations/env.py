"""How Alembic reaches the database: over the connection from app.migrate, or over its own for the `alembic` command."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from app.bootstrap.settings import read_settings
from app.kit.errors import GatewayError, UsageError
from app.tables import metadata
from app.tables.migrate import migration_engine, under_lock


def migrate(connection: Connection) -> None:
    """Run the migrations. Each has its own transaction, so that one may also leave it."""
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_over_own_connection() -> None:
    engine = migration_engine(context.config.attributes.get("url") or _url())
    try:
        async with engine.connect() as connection:
            await under_lock(connection, migrate)
    finally:
        await engine.dispose()


def _url() -> str:
    """The database of the settings: a variable or its file, read as every command of the gateway reads it."""
    found = read_settings().database_url
    if found is None:
        raise UsageError("Set GATEWAY_DATABASE_URL to the database that alembic should work on.")
    return found.get_secret_value()


def print_sql() -> None:
    """Print the statements, for a database administrator to read and run: `alembic upgrade head --sql`."""
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    print_sql()
elif (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    try:
        asyncio.run(migrate_over_own_connection())
    except GatewayError as error:
        raise SystemExit(str(error)) from error
