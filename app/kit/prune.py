"""Old rows are deleted in small batches that wait for nobody. Each room says as data what ends and when; see `Prune`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Where the next page of a walk begins: the names are parameters of `page` and columns of its rows.
Place = Mapping[str, Any]
Deleted = Mapping[str, int]  # rows by table

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNING: Final[Place] = {"at": EPOCH, "id": UUID(int=0)}


@dataclass(frozen=True, slots=True)
class Prune:
    """One kind of row that ends.

    `page` reads the next `:most` rows of a walk along an index, from `start` on. `lock` takes the `:ids` of that page and
    locks the rows that may go: it judges each row again and skips what somebody else has locked. `deletes` removes by these
    ids what hangs on the rows, table by table, and the rows last. `also` removes what SQL cannot find by the ids; it gets
    the rows of `lock`.

    The statements may use the times that the caller has: `:before` is the end of the retention. A walk ends at the first
    row whose `at` is not before it.
    """

    name: str
    page: TextClause
    lock: TextClause
    deletes: tuple[tuple[str, TextClause], ...] = ()
    start: Place = field(default_factory=lambda: BEGINNING)
    also: Callable[[AsyncConnection, Sequence[RowMapping]], Awaitable[Deleted]] | None = None


def by_id(table: str, column: str = "id", kind: str = "uuid") -> tuple[str, TextClause]:
    """A table, and the statement that deletes its rows by `:ids`."""
    return table, text(f"DELETE FROM {table} WHERE {column} = ANY(CAST(:ids AS {kind}[]))")


async def one_batch(
    conn: AsyncConnection, prune: Prune, place: Place, times: Mapping[str, datetime], most: int
) -> tuple[Place | None, Deleted]:
    """Delete one batch in the caller's transaction. Returns where to go on (None: nothing old is left) and what went."""
    page = (await conn.execute(prune.page, _used(prune.page, {**times, **place, "most": most}))).mappings().all()
    if not page:
        return None, {}
    ids = {"ids": [row["id"] for row in page]}
    rows = (await conn.execute(prune.lock, _used(prune.lock, times) | ids)).mappings().all()
    deleted: dict[str, int] = {}
    if rows:
        ids = {"ids": [row["id"] for row in rows]}
        for table, statement in prune.deletes:
            deleted[table] = (await conn.execute(statement, ids)).rowcount
        if prune.also is not None:
            deleted |= await prune.also(conn, rows)
    last = page[-1]
    is_last = len(page) < most or ("at" in last and last["at"] >= times["before"])
    return (None if is_last else {name: last[name] for name in place}), deleted


def _used(statement: TextClause, values: Mapping[str, Any]) -> dict[str, Any]:
    names = statement.compile().params
    return {name: value for name, value in values.items() if name in names}
