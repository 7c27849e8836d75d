"""The outbox in SQL: claim, settle, redrive. An item is claimed by one relay at a time, by lease and random token."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.kit.db import rows_of
from app.kit.metrics import Metrics
from app.kit.outbox.model import Item

_outbox = tables.outbox

# Slots are counted and taken under one lock a target, or two relays could both take the last one. An item that holds a
# slot already (its earlier attempt may have arrived) needs no new one and goes first: older items that wait for its slot
# would otherwise keep it out of every round, for ever. An item waits while one before it in its lane is pending, claimed
# or not: what must arrive in order is sent in order.
_LOCK_TARGET = text("SELECT pg_advisory_xact_lock(hashtextextended('outbox:' || :target, 0))")

# By when each became available: items that only wait (a paused DAG) come back all the time, and take turns with others.
_CLAIM = rows_of(
    """
    WITH free AS (
        SELECT CAST(:cap AS bigint) - count(*) AS slots FROM outbox WHERE target = :target AND slot
    ), ready AS (
        SELECT id, slot, row_number() OVER (PARTITION BY slot ORDER BY available_at, id) AS place FROM (
            SELECT id, slot, available_at FROM outbox o
            WHERE state = 'pending' AND target = :target AND available_at <= :now
              AND (lease_until IS NULL OR lease_until <= :now)
              AND (lane IS NULL OR NOT EXISTS (
                SELECT FROM outbox b WHERE b.lane = o.lane AND b.place < o.place AND b.state = 'pending'
              ))
            ORDER BY slot DESC, available_at, id LIMIT :most FOR UPDATE SKIP LOCKED
        ) locked
    )
    UPDATE outbox SET claim = :claim, lease_until = :lease_until, slot = true,
        ambiguous = outbox.ambiguous OR outbox.lease_until IS NOT NULL
    FROM ready, free
    WHERE outbox.id = ready.id AND (ready.slot OR free.slots IS NULL OR ready.place <= free.slots)
    RETURNING outbox.*
""",
    _outbox,
)

_TARGETS = text("""
    SELECT target, count(*) AS ready FROM outbox
    WHERE state = 'pending' AND available_at <= :now AND (lease_until IS NULL OR lease_until <= :now)
    GROUP BY target
""")


async def ready_targets(conn: AsyncConnection, now: datetime) -> list[str]:
    """Targets that have an item to be delivered now."""
    return [row.target for row in await conn.execute(_TARGETS, {"now": now})]


async def claim(
    conn: AsyncConnection, target: str, now: datetime, *, most: int, lease: float, cap: int | None
) -> list[Item]:
    """Take up to `most` of the oldest ready items of a target for `lease` seconds. With a `cap`, so many that no more
    than `cap` items of the target hold a slot."""
    if cap is not None:
        await conn.execute(_LOCK_TARGET, {"target": target})
    token = uuid4()
    parameters = {
        "target": target,
        "now": now,
        "most": most,
        "cap": cap,
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
    """Write what became of a claimed item. False: the lease was lost to another relay, and the result must be dropped."""
    statement = (
        update(_outbox)
        .where(_outbox.c.id == item.id, _outbox.c.claim == item.claim)
        .values(claim=None, lease_until=None, attempts=_outbox.c.attempts + 1, **values)
    )
    return bool((await conn.execute(statement)).rowcount)


async def release_slot(conn: AsyncConnection, item_id: UUID) -> None:
    """What the item started is over: its slot is free for the next."""
    await conn.execute(update(_outbox).where(_outbox.c.id == item_id, _outbox.c.slot).values(slot=False))


async def redrive(conn: AsyncConnection, item_id: UUID, now: datetime) -> bool:
    """dead -> pending, with a fresh deadline. What an earlier attempt left behind is read back first."""
    statement = (
        update(_outbox)
        .where(_outbox.c.id == item_id, _outbox.c.state == "dead")
        .values(state="pending", available_at=now, ambiguous=True, answered_at=None, answered_seconds=0, detail="")
    )
    return bool((await conn.execute(statement)).rowcount)


_FOLD_ATTEMPT = text("""
    UPDATE attempts SET count = count + 1, last_at = :now, detail = :detail
    WHERE id = (SELECT id FROM attempts WHERE item = :item ORDER BY id DESC LIMIT 1) AND result = :result AND code = :code
""")


async def record_attempt(
    conn: AsyncConnection, attempt_id: UUID, item: UUID, result: str, code: str, detail: str, now: datetime
) -> bool:
    """Keep one attempt; a result equal to the one before is counted there. True when it is the first of its kind."""
    values = {"item": item, "result": result, "code": code, "detail": detail[:1000], "now": now}
    if (await conn.execute(_FOLD_ATTEMPT, values)).rowcount:
        return False
    row = {"id": attempt_id, "item": item, "result": result, "code": code, "detail": detail[:1000]}
    await conn.execute(tables.attempts.insert(), row | {"count": 1, "first_at": now, "last_at": now})
    return True


# Two looks, because each has an index of its own: what is delivered stands in neither.
_GAUGES = text("""
    SELECT target, count(*) AS pending, 0 AS dead, min(created_at) AS oldest FROM outbox
    WHERE state = 'pending' GROUP BY target
    UNION ALL
    SELECT target, 0, count(*), NULL FROM outbox WHERE state = 'dead' GROUP BY target
""")


async def set_gauges(conn: AsyncConnection, now: datetime, metrics: Metrics) -> None:
    """Count what waits for delivery, since when, and what is dead."""
    rows = (await conn.execute(_GAUGES)).all()
    for gauge in (metrics.outbox_pending, metrics.outbox_oldest, metrics.outbox_dead):
        gauge.clear()
    for row in rows:
        metrics.outbox_pending.labels(row.target).inc(row.pending)
        metrics.outbox_dead.labels(row.target).inc(row.dead)
        metrics.outbox_oldest.labels(row.target).inc((now - row.oldest).total_seconds() if row.oldest else 0)
