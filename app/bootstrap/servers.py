"""PostgreSQL and Valkey: the configured ones, or those from their wheels."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from app.bootstrap.settings import Settings
from app.kit.embedded import start_postgres, start_valkey


@dataclass(frozen=True, slots=True)
class Urls:
    """Where Postgres and Redis are: as configured, or embedded."""

    database: str
    redis: str


@asynccontextmanager
async def servers(settings: Settings) -> AsyncIterator[Urls]:
    """The configured servers; PostgreSQL and Valkey from their wheels for what is not configured. Stopped at the end by
    the last process that uses them."""
    async with AsyncExitStack() as stack:
        database = settings.database_url.get_secret_value() if settings.database_url else None
        redis = settings.redis_url.get_secret_value() if settings.redis_url else None
        if database is None:
            postgres = await asyncio.to_thread(start_postgres, settings.data_dir)
            stack.callback(postgres.stop)
            database = postgres.url
        if redis is None:
            valkey = await asyncio.to_thread(start_valkey, settings.data_dir)
            stack.callback(valkey.stop)
            redis = valkey.url
        yield Urls(database, redis)
