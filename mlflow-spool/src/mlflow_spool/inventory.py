"""What one journal holds, for commands and certificates: counts, what was set aside, whole histories. It only reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlflow_spool.database import COLUMNS, Database, record_of
from mlflow_spool.records import Kind, Record


@dataclass(frozen=True)
class Aside:
    """A record that was refused for good, and why."""

    record: Record
    problem: str


@dataclass(frozen=True)
class Counts:
    """How many records there are in each state."""

    pending: int
    done: int
    aside: int
    oldest: int | None  # milliseconds since 1970, UTC: when the oldest that waits was made
    handed: int = 0  # the gateway has them
    handing: int = 0  # the gateway may have them


class Inventory:
    """The records in one journal's file, as people see them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> Counts:
        """How many records there are, by state."""
        by_state: dict[str, int] = dict(self._database.scan("SELECT state, count(*) FROM records GROUP BY state"))
        oldest = self._database.scan("SELECT min(made_at) FROM records WHERE state = 'pending'")[0][0]
        pending, done, aside, handed, handing = (
            by_state.get(state, 0) for state in ("pending", "done", "aside", "handed", "handing")
        )
        return Counts(pending, done, aside, oldest, handed, handing)

    def asides(self) -> list[Aside]:
        """What was set aside, oldest first."""
        rows = self._database.scan(f"SELECT problem, {COLUMNS} FROM records WHERE state = 'aside' ORDER BY seq")
        return [Aside(record_of(row[1:]), row[0] or "") for row in rows]

    def refused(self, streams: Sequence[str]) -> list[str]:
        """What was refused of `streams`, in words."""
        asides = (aside for aside in self.asides() if aside.record.stream in streams)
        return [f"{aside.record.kind.value}, refused: {aside.problem}" for aside in asides]

    def runs(self) -> list[str]:
        """Local ids of the runs whose creation this journal still holds, oldest first."""
        rows = self._database.scan("SELECT key FROM records WHERE kind = ? ORDER BY seq", (Kind.RUN.value,))
        return [f"spool-{row[0]}" for row in rows]

    def streams(self, streams: Sequence[str]) -> list[Record]:
        """Every record of `streams` that was not set aside, in order."""
        marks = ", ".join("?" * len(streams))
        return self._database.records(f"state != 'aside' AND stream IN ({marks}) ORDER BY seq", streams)

    def of_kind(self, kind: Kind) -> Iterator[Record]:
        """Every record of a kind that was not set aside, in order."""
        yield from self._database.records("state != 'aside' AND kind = ? ORDER BY seq", (kind.value,))

    def everything(self, states: Sequence[str] = ("pending", "aside"), page: int = 500) -> Iterator[tuple[str, Record]]:
        """Records in `states` with their state, in order, read in pages."""
        marks, seq = ", ".join("?" * len(states)), 0
        while True:
            sql = f"SELECT state, {COLUMNS} FROM records WHERE state IN ({marks}) AND seq > ? ORDER BY seq LIMIT ?"
            rows = self._database.scan(sql, (*states, seq, page))
            if not rows:
                return
            yield from ((row[0], record_of(row[1:])) for row in rows)
            seq = rows[-1][8]
