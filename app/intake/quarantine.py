"""The quarantine keeps what could not be read, so that people can see it: one row for equal bytes, with a count."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.decide.alert import Bad
from app.kit.prune import BEGINNING, Prune, by_id


@dataclass(frozen=True, slots=True)
class Limits:
    """`rows` is how many rows are kept, and `body` how many bytes of each."""

    rows: int
    body: int


_KEEP = text("""
    INSERT INTO quarantine (sha256, source, error, body, size, count, first_at, last_at)
    VALUES (:sha256, :source, :error, :body, :size, :count, :now, :now)
    ON CONFLICT (sha256) DO UPDATE SET count = quarantine.count + excluded.count, last_at = :now, error = excluded.error
""")

_TRIM = text("""
    DELETE FROM quarantine WHERE sha256 IN (
        SELECT sha256 FROM quarantine ORDER BY last_at DESC OFFSET :rows LIMIT 1000 FOR UPDATE SKIP LOCKED
    )
""")

_PAGE = text("""
    SELECT sha256 AS id, last_at AS at FROM quarantine WHERE last_at < :before AND (last_at, sha256) > (:at, :id)
    ORDER BY last_at, sha256 LIMIT :most
""")
_LOCK = text("""
    SELECT sha256 AS id FROM quarantine WHERE sha256 = ANY(CAST(:ids AS text[])) AND last_at < :before FOR UPDATE SKIP LOCKED
""")
PRUNE: Final = Prune(
    "quarantine", _PAGE, _LOCK, (by_id("quarantine", "sha256", "text"),), start={**BEGINNING, "id": ""}
)


async def keep(conn: AsyncConnection, bad: list[tuple[str, Bad]], now: datetime, limits: Limits) -> None:
    """Keep each (source, bad alert). When there are more than `limits.rows`, the oldest are deleted."""
    rows: dict[str, dict[str, Any]] = {}
    for source, b in bad:
        digest = hashlib.sha256(b.body).hexdigest()
        if digest in rows:
            rows[digest]["count"] += 1
        elif len(rows) < limits.rows:
            body, size = b.body[: limits.body], len(b.body)
            rows[digest] = {"source": source, "error": b.error[:1000], "body": body, "size": size, "count": 1}
    # Sorted, so that every batch takes the locks in one order.
    await conn.execute(_KEEP, [{"sha256": digest, "now": now, **rows[digest]} for digest in sorted(rows)])
    await conn.execute(_TRIM, {"rows": limits.rows})
