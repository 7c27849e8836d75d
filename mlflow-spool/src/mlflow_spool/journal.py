"""The journal: an SQLite file in which every write is durable before anything else happens to it.

Any number of processes append to one journal (WAL, one writer at a time, fsync before `append` returns); a child of a
fork opens it anew. A record is `pending`, then `done` or `aside` (the server refused it for good), or `handed` to the
gateway, and `handing` until it is known whether the gateway has it. What is known of local ids stands beside the
records, so that processes share it.
"""

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from mlflow_spool.errors import SpoolFull
from mlflow_spool.records import Call, Kind, Record, local_version
from mlflow_spool.spare import Spare

log = logging.getLogger("mlflow_spool")
Method = TypeVar("Method", bound=Callable[..., Any])

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
  bytes INTEGER NOT NULL DEFAULT 0, -- of the file that an artifact's record stands for
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
#: What belongs to a stream that the gateway has goes by the gateway too, or order would be lost. Files go by themselves.
_OURS = "(kind = 'artifact' OR stream NOT IN (SELECT stream FROM records WHERE state IN ('handing', 'handed')))"
COLUMNS = "key, stream, kind, method, path, body, made_at, seq, attempted_at, attempts"
HANDED_KEPT = 30 * 86_400_000  # milliseconds; MLflow may be away for long, and until then the run is the gateway's
FILES_SHARE = 0.9  # of the cap
BUSY_TIMEOUT = 10.0  # seconds to wait for another process that writes
#: Connections that a fork left in this process: closing them would disturb the parent's.
_inherited: list[sqlite3.Connection] = []


@dataclass(frozen=True)
class Aside:
    """A record that the server refused for good, and what it said."""

    record: Record
    problem: str


@dataclass(frozen=True)
class Counts:
    """How many records there are in each state, and since when the oldest waits (milliseconds since 1970, UTC)."""

    pending: int
    done: int
    aside: int
    oldest: int | None
    handed: int = 0  # the gateway has them
    handing: int = 0  # the gateway may have them


def _with_spare(method: Method) -> Method:
    """The same, and on a full disk again in the room that was kept for it."""

    @wraps(method)
    def again(self: "Journal", *args: Any, **named: Any) -> Any:
        try:
            return method(self, *args, **named)
        except sqlite3.OperationalError:
            if not self._spare.release():
                raise
            log.warning("the disk of %s is full; what is delivered frees room", self._path.parent)
            return method(self, *args, **named)

    return cast(Method, again)


