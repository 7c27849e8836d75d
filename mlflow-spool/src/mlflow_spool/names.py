"""Local ids with their real names, and facts that the server showed. Processes with the same journal share them."""

from collections.abc import Iterable

from mlflow_spool.database import Database


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
        rows = self._database.read("SELECT token FROM names WHERE name = ? AND token NOT LIKE '%:%'", (name,))
        return rows[0][0] if rows else None

    def learn(self, names: Iterable[tuple[str, str]]) -> None:
        """Keep real names of local ids that a search found. A delivery keeps its own."""
        with self._database.transaction(durable=False) as cursor:
            cursor.executemany("INSERT OR IGNORE INTO names (token, name) VALUES (?, ?)", list(names))

    def remember(self, name: str, value: str) -> None:
        """Keep a fact that the server showed (an experiment's id by its name), for the time when it is away."""
        with self._database.transaction(durable=False) as cursor:
            cursor.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))

    def fact(self, name: str) -> str | None:
        """What `remember` kept under `name`."""
        rows = self._database.read("SELECT value FROM facts WHERE name = ?", (name,))
        return rows[0][0] if rows else None
