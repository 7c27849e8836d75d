"""The outbox in SQL: claim, settle, redrive. One relay at a time holds an item, by a lease and a random token."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.kit.db import names_of, rows_of
from app.kit.metrics import Metrics
from app.kit.outbox.model import Item
from app.kit.outbox.tables import attempts, outbox

# Slots are counted and taken under one lock a target. Without it two relays could both take the last slot.
_LOCK_TARGET = text("SELECT pg_advisory_xact_lock(hashtextextended('outbox:' || :target, 0))")

# Items go in the order in which they became available: the one that was tried least recently goes first. An item that holds
# a slot already (its earlier attempt may have arrived) needs no new slot. So each kind is looked for by itself, and items
# that wait for a slot do not keep it out. A lane is delivered in order: an item waits while an earlier item of its lane is
# pending, claimed or not.
_READY = """
    state = 'pending' AND target = :target AND available_at <= :now AND (lease_until IS NULL OR lease_until <= :now)
    AND (NOT :only_new OR attempts = 0) AND (lane IS NULL OR NOT EXISTS (
        SELECT FROM outbox b WHERE b.lane = o.lane AND b.place < o.place AND b.state = 'pending'
    ))
"""
_CLAIM = rows_of(
    f"""
    WITH free AS (
        SELECT CAST(:cap AS bigint) - count(*) AS slots FROM outbox WHERE target = :target AND slot
    ), holding AS (
        SELECT id, available_at FROM outbox o WHERE slot AND {_READY}
        ORDER BY available_at, id LIMIT :most FOR UPDATE SKIP LOCKED
    ), waiting AS (
        SELECT id, available_at FROM outbox o WHERE NOT slot AND {_READY}
        ORDER BY available_at, id LIMIT (SELECT greatest(least(CAST(:most AS bigint), slots), 0) FROM free)
        FOR UPDATE SKIP LOCKED
    ), ready AS (
        SELECT id FROM (SELECT * FROM holding UNION ALL SELECT * FROM waiting) locked
        ORDER BY available_at, id LIMIT :most
    )
    UPDATE outbox SET claim = :claim, lease_until = :lease_until, slot = true,
        ambiguous = outbox.ambiguous OR outbox.lease_until IS NOT NULL
    FROM ready WHERE outbox.id = ready.id
    RETURNING {names_of(outbox, "outbox")}
""",
    outbox,
)

_TARGETS = text("""
    SELECT target, count(*) AS ready FROM outbox
    WHERE state = 'pending' AND available_at <= :now AND (lease_until IS NULL OR lease_until <= :now)
    GROUP BY target
""")


async def ready_targets(conn: AsyncConnection, now: datetime) -> list[str]:
    """Targets that have an item to deliver now."""
    return [row.target for row in await conn.execute(_TARGETS, {"now": now})]


async def claim(
    conn: AsyncConnection,
    target: str,
    now: datetime,
    *,
    most: int,
    lease: float,
    cap: int | None,
    only_new: bool = False,
) -> list[Item]:
    """Take up to `most` ready items of a target for `lease` seconds. `cap` is how many of its items may hold a slot;
    only_new: only items that were never tried."""
    if cap is not None:
        await conn.execute(_LOCK_TARGET, {"target": target})
    token = uuid4()
    parameters = {
        "target": target,
        "now": now,
        "most": most,
        "cap": cap,
        "only_new": only_new,
        "claim": token,
        "lease_until": now + timedelta(seconds=lease),
    }
    rows = (await conn.execute(_CLAIM, parameters)).mappings().all()
    items = [
        Item(
            id=r["id"],
            kind=r["kind"],
            target=r["target"],
            payload=r["payload"],
            created_at=r["created_at"],
            claim=token,
            attempts=r["attempts"],
            ambiguous=r["ambiguous"],
            answered_at=r["answered_at"],
            answered_seconds=r["answered_seconds"],
        )
        for r in rows
    ]
    return sorted(items, key=lambda i: (i.created_at, i.id))


async def settle(conn: AsyncConnection, item: Item, **values: Any) -> bool:
    """Write the outcome of a claimed item. False: another relay has the lease now, and the caller must drop the result."""
    statement = (
        update(outbox)
        .where(outbox.c.id == item.id, outbox.c.claim == item.claim)
        .values({"claim": None, "lease_until": None, "attempts": outbox.c.attempts + 1} | values)
    )
    return bool((await conn.execute(statement)).rowcount)


async def release_slot(conn: AsyncConnection, item_id: UUID) -> None:
    """Free the slot of an item: what it started is over."""
    await conn.execute(update(outbox).where(outbox.c.id == item_id, outbox.c.slot).values(slot=False))


async def redrive(conn: AsyncConnection, item_id: UUID, now: datetime) -> bool:
    """Make a dead item pending again, with a new deadline. It is ambiguous: an earlier attempt may have arrived."""
    anew = {"detail": "", "attempts": 0, "answered_at": None, "answered_seconds": 0}
    statement = (
        update(outbox)
        .where(outbox.c.id == item_id, outbox.c.state == "dead")
        .values(anew | {"state": "pending", "available_at": now, "ambiguous": True})
    )
    return bool((await conn.execute(statement)).rowcount)


_FOLD_ATTEMPT = text("""
    UPDATE attempts SET count = count + 1, last_at = :now, detail = :detail
    WHERE id = (SELECT id FROM attempts WHERE item = :item ORDER BY id DESC LIMIT 1) AND result = :result AND code = :code
""")


async def record_attempt(conn: AsyncConnection, item: UUID, result: str, code: str, detail: str, now: datetime) -> bool:
    """Keep one attempt. A result equal to the one before is counted in the same row. True: it needed a new row."""
    values = {"item": item, "result": result, "code": code, "detail": detail[:1000], "now": now}
    if (await conn.execute(_FOLD_ATTEMPT, values)).rowcount:
        return False
    row = {"id": uuid7(), "item": item, "result": result, "code": code, "detail": detail[:1000]}
    await conn.execute(attempts.insert(), row | {"count": 1, "first_at": now, "last_at": now})
    return True


# Two looks, because each has an index of its own: what is delivered stands in neither.
_OPEN = text("""
    SELECT target, sum(pending)::bigint AS pending, sum(dead)::bigint AS dead, min(oldest) AS oldest FROM (
        SELECT target, count(*) AS pending, 0 AS dead, min(created_at) AS oldest FROM outbox
        WHERE state = 'pending' GROUP BY target
        UNION ALL
        SELECT target, 0, count(*), NULL FROM outbox WHERE state = 'dead' GROUP BY target
    ) looks GROUP BY target ORDER BY target
""")


async def undelivered(conn: AsyncConnection) -> list[dict[str, Any]]:
    """What waits for delivery, since when (`oldest`), and what is dead, by target. A target without either is left out."""
    return [dict(row) for row in (await conn.execute(_OPEN)).mappings()]


async def set_gauges(conn: AsyncConnection, now: datetime, metrics: Metrics) -> None:
    """Count what waits for delivery, since when, and what is dead."""
    rows = await undelivered(conn)
    for gauge in (metrics.outbox_pending, metrics.outbox_oldest, metrics.outbox_dead):
        gauge.clear()
    for row in rows:
        metrics.outbox_pending.labels(row["target"]).set(row["pending"])
        metrics.outbox_dead.labels(row["target"]).set(row["dead"])
        metrics.outbox_oldest.labels(row["target"]).set((now - row["oldest"]).total_seconds() if row["oldest"] else 0)
