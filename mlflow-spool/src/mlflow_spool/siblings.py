"""The journals of other servers in the same spool: a registry may be at another MLflow than the runs and models it names."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mlflow_spool.records import Kind, local_version

BUSY = 2.0  # seconds to wait for a process that writes


class Siblings:
    """What the other journals beside the one in `folder` know. They are only read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name_of(self, token: str) -> str | None:
        """The real name of a local id that another journal made, once it has one."""
        rows = self._ask("SELECT name FROM names WHERE token = ?", (token,))
        return next((str(row[0]) for row in rows), None)

    def made(self, token: str) -> bool:
        """Whether another journal made a local id."""
        if token.startswith("version:"):
            keys = self._ask("SELECT key FROM records WHERE kind = ?", (Kind.VERSION.value,))
            return self.name_of(token) is not None or any(token == f"version:{local_version(key)}" for (key,) in keys)
        key = token.rpartition("spool-")[2]
        return bool(list(self._ask("SELECT 1 FROM records WHERE key = ? LIMIT 1", (key,)))) or (
            self.name_of(token) is not None
        )

    def is_waiting(self, streams: Sequence[str], before: int) -> bool:
        """Whether another journal has yet to deliver a record of `streams` that was made before that moment. What was made
        later may name the record that asks, and wait for it."""
        marks = ", ".join("?" * len(streams))
        wanted = f"state IN ('pending', 'handing') AND stream IN ({marks}) AND made_at < ?"
        return any(self._ask(f"SELECT 1 FROM records WHERE {wanted} LIMIT 1", [*streams, before]))

    def _ask(self, sql: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        """The rows of every journal. One that cannot be read knows nothing."""
        for file in sorted(self._folder.parent.glob("*/journal.db")):
            if file.parent == self._folder:
                continue
            try:
                with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", timeout=BUSY, uri=True)) as connection:
                    rows = connection.execute(sql, values).fetchall()
            except sqlite3.Error:
                continue
            yield from rows
