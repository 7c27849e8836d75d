"""Reads for people may go to a copy of the database (GATEWAY_DATABASE_READ_URL): lists and explanations, never decisions.

A copy lags behind and may be away. Neither is told to who asks: what the copy does not answer, the primary does, which
would have answered everything were there no copy.
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

#: The driver's own errors reach us bare while a connection is made.
_AWAY = (OSError, TimeoutError, PoolTimeout, DBAPIError, *CONNECTING)
_PAUSE = 10.0  # seconds without the copy after it failed: nobody waits for it in vain again and again
_TOO_SLOW = "57014"  # a statement that took too long there would take too long here, and at the cost of decisions


@dataclass(frozen=True, slots=True)
class Engines:
    """Intake has connections of its own: no list and no delivery can keep an alert from being written."""

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
    """Runs reads on `replica` while it answers, and on `primary` otherwise; `failed()` is called for each that moved."""

    def __init__(self, primary: AsyncEngine, replica: AsyncEngine | None, failed: Callable[[], None]) -> None:
        self._primary = primary
        self._replica = replica
        self._failed = failed
        self._away_until = 0.0

    async def read(self, work: Callable[[AsyncConnection], Awaitable[Found]]) -> Found:
        """What `work` returns on a connection that only reads. It is run again from its beginning on the primary when
        the copy does not answer. Raises what the primary raises, and what the copy says of the data or of a statement
        that takes too long."""
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
        """What `work` returns on the primary: for what was just written."""
        async with self._primary.connect() as conn:
            return await work(conn)

    async def find(self, work: Callable[[AsyncConnection], Awaitable[Found | None]]) -> Found | None:
        """Like `read`, for one thing by its name: what has not reached the copy yet is looked for in the primary."""
        found = await self.read(work)
        if found is None and self._replica is not None:
            async with self._primary.connect() as conn:
                return await work(conn)
        return found
