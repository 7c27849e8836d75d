"""The records of a gateway's history out of its database, page by page. For a process without an event loop of its own."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from app.explain import recorded
from app.kit.db import open_engine

_PAGE: Final = 1000


def pages_of(
    url: str, since: datetime | None = None, until: datetime | None = None, most: int = _PAGE
) -> Iterator[list[dict[str, Any]]]:
    """Each page when it is asked for, with at most `most` records, so that memory holds one of them. No transaction is open
    between two pages."""
    with asyncio.Runner() as runner:
        engine = open_engine(url, pool_size=1, read_only=True)
        try:
            cursor = None
            while True:
                page = runner.run(_page(engine, cursor, most, since, until))
                yield [{k: str(v) if k in ("id", "alert") else v for k, v in record.items()} for record in page.items]
                if (cursor := page.next) is None:
                    return
        finally:
            runner.run(engine.dispose())


async def _page(
    engine: AsyncEngine, cursor: str | None, most: int, since: datetime | None, until: datetime | None
) -> recorded.Page:
    async with engine.connect() as conn:
        return await recorded.page(conn, cursor, most, since, until)
