"""The journal: it gets every write before anything else happens to the write, and before the caller goes on.

A record is `pending`. Then it becomes `done`, or `aside` (the server refused it for good; `redrive` lets it wait again), or
the gateway gets it: see `custody`. The real names of local ids are in `names`; commands read the `inventory`.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mlflow_spool.custody import OURS_SQL, Custody
from mlflow_spool.database import Database
from mlflow_spool.errors import SpoolFull
from mlflow_spool.inventory import Inventory
from mlflow_spool.names import Names
from mlflow_spool.records import EXPERIMENT_OF, ONCE, Kind, Record, local_version
from mlflow_spool.siblings import Siblings

HANDED_KEPT = 30 * 86_400_000  # milliseconds; MLflow may be away for long, and the run is the gateway's meanwhile
#: What the server may not have, here and at the gateway. By itself SQLite takes the index of all records of a stream.
WAITING = (
    "records INDEXED BY pending WHERE state = 'pending'",
    "records INDEXED BY gateways WHERE state IN ('handing', 'handed')",
)
FILES_SHARE = 0.9  # of the cap
OVERHEAD = 1000  # bytes of a record without its body, with its part of the indexes
CHECK = 1_000_000  # bytes, at most, that are written between two checks of the room
FORGET = 2000  # records that one transaction deletes, so that no writer waits for long


class Journal:
    """The journal of one server in `folder`. Every thread may call every method.

    max_bytes: the largest size; beyond it `append` raises SpoolFull, as on a full disk. spare: bytes of the disk that are
    reserved for delivery, so that records can leave a full disk.
    """

    def __init__(self, folder: Path, max_bytes: int, spare: int = 0) -> None:
        self.folder = folder
        self._database = Database(folder / "journal.db", spare)
        self._max_bytes = max_bytes
        self._room = 0  # bytes that are surely free under the cap
        self.names = Names(self._database)
        self.custody = Custody(self._database)
        self.inventory = Inventory(self._database)
        self.siblings = Siblings(folder)

    def append(self, record: Record, *, attempted: bool = False) -> Record:
        """Write `record`; returns it with its `seq`. On return it is durable, unless it is `attempted`. Raises SpoolFull.

        attempted: it is about to be sent, so that a later delivery has to search for it first. If a second request changes
        nothing, it now survives only the death of the process, not of the machine. Then call `secure` before its caller
        goes on, unless the server has it.
        """
        at = record.made_at if attempted else None
        body = json.dumps(record.call.body, separators=(",", ":"))
        size = int(record.call.body["bytes"]) if record.kind is Kind.ARTIFACT else 0
        self.make_room(len(body), size)
        if not self._database.has_spare():
            raise SpoolFull(f"the journal {self._database.path} could not be written: the disk is full")
        values = (record.key, record.stream, record.kind.value, record.call.method, record.call.path, body)
        try:
            with self._database.transaction(durable=not attempted or record.kind in ONCE) as cursor:
                cursor.execute(
                    "INSERT INTO records (key, stream, kind, method, path, body, made_at, attempted_at, bytes)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*values, record.made_at, at, size),
                )
                return replace(record, seq=cursor.lastrowid or 0, attempted_at=at)
        except sqlite3.OperationalError as error:
            raise SpoolFull(f"the journal {self._database.path} could not be written: {error}") from error

    def secure(self, record: Record) -> None:
        """Make `record` durable, and everything before it. Raises SpoolFull."""
        if record.kind in ONCE:
            return
        # Without a change SQLite would write nothing to the disk.
        sql = "INSERT OR REPLACE INTO facts (name, value) VALUES ('secured', ?)"
        try:
            self._database.surely(lambda cursor: cursor.execute(sql, (record.key,)))
        except sqlite3.OperationalError as error:
            raise SpoolFull(f"the journal {self._database.path} could not be written: {error}") from error

    def make_room(self, need: int, file: int = 0) -> None:
        """Raise SpoolFull unless `need` bytes of metadata and a file of `file` bytes have room under the cap.

        Files may fill nine tenths of it, so that metadata has room. Delivered records are deleted for it. Near the cap every
        call checks the size, far from it few do: processes with one journal may exceed it by CHECK each.
        """
        need += OVERHEAD
        if not file and need <= self._room:
            self._room -= need
            return
        limit = int(self._max_bytes * FILES_SHARE) if file else self._max_bytes
        while (free := limit - self.size()) < need + file and self._forget("state = 'done'", ()):
            pass
        if free < need + file:
            what = "files" if file else "records"
            raise SpoolFull(
                f"{self._database.path.parent} has no room for more {what}: MLFLOW_SPOOL_MAX_BYTES is {self._max_bytes}"
            )
        self._room = 0 if file else min(CHECK, (free - need) // 8)

    def forget_delivered(self, before: int) -> None:
        """Delete the delivered records of each stream that has no record that waits and none since `before` (milliseconds
        since 1970, UTC). After that they answer no reads while the server is away."""
        over = (
            "SELECT stream FROM records GROUP BY stream"
            " HAVING max(made_at) < ? AND sum(state IN ('pending', 'handing')) = 0"
        )
        for state, limit in (("done", before), ("handed", before - HANDED_KEPT)):
            for (stream,) in self._database.scan(over, (limit,)):
                while self._forget("state = ? AND stream = ?", (state, stream)):
                    pass

    def _forget(self, where: str, values: Sequence[object]) -> bool:
        """Delete the oldest of those records; whether there were any."""
        sql = f"DELETE FROM records WHERE seq IN (SELECT seq FROM records WHERE {where} ORDER BY seq LIMIT {FORGET})"
        with self._database.transaction(durable=False) as cursor:
            return cursor.execute(sql, values).rowcount > 0

    def pending(self, stream: str, limit: int = 1000) -> list[Record]:
        """The oldest records of `stream` that this machine has to deliver, in order."""
        where = f"state = 'pending' AND stream = ? AND {OURS_SQL} ORDER BY seq LIMIT ?"
        return self._database.records(where, (stream, limit), index="pending")

    def pending_streams(self) -> list[str]:
        """The streams with records that wait, the longest wait first."""
        sql = f"SELECT stream FROM records WHERE state = 'pending' AND {OURS_SQL} GROUP BY stream ORDER BY min(seq)"
        return [row[0] for row in self._database.scan(sql)]

    def has_pending(self) -> bool:
        """Whether this machine has anything to deliver."""
        return bool(self._database.scan(f"SELECT 1 FROM records WHERE state = 'pending' AND {OURS_SQL} LIMIT 1"))

    def is_waiting(self, stream: str) -> bool:
        """Whether the server may lack some of `stream`."""
        return self.is_behind(stream, 2**63 - 1)

    def is_behind(self, stream: str, seq: int) -> bool:
        """Whether a record of `stream` before `seq` still waits, here or at the gateway."""
        waiting = (f"SELECT 1 FROM {those} AND stream = ? AND seq < ?" for those in WAITING)
        return bool(self._database.read(" UNION ALL ".join(waiting) + " LIMIT 1", (stream, seq) * len(WAITING)))

    def is_next(self, record: Record) -> bool:
        """Whether `record` is the first of its stream that waits, here or at the gateway."""
        first = (f"SELECT min(seq) AS seq FROM {those} AND stream = ?" for those in WAITING)
        sql = f"SELECT min(seq) FROM ({' UNION ALL '.join(first)})"
        return bool(self._database.read(sql, (record.stream,) * len(WAITING))[0][0] == record.seq)

    def first(self, stream: str) -> list[Record]:
        """The oldest record of `stream`, if there is any."""
        return self._database.records("stream = ? ORDER BY seq LIMIT 1", (stream,))

    def last_delivered(self, stream: str) -> int:
        """The number of the newest record of `stream` before all that wait; 0 when there is none."""
        waiting = "SELECT min(seq) FROM records WHERE stream = ? AND state NOT IN ('done', 'aside')"
        sql = f"SELECT max(seq) FROM records WHERE stream = ? AND seq < coalesce(({waiting}), {2**63 - 1})"
        return int(self._database.read(sql, (stream, stream))[0][0] or 0)

    def history(self, stream: str) -> list[Record]:
        """Every record of `stream` that was not set aside, in order."""
        return self._database.records("state != 'aside' AND stream = ? ORDER BY seq", (stream,))

    def attempting(self, records: Iterable[Record], now: int) -> None:
        """Note, durably, that these records are about to be sent. now: milliseconds since 1970."""
        values = [(now, record.key) for record in records]
        sql = "UPDATE records SET attempted_at = ? WHERE key = ?"
        self._database.surely(lambda cursor: cursor.executemany(sql, values))

    def settle(self, records: Iterable[Record], learned: Iterable[tuple[str, str]] = ()) -> None:
        """The server has them. There is no fsync: after a power failure they are sent again, which changes nothing."""
        keys, names = [(record.key,) for record in records], list(learned)

        def change(cursor: sqlite3.Cursor) -> None:
            cursor.executemany("UPDATE records SET state = 'done' WHERE key = ? AND state = 'pending'", keys)
            cursor.executemany("INSERT OR IGNORE INTO names (token, name) VALUES (?, ?)", names)

        self._database.surely(change, durable=False)

    def failed(self, record: Record, reason: str, *, maybe: bool, most: int | None = None) -> int:
        """Note a failed attempt; returns how many were counted. maybe: the request may have been carried out. most: this one
        is not counted beyond that number, since the server had a problem."""
        forget = "" if maybe else ", attempted_at = NULL"
        counted = "attempts + 1" if most is None else f"max(attempts, min(attempts + 1, {most:d}))"

        def change(cursor: sqlite3.Cursor) -> int:
            sql = f"UPDATE records SET attempts = {counted}, problem = ?{forget} WHERE key = ?"
            cursor.execute(sql, (reason, record.key))
            row = cursor.execute("SELECT attempts FROM records WHERE key = ?", (record.key,)).fetchone()
            return int(row[0]) if row else 0

        return self._database.surely(change, durable=False)

    def set_aside(self, record: Record, problem: str) -> None:
        """Note that the server will never take the record. The records after it go on."""
        sql = "UPDATE records SET state = 'aside', problem = ? WHERE key = ?"
        self._database.surely(lambda cursor: cursor.execute(sql, (problem, record.key)))

    def redrive(self, records: Iterable[Record]) -> int:
        """Let records that were set aside wait again, each in its old place; returns their number."""
        sql = "UPDATE records SET state = 'pending', attempts = 0, problem = NULL WHERE key = ? AND state = 'aside'"
        values = [(record.key,) for record in records]
        return self._database.surely(lambda cursor: cursor.executemany(sql, values).rowcount)

    def state_of(self, token: str) -> str | None:
        """The state of the record that creates the local id `token`; None when this journal never held it."""
        if token.startswith("version:"):
            rows = self._database.scan("SELECT key, state FROM records WHERE kind = ?", (Kind.VERSION.value,))
            return next((state for key, state in rows if token == f"version:{local_version(key)}"), None)
        rows = self._database.read("SELECT state FROM records WHERE key = ?", (token.rpartition("spool-")[2],))
        return rows[0][0] if rows else None

    def made(self, token: str) -> bool:
        """Whether `token` is a local id that a journal of this spool made, or was given: not a text that looks like one."""
        if self.names.name_of(token) is not None or self.state_of(token) is not None or self.siblings.made(token):
            return True
        run = token.removeprefix("root:").removeprefix(EXPERIMENT_OF)
        return run != token and self.was_given(run)

    def was_given(self, owner: str) -> bool:
        """Whether this machine knows of a run or logged model of others by its id, to log to it."""
        noun = "logged-model" if owner.startswith("m-") else "run"
        return self.names.fact(f"shown:{noun}:{owner}") is not None

    def waits(self, key: str) -> bool:
        """Whether the record `key` is here and not delivered."""
        return bool(self._database.read("SELECT 1 FROM records WHERE key = ? AND state != 'done'", (key,)))

    def size(self) -> int:
        """Bytes on the disk of the records, and of the files that wait."""
        pages, free, page = (
            self._database.read(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")
        )
        sql = "SELECT coalesce(sum(bytes), 0) FROM records WHERE state != 'done' AND bytes > 0"
        return int((pages - free) * page + self._database.read(sql)[0][0])

    @property
    def syncs(self) -> int:
        """How many times this process has waited for the disk."""
        return self._database.syncs

    def close(self) -> None:
        """Close the journal in this process. Without it nothing is lost."""
        self._database.close()
