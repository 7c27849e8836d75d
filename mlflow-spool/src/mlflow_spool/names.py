"""Local ids with their real names, and facts that the server showed. Processes with the same journal share them."""

from collections.abc import Iterable

from mlflow_spool.database import Database
from mlflow_spool.records import EXPERIMENT_OF

#: Sorts after everything that begins like it.
LAST = "\U0010ffff"


class Names:
    """Real names of local ids, in the journal's file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def name_of(self, token: str) -> str | None:
        """The real name of a local id, once it has one."""
        rows = self._database.read("SELECT name FROM names WHERE token = ?", (token,))
        return rows[0][0] if rows else None

    def token_of(self, name: str) -> str | None:
        """The local id whose real name is `name`."""
        sql = "SELECT token FROM names WHERE name = ? AND token NOT LIKE '%:%' AND token NOT LIKE ?"
        rows = self._database.read(sql, (name, EXPERIMENT_OF + "%"))
        return rows[0][0] if rows else None

    def learn(self, names: Iterable[tuple[str, str]]) -> None:
        """Keep real names of local ids that a search found. A delivery keeps its own."""
        with self._database.transaction(durable=False) as cursor:
            cursor.executemany("INSERT OR IGNORE INTO names (token, name) VALUES (?, ?)", list(names))

    def remember(self, name: str, value: str) -> None:
        """Keep a fact that the server showed (an experiment's id by its name), for the time when it is away."""
        with self._database.transaction(durable=False) as cursor:
            cursor.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))

    def facts(self, prefix: str) -> dict[str, str]:
        """What `remember` kept under names that begin so, by the rest of the name."""
        rows = self._database.read(
            "SELECT name, value FROM facts WHERE name >= ? AND name < ?", (prefix, prefix + LAST)
        )
        return {name[len(prefix) :]: value for name, value in rows}

    def keep_newest(self, prefix: str, most: int) -> None:
        """Forget the oldest of the facts whose names begin so, beyond `most`."""
        own = "name >= ? AND name < ?"
        newest = f"SELECT rowid FROM facts WHERE {own} ORDER BY rowid DESC LIMIT ?"
        sql = f"DELETE FROM facts WHERE {own} AND rowid NOT IN ({newest})"
        bounds = (prefix, prefix + LAST)
        with self._database.transaction(durable=False) as cursor:
            cursor.execute(sql, (*bounds, *bounds, most))

    def fact(self, name: str) -> str | None:
        """What `remember` kept under `name`."""
        rows = self._database.read("SELECT value FROM facts WHERE name = ?", (name,))
        return rows[0][0] if rows else None
