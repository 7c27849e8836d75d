"""Repeats that were decided from memory, counted in one statement that proves that memory was up to date."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.triggers.state import Group

_COUNT_REPEATS = text("""
    WITH v AS (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:decisions AS uuid[]), CAST(:times AS bigint[]))
        AS v(id, decision_id, times)
    ), locked AS (
        SELECT a.id, v.times FROM alerts a JOIN v ON v.id = a.id AND v.decision_id = a.decision_id
        WHERE a.closed_at IS NULL ORDER BY a.fingerprint FOR NO KEY UPDATE OF a
    ), fresh AS (
        SELECT (SELECT count(*) FROM locked) = (SELECT count(*) FROM v) AND NOT EXISTS (
            SELECT FROM unnest(CAST(:keys AS text[]), CAST(:versions AS bigint[]), CAST(:nonces AS text[]))
            AS m(key, version, nonce)
            LEFT JOIN groups g ON g.key = m.key AND g.version = m.version AND g.nonce = m.nonce WHERE g.key IS NULL
        ) AS yes
    ), counted AS (
        UPDATE alerts a SET count = a.count + l.times, decision_count = a.decision_count + l.times, last_seen_at = :now
        FROM locked l WHERE a.id = l.id AND (SELECT yes FROM fresh)
    )
    SELECT yes FROM fresh
""")


async def count_repeats(
    conn: AsyncConnection, repeats: list[tuple[UUID, UUID, int]], groups: list[Group], now: datetime
) -> bool:
    """Count repeats that were decided from memory: (episode, decision, times). False when memory was not up to date
    (an episode closed or decided otherwise, a group of another version): then nothing is counted. One statement, whole or
    not at all, so that it needs no transaction around it."""
    fresh = (
        await conn.execute(
            _COUNT_REPEATS,
            {
                "ids": [r[0] for r in repeats],
                "decisions": [r[1] for r in repeats],
                "times": [r[2] for r in repeats],
                "now": now,
                "keys": [g.key for g in groups],
                "versions": [g.version for g in groups],
                "nonces": [g.nonce for g in groups],
            },
        )
    ).scalar_one()
    return bool(fresh)
