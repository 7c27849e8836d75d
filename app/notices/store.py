"""Incidents in SQL. Every statement runs in the caller's transaction.

The table `tellings` has one row for each receiver of an incident.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, bindparam, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.kit.db import names_of, rows_of
from app.kit.metrics import Metrics
from app.kit.prune import Prune, by_id
from app.notices.model import Notice

_notices, _receivers, _outbox = tables.notices, tables.tellings, tables.outbox

_DUE = rows_of(
    f"""
    SELECT {names_of(_receivers)} FROM tellings WHERE next_at <= :now ORDER BY next_at LIMIT :most FOR UPDATE SKIP LOCKED
""",
    _receivers,
)

# A notice that was delivered, or is dead, is sent once more. A notice that is still on its way is not sent twice.
_SEND_AGAIN = text("""
    UPDATE outbox SET state = 'pending', detail = '', created_at = :now, available_at = :now, ambiguous = false,
        attempts = 0, answered_at = NULL, answered_seconds = 0,
        payload = jsonb_set(payload, '{times}', to_jsonb((payload->>'times')::int + 1))
    WHERE id = ANY(CAST(:items AS uuid[])) AND state <> 'pending'
""")

_TRIES = text("""
    SELECT coalesce(sum(count), 0) FROM attempts a WHERE item = :item AND code = ANY(CAST(:codes AS text[]))
      AND NOT EXISTS (SELECT FROM attempts b WHERE b.item = a.item AND b.id >= a.id AND b.result <> 'retry')
""")

_DIED = text("""
    SELECT o.id FROM tellings t
    LEFT JOIN outbox e ON e.id = t.resolve_item
    JOIN outbox o ON o.id IN (t.open_item, t.resolve_item) AND o.state = 'dead'
    WHERE t.notice = :notice AND (e.id IS NULL OR e.state = 'dead') ORDER BY o.place
""")

_PAGE = text("""
    SELECT id, resolved_at AS at FROM notices
    WHERE resolved_at IS NOT NULL AND resolved_at < :before AND (resolved_at, id) > (:at, :id)
    ORDER BY resolved_at, id LIMIT :most
""")
# An incident stays while one of its notices is still on its way, however long the receiver is away.
_LOCK = text("""
    SELECT id FROM notices n WHERE id = ANY(CAST(:ids AS uuid[])) AND resolved_at < :before
      AND NOT EXISTS (
        SELECT FROM tellings t JOIN outbox o ON o.id IN (t.open_item, t.resolve_item)
        WHERE t.notice = n.id AND o.state = 'pending'
      ) FOR UPDATE SKIP LOCKED
""")
_ITEMS = "(SELECT unnest(ARRAY[open_item, resolve_item]) FROM tellings WHERE notice = ANY(CAST(:ids AS uuid[])))"
PRUNE: Final = Prune(
    "notices",
    _PAGE,
    _LOCK,
    (
        ("attempts", text(f"DELETE FROM attempts WHERE item IN {_ITEMS}")),
        ("outbox", text(f"DELETE FROM outbox WHERE id IN {_ITEMS}")),
        by_id("tellings", "notice"),
        by_id("notices"),
    ),
)


async def insert_notice(conn: AsyncConnection, ident: UUID, notice: Notice, now: datetime) -> bool:
    """Open an incident. False: one of this key is open already. Waits for a transaction that is just resolving it."""
    statement = insert(_notices).values(
        id=ident,
        key=notice.key,
        event=notice.event,
        severity=notice.severity,
        title=notice.title,
        detail=notice.detail,
        labels=dict(notice.labels),
        link=notice.link,
        opened_at=now,
    )
    statement = statement.on_conflict_do_nothing(index_elements=["key"], index_where=_notices.c.resolved_at.is_(None))
    return bool((await conn.execute(statement)).rowcount)


async def close(conn: AsyncConnection, keys: Sequence[str], detail: str, now: datetime) -> dict[UUID, str]:
    """Resolve the open incidents of these keys; each incident's id with its key."""
    statement = (
        update(_notices)
        .where(_notices.c.key.in_(keys), _notices.c.resolved_at.is_(None))
        .values(resolved_at=now, resolution=detail)
        .returning(_notices.c.id, _notices.c.key)
    )
    return {row.id: row.key for row in await conn.execute(statement)}


