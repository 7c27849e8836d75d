"""Idempotency-Key: a repeated request gets the answer of the first one, and starts nothing.

The row is written in the transaction that the request makes. So of two requests at once the second waits for the first. If
the first is committed, the second finds its answer. If it is rolled back or refused, the second counts as the first.
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
    """The hashes of a request's key and body. The key belongs to the caller: two callers may use the same key."""

    key: str
    body: str

    @classmethod
    def of(cls, caller: str, key: str, request: Any) -> "Repeatable":
        return cls(_hash(f"{caller}\n{key}"), _hash(as_json(request)))


async def take(conn: AsyncConnection, request: Repeatable, now: datetime) -> dict[str, Any] | None:
    """The stored answer; None for the first request with this key, which goes on. Raises Problem 422 when the key was used
    with another body."""
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
    """Store the answer, in the transaction that the request makes."""
    statement = text("UPDATE idempotency SET answer = CAST(:answer AS jsonb) WHERE key = :key")
    await conn.execute(statement, {"answer": to_json(answer).decode(), "key": request.key})


async def forget(conn: AsyncConnection, request: Repeatable) -> None:
    """Forget the key of a refused request: the same request may be granted later."""
    await conn.execute(tables.idempotency.delete().where(tables.idempotency.c.key == request.key))


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
