"""Pages of a list end at a number of bytes too: fat rows would fill the memory of the gateway and of its caller."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Select, Text, cast, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

MOST_BYTES: Final = 4 * 2**20  # of the rows of a page, as Postgres writes them as text
_PART: Final = 16  # rows that are decoded at once

#: A row by the names of its columns: of a page, or as SQLAlchemy has it.
Found = Mapping[Any, Any]


async def read_page(
    conn: AsyncConnection, wanted: Select[Any], limit: int, *order: str
) -> tuple[Sequence[Found], bool]:
    """The first rows of `wanted`, at most `limit` and at least one, whose bytes have room on a page; and whether there are
    more. `order` names the columns of its order, which is descending. Postgres makes only the rows that are fetched, so a
    thousand fat rows cost it no more time than a page of them."""
    page = wanted.limit(limit + 1).subquery("page")
    size = func.octet_length(cast(literal_column("page"), Text)).label("page_size")
    found = await conn.stream(select(page, size).order_by(*(page.c[name].desc() for name in order)))
    rows: list[Found] = []
    held = 0
    try:
        async for part in found.mappings().partitions(_PART):
            for row in part:
                if len(rows) == limit or (rows and held >= MOST_BYTES):
                    return rows, True
                columns = dict(row)
                held += columns.pop("page_size")
                rows.append(columns)
        return rows, False
    finally:
        await found.close()
