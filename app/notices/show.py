"""Incidents for people: what is wrong, since when, and what each receiver was told of it. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables

_notices, _tellings, _outbox = tables.notices, tables.tellings, tables.outbox

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """What the list is filtered by. `open`: None is both."""

    limit: int = 100
    cursor: UUID | None = None
    open: bool | None = None
    event: str | None = None


async def page(conn: AsyncConnection, query: Query) -> tuple[list[Row], str | None]:
    """Incidents, the newest first, and the cursor of the page after it."""
    statement: Select[Any] = select(_notices).order_by(_notices.c.id.desc()).limit(query.limit + 1)
    if query.cursor is not None:
        statement = statement.where(_notices.c.id < query.cursor)
    if query.open is not None:
        is_open = _notices.c.resolved_at.is_(None)
        statement = statement.where(is_open if query.open else ~is_open)
    if query.event is not None:
        statement = statement.where(_notices.c.event == query.event)
    rows = (await conn.execute(statement)).mappings().all()
    shown = rows[: query.limit]
    return await _with_tellings(conn, shown), str(shown[-1]["id"]) if len(rows) > query.limit else None


async def one(conn: AsyncConnection, ident: UUID) -> Row | None:
    """One incident."""
    rows = (await conn.execute(select(_notices).where(_notices.c.id == ident))).mappings().all()
    return (await _with_tellings(conn, rows))[0] if rows else None


async def _with_tellings(conn: AsyncConnection, rows: Sequence[RowMapping]) -> list[Row]:
    wanted = select(_tellings).where(_tellings.c.notice.in_([row["id"] for row in rows])).order_by(_tellings.c.receiver)
    tellings = (await conn.execute(wanted)).mappings().all()
    ids = [item for t in tellings for item in (t["open_item"], t["resolve_item"]) if item is not None]
    items = {row["id"]: row for row in (await conn.execute(select(_outbox).where(_outbox.c.id.in_(ids)))).mappings()}
    return [_shown(row, [t for t in tellings if t["notice"] == row["id"]], items) for row in rows]


def _shown(row: RowMapping, tellings: list[RowMapping], items: dict[UUID, RowMapping]) -> Row:
    return dict(row) | {
        "receivers": [
            {
                "receiver": t["receiver"],
                "opened": _item(items.get(t["open_item"])),
                "resolved": _item(items.get(t["resolve_item"])),
                "next_at": t["next_at"],
            }
            for t in tellings
        ]
    }


def _item(item: RowMapping | None) -> Row | None:
    if item is None:
        return None
    return {"state": item["state"], "detail": item["detail"], "times": item["payload"]["times"]}
