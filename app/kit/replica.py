"""Reads for people may go to a copy of the database (GATEWAY_DATABASE_READ_URL): lists and explanations, never decisions.

A copy lags behind and may be away. The caller does not notice: when the copy does not answer, the primary does.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.kit.clock import monotonic
from app.kit.db import CONNECTING, DATA_ERRORS, open_engine, sqlstate

log = logging.getLogger(__name__)

Found = TypeVar("Found")

#: While a connection is made, SQLAlchemy does not wrap the driver's errors.
_AWAY = (OSError, TimeoutError, PoolTimeout, DBAPIError, *CONNECTING)
_PAUSE = 10.0  # seconds without the copy after it failed, so that not every read waits for it in vain
_TOO_SLOW = "57014"  # a statement too slow for the copy is too slow for the primary, and would delay decisions there


@dataclass(frozen=True, slots=True)
class Engines:
    """Intake has connections of its own, so that a list or a delivery cannot keep an alert from being written."""

    everything: AsyncEngine
    intake: AsyncEngine
    copy: AsyncEngine | None


@asynccontextmanager
async def open_engines(url: str, read_url: SecretStr | None) -> AsyncIterator[Engines]:
    """The engines of one process, closed at the end."""
    everything, intake = open_engine(url), open_engine(url, pool_size=2)
    copy = open_engine(read_url.get_secret_value(), read_only=True) if read_url is not None else None
    try:
        yield Engines(everything, intake, copy)
    finally:
        for engine in filter(None, (copy, intake, everything)):
            await engine.dispose()


class Reader:
    """Runs reads on `replica` while it answers, and on `primary` otherwise. Each read that moves calls `failed()`."""

    def __init__(self, primary: AsyncEngine, replica: AsyncEngine | None, failed: Callable[[], None]) -> None:
        self._primary = primary
        self._replica = replica
        self._failed = failed
        self._away_until = 0.0

    async def read(self, work: Callable[[AsyncConnection], Awaitable[Found]]) -> Found:
        """Run `work` on a connection that only reads, and return its result. When the copy does not answer, `work` runs
        again from its beginning on the primary. Raises the errors of the primary. Of the copy's errors it raises those about
        the data or about a statement that takes too long."""
        if self._replica is not None and monotonic() >= self._away_until:
            try:
                async with self._replica.connect() as conn:
                    return await work(conn)
            except _AWAY as error:
                state = sqlstate(error) or ""
                if state == _TOO_SLOW or state.startswith(DATA_ERRORS):
                    raise
                self._away_until = monotonic() + _PAUSE
                self._failed()
                log.warning(
                    "the read database does not answer; the primary does", extra={"error": type(error).__name__}
                )
        async with self._primary.connect() as conn:
            return await work(conn)

    async def fresh(self, work: Callable[[AsyncConnection], Awaitable[Found]]) -> Found:
        """Run `work` on the primary, for rows that were just written."""
        async with self._primary.connect() as conn:
            return await work(conn)

    async def find(self, work: Callable[[AsyncConnection], Awaitable[Found | None]]) -> Found | None:
        """Like `read`, for one row by its key. A row that has not reached the copy yet is looked for in the primary."""
        found = await self.read(work)
        if found is None and self._replica is not None:
            async with self._primary.connect() as conn:
                return await work(conn)
        return found
