"""How Alembic reaches the database: over the connection from app.migrate, or over its own for the `alembic` command."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection

from app.kit.errors import UsageError
from app.tables import metadata
from app.tables.migrate import migration_engine, under_lock


def migrate(connection: Connection) -> None:
    """Run the migrations. Each has its own transaction, so that one may also leave it."""
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_over_own_connection() -> None:
    url = context.config.attributes.get("url") or os.environ.get("GATEWAY_DATABASE_URL")
    if not url:
        raise UsageError("Set GATEWAY_DATABASE_URL to the database that alembic should work on.")
    engine = migration_engine(url)
    try:
        async with engine.connect() as connection:
            await under_lock(connection, migrate)
    finally:
        await engine.dispose()


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
    asyncio.run(migrate_over_own_connection())
