"""Incidents as the API shows them: what is wrong, since when, and which notices each receiver got. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.kit.pages import Found, read_page

_notices, _receivers, _outbox = tables.notices, tables.tellings, tables.outbox

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """The page and the filters of the list. `open`: None shows open and resolved incidents."""

    limit: int = 100
    cursor: UUID | None = None
    open: bool | None = None
    event: str | None = None


async def page(conn: AsyncConnection, query: Query) -> tuple[list[Row], str | None]:
    """Incidents, the newest first, and the cursor of the next page."""
    statement: Select[Any] = select(_notices).order_by(_notices.c.id.desc())
    if query.cursor is not None:
        statement = statement.where(_notices.c.id < query.cursor)
    if query.open is not None:
        is_open = _notices.c.resolved_at.is_(None)
        statement = statement.where(is_open if query.open else ~is_open)
    if query.event is not None:
        statement = statement.where(_notices.c.event == query.event)
    rows, more = await read_page(conn, statement, query.limit, "id")
    return await _with_receivers(conn, rows), str(rows[-1]["id"]) if more else None


async def one(conn: AsyncConnection, ident: UUID) -> Row | None:
    """One incident."""
    rows = (await conn.execute(select(_notices).where(_notices.c.id == ident))).mappings().all()
    return (await _with_receivers(conn, rows))[0] if rows else None


async def _with_receivers(conn: AsyncConnection, rows: Sequence[Found]) -> list[Row]:
    incidents = [row["id"] for row in rows]
    wanted = select(_receivers).where(_receivers.c.notice.in_(incidents)).order_by(_receivers.c.receiver)
    receivers = (await conn.execute(wanted)).mappings().all()
    ids = [item for r in receivers for item in (r["open_item"], r["resolve_item"]) if item is not None]
    items = {row["id"]: row for row in (await conn.execute(select(_outbox).where(_outbox.c.id.in_(ids)))).mappings()}
    return [_shown(row, [r for r in receivers if r["notice"] == row["id"]], items) for row in rows]


def _shown(row: Found, receivers: list[RowMapping], items: dict[UUID, RowMapping]) -> Row:
    return dict(row) | {
        "receivers": [
            {
                "receiver": r["receiver"],
                "opened": _item(items.get(r["open_item"])),
                "resolved": _item(items.get(r["resolve_item"])),
                "next_at": r["next_at"],
            }
            for r in receivers
        ]
    }


def _item(item: RowMapping | None) -> Row | None:
    if item is None:
        return None
    return {"state": item["state"], "detail": item["detail"], "times": item["payload"]["times"]}
