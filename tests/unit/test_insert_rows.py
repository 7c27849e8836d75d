"""Rows of one INSERT share their columns: what one row has and the first one lacks would be lost in silence. And how their
values become JSON."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from app import tables
from app.decide.state import Reason
from app.kit.db import as_json, insert_rows


@pytest.mark.parametrize(
    "rows",
    [[{"name": "a"}, {"name": "b", "more": 1}], [{"name": "a", "more": 1}, {"name": "b"}]],
    ids=["the second has more", "the first has more"],
)
async def test_rows_that_do_not_share_their_columns_are_refused(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="routes do not share their columns"):
        await insert_rows(None, tables.routes, rows)  # type: ignore[arg-type]


NOW = datetime(2026, 11, 30, 13, 5, 7, 42, tzinfo=UTC)
ID = UUID("019a0000-0000-7000-8000-000000000001")
VALUES: list[tuple[Any, Any]] = [
    (NOW, "2026-11-30T13:05:07.000042Z"),
    (NOW.astimezone(timezone(timedelta(hours=5, minutes=30))), "2026-11-30T18:35:07.000042+05:30"),
    (ID, str(ID)),
    (Reason.IN_FLIGHT, "in_flight"),
    ("\u00f1 \u2028 \"' \U0001f600", "\u00f1 \u2028 \"' \U0001f600"),
    ("\ud800", "\ud800"),  # The driver refuses it. What refuses it here would not be an error of the database.
    ({"model": "churn", "none": None, "yes": True}, {"model": "churn", "none": None, "yes": True}),
    ((1, 2**70, 1.5), [1, 2**70, 1.5]),
]


@pytest.mark.parametrize(("value", "text"), VALUES, ids=lambda value: type(value).__name__)
def test_a_value_becomes_the_json_that_postgres_reads(value: Any, text: Any) -> None:
    written = as_json([{"value": value}])
    assert json.loads(written) == [{"value": text}]
