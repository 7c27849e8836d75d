"""Whose a record is: this machine's, or the gateway's. At any time it has one owner, whatever dies.

It is `handing` while nobody knows whether the gateway has it. Then nobody delivers it here, until that is known or until its
lease ends: the process that handed it over may have died, and this machine may have no gateway any more.
"""

import functools
import json
from collections.abc import Iterable
from pathlib import Path

from mlflow_spool.database import Database
from mlflow_spool.records import Kind, Record

#: A stream that the gateway has goes by the gateway, so that its order is kept. Files go by themselves.
OURS_SQL = "(kind = 'artifact' OR stream NOT IN (SELECT stream FROM records WHERE state IN ('handing', 'handed')))"

#: States of a record that the gateway has, or may have.
AT_GATEWAY = frozenset({"handing", "handed"})
#: Seconds after the last offer. Then the records are this machine's again, though the gateway may have them. This is far
#: more than a process waits for an answer; and both look in MLflow before they create what may be there already.
LEASE = 3600.0
#: The fact with the last offer: the boot of the machine, and its monotonic seconds. The wall clock may be set meanwhile.
OFFERED = "offered"


@functools.cache
def _boot() -> str:
    """What is another after each boot of the machine: monotonic seconds of two boots have nothing to do with each other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Custody:
    """The owners of the records in one journal's file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def to_hand_over(self, after: int, limit: int, *, everything: bool) -> list[Record]:
        """What waits beyond the number `after`, in order; without `everything` only of streams that the gateway has."""
        where = "" if everything else f" AND NOT {OURS_SQL}"
        return self._database.records(f"state = 'pending' AND seq > ?{where} ORDER BY seq LIMIT ?", (after, limit))

    def hand(self, records: Iterable[Record], now: int, at: float) -> list[Record]:
        """Note, durably, that records are being handed over; returns those that still waited. Files are among them, and
        stay.

        now: milliseconds since 1970, UTC. at: monotonic seconds, the begin of the lease.
        """
        ours = []
        with self._database.transaction() as cursor:
            offered = json.dumps([_boot(), at])
            cursor.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (OFFERED, offered))
            for record in records:
                sql = (
                    "UPDATE records SET state = 'handing', attempted_at = ?"
                    " WHERE key = ? AND state = 'pending' AND kind != 'artifact'"
                )
                if cursor.execute(sql, (now, record.key)).rowcount or record.kind is Kind.ARTIFACT:
                    ours.append(record)
        return ours

    def handing(self, after: int, limit: int) -> list[Record]:
        """The records beyond the number `after` that the gateway may have, in order."""
        where = "state = 'handing' AND state IN ('handing', 'handed') AND seq > ? ORDER BY seq LIMIT ?"
        return self._database.records(where, (after, limit), index="gateways")

    def handed(self, records: Iterable[Record]) -> None:
        """The gateway has them, also those that another process, which got no such answer, has kept here meanwhile."""
        keys = [(record.key,) for record in records if record.kind is not Kind.ARTIFACT]
        sql = "UPDATE records SET state = 'handed' WHERE key = ? AND state IN ('handing', 'pending')"
        self._database.surely(lambda cursor: cursor.executemany(sql, keys))

    def keep(self, records: Iterable[Record]) -> None:
        """The gateway does not have them: they are this machine's again, as they were before."""
        values = [(record.attempted_at, record.key) for record in records]
        sql = "UPDATE records SET state = 'pending', attempted_at = ? WHERE key = ? AND state = 'handing'"
        self._database.surely(lambda cursor: cursor.executemany(sql, values))

    def take_back(self, at: float) -> bool:
        """Make records whose lease has ended this machine's again; whether there were any. They are searched for in MLflow
        before they are sent. at: monotonic seconds. After a boot of the machine the lease begins again."""
        if not self.handing(0, 1):
            return False
        rows = self._database.read("SELECT value FROM facts WHERE name = ?", (OFFERED,))
        boot, since = json.loads(rows[0][0]) if rows else ("", at)
        if not rows or boot != _boot():
            value = (OFFERED, json.dumps([_boot(), at]))
            with self._database.transaction() as cursor:
                cursor.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", value)
            return False
        if at - since < LEASE:
            return False
        sql = (
            "UPDATE records INDEXED BY gateways SET state = 'pending', attempted_at = coalesce(attempted_at, made_at)"
            " WHERE state = 'handing' AND state IN ('handing', 'handed')"
        )
        return self._database.surely(lambda cursor: cursor.execute(sql).rowcount > 0)
