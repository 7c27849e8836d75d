"""Pages of a list end at a number of bytes too: fat rows would fill the memory of the gateway and of its caller."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import RowMapping, Select, Text, cast, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

MOST_BYTES: Final = 4 * 2**20  # of the rows of a page, as Postgres writes them as text


async def read_page(
    conn: AsyncConnection, wanted: Select[Any], limit: int, *order: str
) -> tuple[Sequence[RowMapping], bool]:
    """The first rows of `wanted`, at most `limit` and at least one, whose bytes have room on a page; and whether there are
    more. `order` names the columns of its order, which is descending."""
    page = wanted.limit(limit + 1).subquery("page")
    size = func.octet_length(cast(literal_column("page"), Text))
    sized = select(page, size.label("page_size")).subquery()
    places = [sized.c[name].desc() for name in order]
    before = func.sum(sized.c.page_size).over(order_by=places, rows=(None, 0)) - sized.c.page_size
    placed = select(sized, before.label("page_before"), func.count().over().label("page_found")).subquery()
    cut = select(placed).where(placed.c.page_before < MOST_BYTES).order_by(*(placed.c[name].desc() for name in order))
    rows = (await conn.execute(cut.limit(limit))).mappings().all()
    return rows, bool(rows) and rows[0]["page_found"] > len(rows)
