"""What a run costs: the time of each process, the rows that it leaves, and what Postgres writes into its log."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from app.kit.embedded import Postgres, Valkey
from benchmarks.servers import Server, cpu_seconds

# Ids are UUIDv7, so the new rows of a run have the greatest ones. Groups and minutes have no such id, and are few.
_WITH_ID: Final = ("alerts", "decisions", "triggers", "outbox", "attempts")
_WITHOUT: Final = ("groups", "heard")
_WRITTEN: Final = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal, {} AS rows".format(
    " + ".join(
        [f"(SELECT count(*) FROM {table} WHERE id > $1)" for table in _WITH_ID]
        + [f"(SELECT count(*) FROM {table})" for table in _WITHOUT]
    )
)
_SETTLE: Final = 0.2  # seconds, in which the webhooks are written whose answers wrk did not wait for


@dataclass(frozen=True, slots=True)
class Store:
    """The database of a gateway, and the processes of its Postgres and its Valkey."""

    url: str
    postgres: int
    valkey: int


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one alert: microseconds of CPU of each server, new rows, bytes of WAL."""

    server: float
    postgres: float = 0.0
    valkey: float = 0.0
    rows: float = 0.0
    wal: float = 0.0


class Meter:
    """Begins to count when it is made. `store` is None for a server that stores nothing."""

    def __init__(self, server: Server, store: Store | None) -> None:
        self._server = server
        self._store = store
        self._since = UUID(int=int(time.time() * 1000) << 80)
        self._written = self._read_written()
        self._cpu = self._read_cpu()

    def costs(self, alerts: int) -> Costs:
        """What was spent since then on each of so many alerts."""
        time.sleep(_SETTLE)
        cpu = [now - before for now, before in zip(self._read_cpu(), self._cpu, strict=True)]
        wal, rows = (now - before for now, before in zip(self._read_written(), self._written, strict=True))
        each = max(alerts, 1)
        server, postgres, valkey = (seconds * 1e6 / each for seconds in cpu)
        return Costs(server, postgres, valkey, rows / each, wal / each)

    def _read_cpu(self) -> tuple[float, float, float]:
        if self._store is None:
            return self._server.cpu_seconds(), 0.0, 0.0
        return self._server.cpu_seconds(), cpu_seconds(self._store.postgres), cpu_seconds(self._store.valkey)

    def _read_written(self) -> tuple[int, int]:
        return asyncio.run(_written(self._store.url, self._since)) if self._store is not None else (0, 0)


async def _written(url: str, since: UUID) -> tuple[int, int]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        row = await connection.fetchrow(_WRITTEN, since)
    finally:
        await connection.close()
    return int(row["wal"]), int(row["rows"])


def store_of(url: str, postgres: Postgres, valkey: Valkey) -> Store:
    """A database of these two servers. Their pids stand in files of their own."""
    first, _, _ = (postgres.directory.server / "postmaster.pid").read_text().partition("\n")
    return Store(url, int(first), int((valkey.directory.server / "valkey.pid").read_text()))