class Journal:
    """The journal of one server in `folder`. Every method is safe to call from any thread.

    max_bytes: how large the file may become; `append` raises SpoolFull beyond, and when the disk is full. spare: bytes of
    the disk kept for delivery, so that what is kept can leave a full disk.
    """

    def __init__(self, folder: Path, max_bytes: int, spare: int = 0) -> None:
        self._path = folder / "journal.db"
        self._spare = Spare(folder / "spare", spare)
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._pid = -1
        self._writer: sqlite3.Connection
        self._settler: sqlite3.Connection
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open()

    def append(self, record: Record, *, attempted: bool = False) -> Record:
        """Write `record` down; on return it is durable. Its `seq` is set in what is returned.

        attempted: it is about to be sent, so whoever finds it pending must look first whether that has happened.
        Raises SpoolFull.
        """
        at = record.made_at if attempted else None
        body = json.dumps(record.call.body, separators=(",", ":"))
        size = int(record.call.body["bytes"]) if record.kind is Kind.ARTIFACT else 0
        self.make_room(len(body), size)
        if not self._spare.take() and not self._regain():
            raise SpoolFull(f"the journal {self._path} could not be written: the disk is full")
        values = (record.key, record.stream, record.kind.value, record.call.method, record.call.path, body)
        try:
            with self._transaction() as cursor:
                cursor.execute(
                    "INSERT INTO records (key, stream, kind, method, path, body, made_at, attempted_at, bytes)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*values, record.made_at, at, size),
                )
                return replace(record, seq=cursor.lastrowid or 0, attempted_at=at)
        except sqlite3.OperationalError as error:
            raise SpoolFull(f"the journal {self._path} could not be written: {error}") from error

    def _regain(self) -> bool:
        """Take the room for delivery again, out of what was delivered meanwhile."""
        with self._lock, suppress(sqlite3.OperationalError):
            self._settler.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self._spare.take()

    def make_room(self, need: int, file: int = 0) -> None:
        """Raises SpoolFull unless `need` bytes of metadata and a file of `file` bytes have room under the cap.

        Files may fill nine tenths of it: metadata comes first. What was delivered already gives way.
        """
        limit = int(self._max_bytes * FILES_SHARE) if file else self._max_bytes
        if self.size() + need + file > limit:
            self.forget_delivered()
        if self.size() + need + file > limit:
            what = "files" if file else "records"
            raise SpoolFull(
                f"{self._path.parent} has no room for more {what}: MLFLOW_SPOOL_MAX_BYTES is {self._max_bytes}"
            )

    def forget_delivered(self, before: int | None = None) -> None:
        """Drop delivered records; reads can then no longer be answered from them while the server is away.

        before: only of streams in which nothing waits and nothing was written since (milliseconds since 1970, UTC).
        """
        with self._transaction(durable=False) as cursor:
            if before is None:
                cursor.execute("DELETE FROM records WHERE state = 'done'")
                return
            over = (
                "DELETE FROM records WHERE state = ? AND stream IN (SELECT stream FROM records GROUP BY stream"
                " HAVING max(made_at) < ? AND sum(state IN ('pending', 'handing')) = 0)"
            )
            cursor.execute(over, ("done", before))
            cursor.execute(over, ("handed", before - HANDED_KEPT))

    def pending(self, stream: str, limit: int = 1000) -> list[Record]:
        """The oldest records of `stream` that wait for this machine to deliver them, in order."""
        return self._records(f"state = 'pending' AND stream = ? AND {_OURS} ORDER BY seq LIMIT ?", (stream, limit))

    def is_waiting(self, stream: str) -> bool:
        """Whether the server may not know all of `stream` yet."""
        states = "('pending', 'handing', 'handed')"
        return bool(self._read(f"SELECT 1 FROM records WHERE state IN {states} AND stream = ? LIMIT 1", (stream,)))

    def to_hand_over(self, after: int, limit: int, *, everything: bool) -> list[Record]:
        """What waits beyond the number `after`, in order; without `everything` only of streams that the gateway has."""
        where = "" if everything else f" AND NOT {_OURS}"
        return self._records(f"state = 'pending' AND seq > ?{where} ORDER BY seq LIMIT ?", (after, limit))

    def hand(self, records: Iterable[Record]) -> list[Record]:
        """Note, durably, that they are being handed over: those that still wait. Files are among them, and stay."""
        ours = []
        with self._transaction() as cursor:
            for record in records:
                sql = "UPDATE records SET state = 'handing' WHERE key = ? AND state = 'pending' AND kind != 'artifact'"
                if cursor.execute(sql, (record.key,)).rowcount or record.kind is Kind.ARTIFACT:
                    ours.append(record)
        return ours

    def handing(self, limit: int) -> list[Record]:
        """Records of which it is not known whether the gateway has them."""
        return self._records("state = 'handing' ORDER BY seq LIMIT ?", (limit,))

    def handed(self, records: Iterable[Record]) -> None:
        """The gateway has them."""
        self._change(records, "handing", "handed")

    def keep(self, records: Iterable[Record]) -> None:
        """The gateway does not have them: they are this machine's again."""
        self._change(records, "handing", "pending")

    @_with_spare
    def _change(self, records: Iterable[Record], before: str, after: str) -> None:
        with self._transaction() as cursor:
            sql = "UPDATE records SET state = ? WHERE key = ? AND state = ?"
            cursor.executemany(sql, [(after, one.key, before) for one in records])

    def pending_streams(self) -> list[str]:
        """The streams in which records wait, the one that has waited longest first."""
        sql = f"SELECT stream FROM records WHERE state = 'pending' AND {_OURS} GROUP BY stream ORDER BY min(seq)"
        rows = self._read(sql)
        return [row[0] for row in rows]

    def runs(self) -> list[str]:
        """Local ids of the runs whose creation is still here, oldest first."""
        rows = self._read("SELECT key FROM records WHERE kind = ? ORDER BY seq", (Kind.RUN.value,))
        return [f"spool-{row[0]}" for row in rows]

    def is_behind(self, stream: str, seq: int) -> bool:
        """Whether a record of `stream` before `seq` still waits, here or at the gateway."""
        states = "('pending', 'handing', 'handed')"
        sql = f"SELECT 1 FROM records WHERE state IN {states} AND stream = ? AND seq < ? LIMIT 1"
        return bool(self._read(sql, (stream, seq)))

    def history(self, stream: str) -> list[Record]:
        """Every record of `stream` that was not set aside, in order: what this machine knows of it."""
        return self._records("state != 'aside' AND stream = ? ORDER BY seq", (stream,))

    def streams(self, streams: Sequence[str]) -> list[Record]:
        """Every record of `streams` that was not set aside, in order."""
        marks = ", ".join("?" * len(streams))
        return self._records(f"state != 'aside' AND stream IN ({marks}) ORDER BY seq", streams)

    def of_kind(self, kind: Kind) -> Iterator[Record]:
        """Every record of a kind that was not set aside, in order."""
        yield from self._records("state != 'aside' AND kind = ? ORDER BY seq", (kind.value,))

    def refused(self, streams: Sequence[str]) -> list[str]:
        """What the server refused of `streams`, in words."""
        asides = (one for one in self.asides() if one.record.stream in streams)
        return [f"{one.record.kind.value}, refused: {one.problem}" for one in asides]

    def everything(self, states: Sequence[str] = ("pending", "aside"), page: int = 500) -> Iterator[tuple[str, Record]]:
        """Records in those states with their state, in order, a page at a time."""
        marks, seq = ", ".join("?" * len(states)), 0
        while True:
            sql = f"SELECT state, {COLUMNS} FROM records WHERE state IN ({marks}) AND seq > ? ORDER BY seq LIMIT ?"
            rows = self._read(sql, (*states, seq, page))
            if not rows:
                return
            yield from ((row[0], _record(row[1:])) for row in rows)
            seq = rows[-1][8]

    @_with_spare
    def attempting(self, records: Iterable[Record], now: int) -> None:
        """Note, durably, that requests leave whose ends we may never know. now: milliseconds since 1970."""
        with self._transaction() as cursor:
            cursor.executemany("UPDATE records SET attempted_at = ? WHERE key = ?", [(now, one.key) for one in records])

    @_with_spare
    def settle(self, records: Iterable[Record], learned: Iterable[tuple[str, str]] = ()) -> None:
        """The server has them. Without fsync: if the power fails now they are sent again, which changes nothing."""
        records, learned = tuple(records), tuple(learned)
        with self._transaction(durable=False) as cursor:
            cursor.executemany(
                "UPDATE records SET state = 'done' WHERE key = ? AND state = 'pending'", [(one.key,) for one in records]
            )
            cursor.executemany("INSERT OR IGNORE INTO names (token, name) VALUES (?, ?)", list(learned))

    @_with_spare
    def failed(self, record: Record, reason: str, *, maybe: bool) -> int:
        """An attempt came to nothing; returns how many that makes."""
        forget = "" if maybe else ", attempted_at = NULL"
        with self._transaction(durable=False) as cursor:
            sql = f"UPDATE records SET attempts = attempts + 1, problem = ?{forget} WHERE key = ?"
            cursor.execute(sql, (reason, record.key))
            row = cursor.execute("SELECT attempts FROM records WHERE key = ?", (record.key,)).fetchone()
        return int(row[0]) if row else 0

    @_with_spare
    def set_aside(self, record: Record, problem: str) -> None:
        """The server will never take it: the records after it go on."""
        with self._transaction() as cursor:
            cursor.execute("UPDATE records SET state = 'aside', problem = ? WHERE key = ?", (problem, record.key))

    def asides(self) -> list[Aside]:
        """What was set aside, oldest first."""
        rows = self._read(f"SELECT problem, {COLUMNS} FROM records WHERE state = 'aside' ORDER BY seq")
        return [Aside(_record(row[1:]), row[0] or "") for row in rows]

    def is_aside(self, token: str) -> bool:
        """Whether the record that would have created `token` was set aside."""
        if token.startswith("version:"):
            rows = self._read("SELECT key FROM records WHERE state = 'aside' AND kind = ?", (Kind.VERSION.value,))
            return any(token == f"version:{local_version(row[0])}" for row in rows)
        key = token.rpartition("spool-")[2]
        return bool(self._read("SELECT 1 FROM records WHERE key = ? AND state = 'aside'", (key,)))

    def holds(self, token: str) -> bool:
        """Whether this journal has, or had, the record that creates `token`."""
        kind, _, number = token.partition(":")
        if kind == "version":
            rows = self._read("SELECT key FROM records WHERE kind = ?", (Kind.VERSION.value,))
            return any(str(local_version(row[0])) == number for row in rows)
        return bool(self._read("SELECT 1 FROM records WHERE key = ?", (token.rpartition("spool-")[2],)))

    def is_handed(self, token: str) -> bool:
        """Whether the record that creates `token` is the gateway's, or may be."""
        states = "('handing', 'handed')"
        if token.startswith("version:"):
            rows = self._read(f"SELECT key FROM records WHERE state IN {states} AND kind = ?", (Kind.VERSION.value,))
            return any(token == f"version:{local_version(row[0])}" for row in rows)
        key = token.rpartition("spool-")[2]
        return bool(self._read(f"SELECT 1 FROM records WHERE key = ? AND state IN {states}", (key,)))

    def waits(self, key: str) -> bool:
        """Whether the record `key` is there and not delivered."""
        return bool(self._read("SELECT 1 FROM records WHERE key = ? AND state != 'done'", (key,)))

    def name_of(self, token: str) -> str | None:
        """The real name of a local id, once it has one."""
        rows = self._read("SELECT name FROM names WHERE token = ?", (token,))
        return rows[0][0] if rows else None

    def token_of(self, name: str) -> str | None:
        """The local id that became `name`."""
        rows = self._read("SELECT token FROM names WHERE name = ? AND token NOT LIKE '%:%'", (name,))
        return rows[0][0] if rows else None

    def learn(self, names: Iterable[tuple[str, str]]) -> None:
        """Remember real names of local ids that were found out in another way than by delivery."""
        self.settle((), names)

    def remember(self, name: str, value: str) -> None:
        """Keep a fact that the server told (an experiment's id by its name), for when it is away."""
        with self._transaction(durable=False) as cursor:
            cursor.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))

    def fact(self, name: str) -> str | None:
        """What `remember` kept."""
        rows = self._read("SELECT value FROM facts WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def counts(self) -> Counts:
        """How many records there are, by state."""
        by_state = dict(self._read("SELECT state, count(*) FROM records GROUP BY state"))
        oldest = self._read("SELECT min(made_at) FROM records WHERE state = 'pending'")[0][0]
        states = ("handed", "handing")
        told = {name: by_state.get(name, 0) for name in states}
        return Counts(by_state.get("pending", 0), by_state.get("done", 0), by_state.get("aside", 0), oldest, **told)

    def size(self) -> int:
        """Bytes that records and waiting files take on the disk."""
        pages, free, page = (
            self._read(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")
        )
        files = self._read("SELECT coalesce(sum(bytes), 0) FROM records WHERE state != 'done' AND bytes > 0")[0][0]
        return int((pages - free) * page + files)

    def close(self) -> None:
        """End this process' use of the journal; nothing is lost without it."""
        with self._lock:
            if self._pid == os.getpid():
                self._writer.close()
                self._settler.close()
                self._pid = -1

    def _open(self) -> None:
        if self._pid > 0:
            _inherited.extend((self._writer, self._settler))
        self._lock = threading.RLock()  # A fork may have copied the old one while another thread held it.
        self._writer = self._connect("FULL")
        self._settler = self._connect("NORMAL")
        self._pid = os.getpid()
        self._writer.executescript(SCHEMA_SQL)

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        return connection

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Cursor]:
        if self._pid != os.getpid():
            self._open()
        with self._lock:
            cursor = (self._writer if durable else self._settler).cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if cursor.connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    def _read(self, sql: str, values: Sequence[object] = ()) -> list[tuple]:  # type: ignore[type-arg]
        if self._pid != os.getpid():
            self._open()
        with self._lock:
            return self._settler.execute(sql, values).fetchall()

    def _records(self, where: str, values: Sequence[object]) -> list[Record]:
        return [_record(row) for row in self._read(f"SELECT {COLUMNS} FROM records WHERE {where}", values)]


def _record(row: Sequence[object]) -> Record:
    key, stream, kind, method, path, body, made_at, seq, attempted_at, attempts = row
    call = Call(str(method), str(path), json.loads(str(body)))
    return Record(
        str(key),
        str(stream),
        Kind(kind),
        call,
        int(str(made_at)),
        int(str(seq)),
        None if attempted_at is None else int(str(attempted_at)),
        int(str(attempts)),
    )
