"""What happened, for a replay: pages of plain records, one kind after the other. Reads only.

A page costs the same however long the history is. `app.replay.recorded` turns the records into lines in the order of time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any, Final, Literal, get_args
from uuid import UUID

from sqlalchemy import DateTime, RowMapping, TextClause, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

Kind = Literal["policy", "outage", "request", "run", "confirm", "ineffective", "alert", "heard"]

#: The cursor of a page: its kind, and the id or the place of the last record before it.
CURSOR: Final = f"^({'|'.join(get_args(Kind))}):[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}(:[0-9]{{1,11}})?$"
_FIRST: Final = "00000000-0000-0000-0000-000000000000"
_TEXTS: Final = 2_000_000  # characters of policies on a page

# Each statement reads the records after `:id`, in an order that new records join at the end.
_TIMES: Final = """
    AND (CAST(:since AS timestamptz) IS NULL OR {0} >= :since)
    AND (CAST(:until AS timestamptz) IS NULL OR {1} < :until)
"""
_STATEMENTS: Final[dict[Kind, str]] = {
    # The one that was in force at the beginning is older, so the beginning bounds nothing.
    "policy": f"""
        SELECT f.id, f.since AS at, f.until, f.hash, f.replica, p.text FROM in_force f JOIN policies p USING (hash)
        WHERE f.id > :id {_TIMES.format("CAST('infinity' AS timestamptz)", "f.since")} ORDER BY f.id LIMIT :most
    """,
    "outage": f"""
        SELECT since AS at, until FROM outages WHERE since > to_timestamp(:place)
        {_TIMES.format("until", "since")} ORDER BY since LIMIT :most
    """,
    # The subject of a redrive and a cancel is a trigger. Other requests name their route and group.
    "request": f"""
        SELECT a.id, a.at, a.caller, a.action, a.detail, coalesce(t.route, replace(a.subject, 'route ', '')) AS route,
            coalesce(t.group_labels, a.detail->'group') AS "group"
        FROM audit a LEFT JOIN triggers t
            ON t.id = CASE WHEN a.subject ~ '^[0-9a-f]{{8}}-[0-9a-f-]{{27}}$' THEN CAST(a.subject AS uuid) END
        WHERE a.id > :id AND (a.action IN ('trigger', 'force') OR a.subject LIKE 'route %' OR t.id IS NOT NULL)
        {_TIMES.format("a.at", "a.at")} ORDER BY a.id LIMIT :most
    """,
    "run": f"""
        SELECT id, fired_at AS at, route, mode, group_labels AS "group", reason, accepted_at, ended_at, lost_at, outcome
        FROM triggers WHERE id > :id AND fired_at IS NOT NULL
        {_TIMES.format("fired_at", "fired_at")} ORDER BY id LIMIT :most
    """,
    "confirm": f"""
        SELECT id, at, route, group_labels AS "group", confirmed FROM confirms
        WHERE id > :id {_TIMES.format("at", "at")} ORDER BY id LIMIT :most
    """,
    # From its opening to its end this incident says that retrains do not help a group.
    "ineffective": f"""
        SELECT id, opened_at AS at, resolved_at AS until, labels->>'route' AS route, labels - 'route' AS "group"
        FROM notices WHERE id > :id AND event = 'no_effect'
        {_TIMES.format("coalesce(resolved_at, 'infinity')", "opened_at")} ORDER BY id LIMIT :most
    """,
    # `routed_at`: the severity has changed, and from then on a route took the alert.
    "alert": f"""
        SELECT id, alert_id, fingerprint, source, severity, starts_at, ends_at, labels, first_seen_at, last_seen_at,
            resolved_at, CASE WHEN severity <> labels->>'severity' THEN (
                SELECT min(d.first_at) FROM decisions d WHERE d.alert = alerts.id AND d.route IS NOT NULL
            ) END AS routed_at
        FROM alerts WHERE id > :id {_TIMES.format("last_seen_at", "first_seen_at")} ORDER BY id LIMIT :most
    """,
    "heard": """
        SELECT alert, since, times FROM heard WHERE (alert, since) > (:id, to_timestamp(:place))
            AND (CAST(:since AS timestamptz) IS NULL OR since > CAST(:since AS timestamptz) - interval '6 hours')
            AND (CAST(:until AS timestamptz) IS NULL OR since < :until)
        ORDER BY alert, since LIMIT :most
    """,
}


@dataclass(frozen=True, slots=True)
class Page:
    """One page: `next` is the cursor of the page after it, or None."""

    items: list[dict[str, Any]]
    next: str | None


async def page(
    conn: AsyncConnection, cursor: str | None, limit: int, since: datetime | None, until: datetime | None
) -> Page:
    """The records after the cursor. A page has records of one kind only; it may be empty, and the next page is not."""
    kind, ident, place = _read_cursor(cursor)
    values: dict[str, Any] = {"most": limit + 1, "since": since, "until": until}
    if kind in ("outage", "heard"):
        values["place"] = place
    if kind != "outage":
        values["id"] = ident
    rows = (await conn.execute(_statement(kind), values)).mappings().all()
    shown = _fitting(rows[:limit])
    if len(shown) < len(rows):
        return Page([_record(kind, row) for row in shown], _cursor_after(kind, shown[-1]))
    kinds: tuple[Kind, ...] = get_args(Kind)
    following = kinds[kinds.index(kind) + 1 :]
    return Page([_record(kind, row) for row in shown], f"{following[0]}:{_FIRST}" if following else None)


def _statement(kind: Kind) -> TextClause:
    times = [bindparam(name, type_=DateTime(timezone=True)) for name in ("since", "until")]
    return text(_STATEMENTS[kind]).bindparams(*times, *([] if kind == "outage" else [bindparam("id", type_=Uuid())]))


def _read_cursor(cursor: str | None) -> tuple[Kind, UUID, float]:
    kinds: tuple[Kind, ...] = get_args(Kind)
    if cursor is None:
        return kinds[0], UUID(_FIRST), 0.0
    name, ident, *place = cursor.split(":")
    return next(kind for kind in kinds if kind == name), UUID(ident), float(place[0]) if place else 0.0


def _cursor_after(kind: Kind, row: RowMapping) -> str:
    if kind == "outage":  # Two outages never begin in one second.
        return f"outage:{_FIRST}:{ceil(row['at'].timestamp())}"
    if kind == "heard":
        return f"heard:{row['alert']}:{int(row['since'].timestamp())}"
    return f"{kind}:{row['id']}"


def _fitting(rows: Sequence[RowMapping]) -> Sequence[RowMapping]:
    """As many rows as a page may have: texts of policies may be long."""
    length = 0
    for number, row in enumerate(rows):
        length += len(row.get("text") or "")
        if number and length > _TEXTS:
            return rows[:number]
    return rows


def _record(kind: Kind, row: RowMapping) -> dict[str, Any]:
    return {"kind": kind, **row}
