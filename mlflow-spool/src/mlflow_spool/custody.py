"""Whose a record is: this machine's, or the gateway's. A record has one owner at any time, whatever dies.

It is `handing` while it is not known whether the gateway has it, and nobody's to deliver here until that is known.
"""

from collections.abc import Iterable

from mlflow_spool.database import Database
from mlflow_spool.records import Kind, Record

#: What belongs to a stream that the gateway has goes by the gateway too, or order would be lost. Files go by themselves.
OURS_SQL = "(kind = 'artifact' OR stream NOT IN (SELECT stream FROM records WHERE state IN ('handing', 'handed')))"

#: States of a record that the gateway has, or may have.
AT_GATEWAY = frozenset({"handing", "handed"})


class Custody:
    """The owners of the records in one journal's file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def to_hand_over(self, after: int, limit: int, *, everything: bool) -> list[Record]:
        """What waits beyond the number `after`, in order; without `everything` only of streams that the gateway has."""
        where = "" if everything else f" AND NOT {OURS_SQL}"
        return self._database.records(f"state = 'pending' AND seq > ?{where} ORDER BY seq LIMIT ?", (after, limit))

    def hand(self, records: Iterable[Record]) -> list[Record]:
        """Note, durably, that they are being handed over: those that still wait. Files are among them, and stay."""
        ours = []
        with self._database.transaction() as cursor:
            for record in records:
                sql = "UPDATE records SET state = 'handing' WHERE key = ? AND state = 'pending' AND kind != 'artifact'"
                if cursor.execute(sql, (record.key,)).rowcount or record.kind is Kind.ARTIFACT:
                    ours.append(record)
        return ours

    def handing(self, after: int, limit: int) -> list[Record]:
        """Records beyond the number `after` of which it is not known whether the gateway has them, in order."""
        where = "state = 'handing' AND state IN ('handing', 'handed') AND seq > ? ORDER BY seq LIMIT ?"
        return self._database.records(where, (after, limit), index="gateways")

    def handed(self, records: Iterable[Record]) -> None:
        """The gateway has them."""
        self._change(records, "handed")

    def keep(self, records: Iterable[Record]) -> None:
        """The gateway does not have them: they are this machine's again."""
        self._change(records, "pending")

    def _change(self, records: Iterable[Record], after: str) -> None:
        values = [(after, one.key) for one in records]
        sql = "UPDATE records SET state = ? WHERE key = ? AND state = 'handing'"
        self._database.surely(lambda cursor: cursor.executemany(sql, values))