async def open_keys(conn: AsyncConnection, prefix: str) -> list[str]:
    """The keys of open incidents that begin with `prefix`."""
    wanted = select(_notices.c.key).where(_notices.c.key.startswith(prefix, autoescape=True))
    return list((await conn.execute(wanted.where(_notices.c.resolved_at.is_(None)))).scalars())


async def insert_receiver_rows(conn: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    """Write one row for each receiver of an incident."""
    await conn.execute(_receivers.insert(), rows)


async def receiver_rows(conn: AsyncConnection, notices: Iterable[UUID]) -> Sequence[RowMapping]:
    """The rows of the receivers of these incidents."""
    return (await conn.execute(select(_receivers).where(_receivers.c.notice.in_(list(notices))))).mappings().all()


async def book_ends(conn: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    """Stop the repeats, and keep the outbox item of each end. A row holds the items of both: {opened, resolved}."""
    statement = (
        update(_receivers)
        .where(_receivers.c.open_item == bindparam("opened"))
        .values(next_at=None, resolve_item=bindparam("resolved"))
    )
    await conn.execute(statement, rows)


async def due(conn: AsyncConnection, now: datetime, most: int) -> Sequence[RowMapping]:
    """The rows of receivers whose incident must be repeated now, locked."""
    return (await conn.execute(_DUE, {"now": now, "most": most})).mappings().all()


async def notice(conn: AsyncConnection, ident: UUID) -> RowMapping | None:
    """One incident."""
    return (await conn.execute(select(_notices).where(_notices.c.id == ident))).mappings().one_or_none()


async def lock_open(conn: AsyncConnection, idents: Iterable[UUID]) -> Sequence[RowMapping]:
    """The open incidents among these, locked. It skips those that another transaction has locked."""
    wanted = select(_notices).where(_notices.c.id.in_(list(idents)), _notices.c.resolved_at.is_(None))
    statement = wanted.order_by(_notices.c.id).with_for_update(skip_locked=True)
    return (await conn.execute(statement)).mappings().all()


async def lock_notice(conn: AsyncConnection, ident: UUID) -> RowMapping | None:
    """One incident, locked, so that nobody resolves it meanwhile."""
    statement = select(_notices).where(_notices.c.id == ident).with_for_update()
    return (await conn.execute(statement)).mappings().one_or_none()


async def tries(conn: AsyncConnection, item: UUID, codes: Iterable[str]) -> int:
    """How many attempts at an item ended with one of these codes, since it was delivered or dead the last time."""
    found = (await conn.execute(_TRIES, {"item": item, "codes": list(codes)})).scalar_one()
    return int(found)


async def died(conn: AsyncConnection, ident: UUID) -> list[UUID]:
    """The dead outbox items of an incident that may be sent again, in the order in which they were written.

    An end may. An opening may when the incident has no end for this receiver, or when the end is dead too.
    """
    return list((await conn.execute(_DIED, {"notice": ident})).scalars())


async def book_next(conn: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    """Set when each receiver gets the next repeat. A row is {item, next}, the item of the opening and the time."""
    if not rows:
        return
    statement = update(_receivers).where(_receivers.c.open_item == bindparam("item")).values(next_at=bindparam("next"))
    await conn.execute(statement, rows)


async def send(conn: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    """Put new items into the outbox."""
    await conn.execute(_outbox.insert(), rows)


async def send_again(conn: AsyncConnection, items: Sequence[UUID], now: datetime) -> None:
    """Send the same items once more, unless they are still on their way."""
    await conn.execute(_SEND_AGAIN, {"items": list(items), "now": now})


_OPEN = text("SELECT event, count(*) AS number FROM notices WHERE resolved_at IS NULL GROUP BY event")


async def set_gauges(conn: AsyncConnection, _now: datetime, metrics: Metrics) -> None:
    """Count the open incidents of each event."""
    rows = (await conn.execute(_OPEN)).all()
    metrics.notices_open.clear()
    for row in rows:
        metrics.notices_open.labels(row.event).set(row.number)
