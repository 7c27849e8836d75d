"""The retention of metadata (GATEWAY_RETENTION): records that no longer wait, their outbox items, and reports."""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.prune import BEGINNING, Prune, by_id
from app.lineage.record_store import item_of, place_of

_RECORDS_PAGE = text("""
    SELECT seq AS id, at FROM records WHERE at < :before AND (at, seq) > (:at, :id) ORDER BY at, seq LIMIT :most
""")
# A record that waits or is young keeps its whole stream: a certificate compares all of it.
_RECORDS_LOCK = text("""
    SELECT seq AS id, stream, login, workspace FROM records r WHERE seq = ANY(CAST(:ids AS bigint[])) AND state <> 'pending'
      AND NOT EXISTS (SELECT FROM records w WHERE w.stream = r.stream AND (w.state = 'pending' OR w.at >= :before))
    FOR UPDATE SKIP LOCKED
""")
_REPORTS_PAGE = text("""
    SELECT id, at FROM reports WHERE at < :before AND (at, id) > (:at, :id) ORDER BY at, id LIMIT :most
""")
_REPORTS_LOCK = text("""
    SELECT id FROM reports r WHERE id = ANY(CAST(:ids AS uuid[])) AND at < :before
      AND NOT EXISTS (SELECT FROM records w WHERE w.stream = 'run:' || r.run)
    FOR UPDATE SKIP LOCKED
""")

_EMPTY = text("""
    SELECT gone.* FROM unnest(CAST(:streams AS text[]), CAST(:logins AS text[]), CAST(:workspaces AS text[]))
        AS gone(stream, login, workspace)
    WHERE NOT EXISTS (SELECT FROM records r WHERE r.stream = gone.stream
                      AND r.login = gone.login AND r.workspace = gone.workspace)
""")
_ITEMS = text("DELETE FROM outbox WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'delivered' RETURNING id")
_ATTEMPTS = text("DELETE FROM attempts WHERE item = ANY(CAST(:ids AS uuid[]))")


async def _items(conn: AsyncConnection, gone: Sequence[RowMapping]) -> Mapping[str, int]:
    """Delete the items of streams that have no records left. The id of an item is a hash of its stream."""
    each = sorted({(row["stream"], row["login"], row["workspace"]) for row in gone})
    columns = {name: [row[at] for row in each] for at, name in enumerate(("streams", "logins", "workspaces"))}
    empty = (await conn.execute(_EMPTY, columns)).mappings().all()
    ids = [item_of(row["stream"], place_of(dict(row))) for row in empty]
    items = (await conn.execute(_ITEMS, {"ids": ids})).scalars().all()
    attempts = (await conn.execute(_ATTEMPTS, {"ids": items})).rowcount
    return {"outbox": len(items), "attempts": attempts}


#: In this order: a report is deleted when no record of its run is left.
PRUNES: Final = (
    Prune(
        "records",
        _RECORDS_PAGE,
        _RECORDS_LOCK,
        (by_id("records", "seq", "bigint"),),
        start={**BEGINNING, "id": 0},
        also=_items,
    ),
    Prune("reports", _REPORTS_PAGE, _REPORTS_LOCK, (by_id("reports"),)),
)
