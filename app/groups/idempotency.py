"""Idempotency-Key: a request that comes again is answered as the first time, and starts nothing.

The row is written in the transaction of what it answers. So of two at once the second waits for the first: it finds its
answer when that was committed, and is the first itself when it was rolled back or refused.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.kit.db import as_json
from app.kit.errors import Problem

KEPT = timedelta(hours=24)
_SWEPT = 100  # expired rows that one request removes

_TAKE = text("""
    INSERT INTO idempotency (key, body, created_at) VALUES (:key, :body, :now)
    ON CONFLICT (key) DO UPDATE SET body = excluded.body, answer = NULL, created_at = excluded.created_at
    WHERE idempotency.created_at < :expired
    RETURNING key
""")
_SWEEP = text("""
    DELETE FROM idempotency WHERE key IN (
        SELECT key FROM idempotency WHERE created_at < :expired ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request with its key, scoped by the caller: two callers may use the same key."""

    key: str
    body: str

    @classmethod
    def of(cls, caller: str, key: str, request: Any) -> "Repeatable":
        return cls(_hash(f"{caller}\n{key}"), _hash(as_json(request)))


async def take(conn: AsyncConnection, request: Repeatable, now: datetime) -> dict[str, Any] | None:
    """None: it is the first, go on. Else what was answered. Raises Problem 422 when the key came with another body."""
    values = {"expired": now - KEPT, "now": now, "most": _SWEPT}
    await conn.execute(_SWEEP, values)
    taken = (await conn.execute(_TAKE, values | {"key": request.key, "body": request.body})).one_or_none()
    if taken is not None:
        return None
    t = tables.idempotency
    row = (await conn.execute(t.select().where(t.c.key == request.key))).one()
    if row.body != request.body:
        raise Problem(422, "idempotency_mismatch", "This Idempotency-Key was used with another request.")
    answer: dict[str, Any] = row.answer
    return answer


async def keep(conn: AsyncConnection, request: Repeatable, answer: dict[str, Any]) -> None:
    """Keep the answer, in the transaction of what it tells of."""
    statement = text("UPDATE idempotency SET answer = CAST(:answer AS jsonb) WHERE key = :key")
    await conn.execute(statement, {"answer": to_json(answer).decode(), "key": request.key})


async def forget(conn: AsyncConnection, request: Repeatable) -> None:
    """A refusal is not kept: asked again, it may be granted."""
    await conn.execute(tables.idempotency.delete().where(tables.idempotency.c.key == request.key))


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
