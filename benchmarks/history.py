"""A long history in an empty database, by COPY: closed alerts over the last eighty days, each with its decision."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from app.decide.state import group_key

GROUPS: Final = 1000
SPAN: Final = timedelta(days=80)
_PAGE: Final = 200_000  # rows of one COPY

# The primary keys stay: their rows come in order. It is much cheaper to make the other indexes at the end.
_INDEXES: Final = """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
    WHERE indrelid IN ('alerts'::regclass, 'decisions'::regclass) AND NOT indisprimary
"""
_ALERTS: Final = (
    *("id", "alert_id", "fingerprint", "source", "status", "severity", "starts_at", "ends_at", "labels", "annotations"),
    *("route", "group_key", "group_labels", "count", "first_seen_at", "last_seen_at", "firing_since", "closed_at"),
    *("resolved_at", "spent", "dismissed", "decision_id", "decision_count", "reason"),
)
_DECISIONS: Final = (
    *("id", "alert", "route", "group_key", "action", "reason", "detail", "policy", "count", "first_at", "last_at"),
)


async def fill(url: str, alerts: int) -> None:
    """Write so many alerts, each counted once, and their decisions."""
    connection = await asyncpg.connect(url)
    try:
        indexes = await connection.fetch(_INDEXES)
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['name']}")
        now = datetime.now(UTC)
        for begin in range(0, alerts, _PAGE):
            numbers = range(begin, min(begin + _PAGE, alerts))
            rows = _alerts(numbers, now, alerts)
            await connection.copy_records_to_table("alerts", records=rows, columns=_ALERTS)
            decided = _decisions(numbers, now, alerts)
            await connection.copy_records_to_table("decisions", records=decided, columns=_DECISIONS)
        for index in indexes:
            await connection.execute(index["definition"])
        await connection.execute("VACUUM (ANALYZE) alerts, decisions")
    finally:
        await connection.close()


def _alerts(numbers: range, now: datetime, alerts: int) -> Iterator[tuple[Any, ...]]:
    groups = [_group(number) for number in range(GROUPS)]
    for number in numbers:
        at = now - SPAN * (alerts - number) / alerts
        end = at + timedelta(minutes=20)
        key, labels, group = groups[number % GROUPS]
        yield (
            *(_id(at, number, 1), "ModelAccuracyLow", f"old-{number:013x}", "alertmanager", "resolved", "critical"),
            *(at, end, labels, "{}", "accuracy", key, group, 1, at, end, at, end, end, False, False),
            *(_id(at, number, 2), 1, "cooldown"),
        )


def _decisions(numbers: range, now: datetime, alerts: int) -> Iterator[tuple[Any, ...]]:
    keys = [_group(number)[0] for number in range(GROUPS)]
    for number in numbers:
        at = now - SPAN * (alerts - number) / alerts
        yield (
            *(_id(at, number, 2), _id(at, number, 1), "accuracy", keys[number % GROUPS], "suppress", "cooldown"),
            *("the group has fired and cools down", "0123456789ab", 1, at, at),
        )


def _group(number: int) -> tuple[str, str, str]:
    """The key, the labels of an alert and the labels of the group."""
    model = f"old-{number}"
    labels = f'{{"alertname": "ModelAccuracyLow", "job": "model", "model": "{model}", "severity": "critical"}}'
    return group_key("accuracy", "live", {"model": model}), labels, f'{{"model": "{model}"}}'


def _id(at: datetime, number: int, kind: int) -> UUID:
    """A UUIDv7 of that time, different for each number and kind."""
    milliseconds = int(at.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | kind << 64 | 2 << 62 | number)
