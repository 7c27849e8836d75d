"""Rows of one INSERT share their columns: what one row has and the first one lacks would be lost in silence."""

from typing import Any

import pytest

from app import tables
from app.kit.db import insert_rows


@pytest.mark.parametrize(
    "rows",
    [[{"name": "a"}, {"name": "b", "more": 1}], [{"name": "a", "more": 1}, {"name": "b"}]],
    ids=["the second has more", "the first has more"],
)
async def test_rows_that_do_not_share_their_columns_are_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="routes do not share their columns"):
        await insert_rows(None, tables.routes, rows)  # type: ignore[arg-type]
