"""The journal's file: SQLite with a WAL, its schema, and a record out of a row.

Any number of threads and processes use it at the same time, with one writer at a time. A child of a fork opens it again.
What is committed survives the death of the process. It survives a power failure after the next durable commit.
"""

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from mlflow_spool import quiet
from mlflow_spool.forks import Guard, register
from mlflow_spool.records import Call, Kind, Record
from mlflow_spool.spare import Spare

Returned = TypeVar("Returned")
Row = tuple[Any, ...]

SCHEMA_SQL = """
CREATE TABLE IF NOT EXISTS records (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE,
  stream TEXT NOT NULL,
  kind TEXT NOT NULL,
  method TEXT NOT NULL,
  path TEXT NOT NULL,
  body TEXT NOT NULL,
  made_at INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending',
  attempted_at INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0, -- of the file of an artifact's record
  problem TEXT
);
CREATE INDEX IF NOT EXISTS pending ON records (stream, seq) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS streams ON records (stream, seq);
CREATE INDEX IF NOT EXISTS files ON records (bytes) WHERE state != 'done' AND bytes > 0;
CREATE INDEX IF NOT EXISTS gateways ON records (stream, seq) WHERE state IN ('handing', 'handed');
CREATE TABLE IF NOT EXISTS names (token TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS tokens ON names (name);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
COLUMNS = "key, stream, kind, method, path, body, made_at, seq, attempted_at, attempts"
BUSY_TIMEOUT = 10.0  # seconds to wait for another process that writes
#: Connections that a fork left in this process. To close them would disturb those of the parent.
_inherited: list[sqlite3.Connection] = []


class Database:
    """The file at `path`. Every thread may call every method.

    spare: bytes of the disk that are reserved for delivery, so that records can leave a full disk.
    """

    def __init__(self, path: Path, spare: int = 0) -> None:
        self.path = path
        self.syncs = 0  # durable commits of this process so far, each of which waited for the disk
        self._spare = Spare(path.with_name("spare"), spare)
        self._pid = os.getpid()
        self._durable: bool | None = None
        self._connection: sqlite3.Connection | None = None
        self._scanner: sqlite3.Connection | None = None
        self._lock, self._scanning = Guard(), Guard()
        register(self)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._mine().executescript(SCHEMA_SQL)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Cursor]:
        """Commit all changes by the cursor, or none. durable: they and all before them survive a power failure."""
        with self._lock:
            connection = self._mine()
            if durable is not self._durable:
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            cursor = connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise
            self.syncs += durable

    def surely(self, work: Callable[[sqlite3.Cursor], Returned], *, durable: bool = True) -> Returned:
        """The result of `work` in a transaction. On a full disk it runs again, in the reserved room."""
        try:
            with self.transaction(durable=durable) as cursor:
                return work(cursor)
        except sqlite3.OperationalError:
            if not self._spare.release():
                raise
        quiet.note(logging.WARNING, "the disk of %s is full; what is delivered frees room", self.path.parent)
        with self.transaction(durable=durable) as cursor:
            return work(cursor)

    def has_spare(self) -> bool:
        """Whether the room for delivery is reserved. If it is not, it is taken from what was delivered meanwhile."""
        if self._spare.take():
            return True
        with self._lock, suppress(sqlite3.OperationalError):
            self._mine().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self._spare.take()

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows of a short query."""
        with self._lock:
            return self._mine().execute(sql, values).fetchall()

    def scan(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows of a query that may take long. No call of training code waits for it."""
        with self._scanning:
            self._disown()
            if self._scanner is None:
                self._scanner = self._connect()
            return self._scanner.execute(sql, values).fetchall()

    def records(self, where: str, values: Sequence[object] = (), index: str = "") -> list[Record]:
        """Records by a condition and an order, over `scan`. index: the one that SQLite has to use."""
        source = f"records INDEXED BY {index}" if index else "records"
        return [record_of(row) for row in self.scan(f"SELECT {COLUMNS} FROM {source} WHERE {where}", values)]

    def close(self) -> None:
        """Close the file in this process until its next use. Without it nothing is lost."""
        with self._lock, self._scanning:
            self._disown()
            for connection in (self._connection, self._scanner):
                if connection is not None:
                    connection.close()
            self._connection, self._scanner = None, None

    def before_fork(self, until: float) -> None:  # noqa: ARG002 (the guards have waited)
        """See `forks`. What SQLite knows of its locks must not cross a fork."""
        if self._lock.is_held_for_fork and self._scanning.is_held_for_fork:
            with suppress(sqlite3.Error):
                self.close()

    def after_fork(self, *, in_child: bool) -> None:
        """The next use opens the file again."""

    def _disown(self) -> None:
        if self._pid != os.getpid():
            _inherited.extend(old for old in (self._connection, self._scanner) if old is not None)
            self._connection, self._scanner, self._pid = None, None, os.getpid()

    def _mine(self) -> sqlite3.Connection:
        """The connection of this process. The caller holds the lock."""
        self._disown()
        if self._connection is None:
            self._connection, self._durable = self._connect(), None
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        connection.execute("PRAGMA journal_mode = WAL")
        return connection


def record_of(row: Sequence[Any]) -> Record:
    """The record in a row of COLUMNS."""
    key, stream, kind, method, path, body, made_at, seq, attempted_at, attempts = row
    return Record(key, stream, Kind(kind), Call(method, path, json.loads(body)), made_at, seq, attempted_at, attempts)
