"""What happened, for people: alerts, triggers, routes and quarantine as the API shows them. Reads only."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Select, Table, Uuid, and_, literal_column, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import TextualSelect

from app import tables
from app.kit.db import names_of, rows_of
from app.kit.loop import in_turns
from app.kit.pages import MOST_BYTES, Found, read_page

_alerts, _triggers, _decisions = tables.alerts, tables.triggers, tables.decisions
_QUIET_SINCE = literal_column(tables.QUIET_SINCE, DateTime(timezone=True))

#: How many of one alert's decisions, one trigger's alerts and the like an answer shows: the newest.
SHOWN = 100
#: How many of these a whole page shows. A page of more than 100 items shows fewer of each: 10 on a page of 1000.
SHOWN_ON_A_PAGE = 10_000

#: Microseconds since 1970, and the hash. These characters need no escape in a URL.
QUARANTINE_CURSOR = "^[0-9]{1,16}_[0-9a-f]{64}$"
_NEWEST = 1000  # episodes of one name among which it looks for one that fires
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: `next` is the cursor of the page after it, or None."""

    items: list[Row]
    next: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """The filters of a list. `since` and `until` are UTC; an item must have all of `labels`."""

    limit: int = 100
    cursor: UUID | None = None
    route: str | None = None
    status: str | None = None
    reason: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None


async def list_alerts(conn: AsyncConnection, query: Query) -> Page:
    """Alerts, the newest first."""
    statement: Select[Any] = select(_alerts)
    if query.status:
        is_open = _alerts.c.closed_at.is_(None)  # the status says the same, but this is indexed
        statement = statement.where(is_open if query.status == "firing" else ~is_open)
    if query.labels:
        statement = statement.where(_alerts.c.labels.contains(dict(query.labels)))
    if query.since:
        # The first condition is true wherever the second is, and it is indexed.
        lately = or_(_alerts.c.closed_at.is_(None), and_(_alerts.c.closed_at.is_not(None), query.since <= _QUIET_SINCE))
        statement = statement.where(lately, _alerts.c.last_seen_at >= query.since)
    if query.until:
        statement = statement.where(_alerts.c.first_seen_at < query.until)
    if query.reason:
        statement = statement.where(_alerts.c.reason == query.reason)
    rows, following = await _page(conn, statement, _alerts, query)
    return Page(await _with_decisions(conn, rows), following)


async def get_alert(conn: AsyncConnection, alert: UUID) -> Row | None:
    rows = (await conn.execute(select(_alerts).where(_alerts.c.id == alert))).mappings().all()
    return (await _with_decisions(conn, rows))[0] if rows else None


async def find_alert(conn: AsyncConnection, name: str) -> UUID | None:
    """The alert that a person means by an `alert_id` or a fingerprint. Of its newest episodes, one that fires comes first;
    of several, the one that arrived last."""
    for column in (_alerts.c.alert_id, _alerts.c.fingerprint):
        newest = select(_alerts).where(column == name).order_by(_alerts.c.id.desc()).limit(_NEWEST).subquery()
        firing_first = (newest.c.status == "firing").desc()
        statement = (
            select(newest.c.id).order_by(firing_first, newest.c.last_seen_at.desc(), newest.c.id.desc()).limit(1)
        )
        found: UUID | None = (await conn.execute(statement)).scalar_one_or_none()
        if found is not None:
            return found
    return None


async def _page(
    conn: AsyncConnection, statement: Select[Any], table: Table, query: Query
) -> tuple[Sequence[Found], str | None]:
    if query.route:
        statement = statement.where(table.c.route == query.route)
    if query.cursor:
        statement = statement.where(table.c.id < query.cursor)
    rows, more = await read_page(conn, statement.order_by(table.c.id.desc()), query.limit, "id")
    return rows, str(rows[-1]["id"]) if more else None


_DECISIONS_OF = rows_of(
    f"""
    SELECT {names_of(_decisions, "d")} FROM unnest(CAST(:ids AS uuid[])) a CROSS JOIN LATERAL (
        SELECT * FROM decisions WHERE alert = a ORDER BY id DESC LIMIT :shown
    ) d ORDER BY d.id
""",
    _decisions,
)


async def _with_decisions(conn: AsyncConnection, rows: Sequence[Found]) -> list[Row]:
    found = await decisions_of(conn, rows)
    return [_alert(row) | {"decisions": found[row["id"]]} for row in rows]


async def decisions_of(conn: AsyncConnection, rows: Sequence[Found]) -> dict[UUID, list[Row]]:
    """The decisions on these alerts, the oldest first, by the id of the alert."""
    found: dict[UUID, list[Row]] = {row["id"]: [] for row in rows}
    newest = {row["decision_id"]: row for row in rows}
    for d in (await conn.execute(_DECISIONS_OF, {"ids": list(found), "shown": _shown_of(len(rows))})).mappings():
        shown = _decision(d)
        alert = newest.get(d["id"])
        if alert is not None:  # Count and time of the newest decision are in the alert's row while they still change.
            shown |= {"count": alert["decision_count"], "last_at": max(d["last_at"], alert["last_seen_at"])}
        found[d["alert"]].append(shown)
    return found


def _shown_of(items: int) -> int:
    return min(SHOWN, SHOWN_ON_A_PAGE // max(items, 1))


def _alert(row: Found) -> Row:
    names = ("id", "alert_id", "fingerprint", "status", "severity", "starts_at", "ends_at", "labels", "annotations")
    return {name: row[name] for name in names} | {
        "source": row["source"],
        "route": row["route"],
        "group": row["group_labels"],
        "count": row["count"],
        "first_seen_at": row["first_seen_at"],
        "last_seen_at": row["last_seen_at"],
        "trigger_id": row["trigger_id"],
    }


def _decision(row: Found) -> Row:
    names = ("action", "reason", "trigger_id", "until", "detail", "count", "first_at", "last_at", "policy")
    return {name: row[name] for name in names}


async def list_triggers(conn: AsyncConnection, query: Query) -> Page:
    """Triggers, the newest first. Here `status` of the query is their state."""
    statement: Select[Any] = select(_triggers)
    if query.status:
        statement = statement.where(_triggers.c.state == query.status)
    if query.reason:
        statement = statement.where(_triggers.c.reason == query.reason)
    if query.labels:
        statement = statement.where(_triggers.c.group_labels.contains(dict(query.labels)))
    if query.since:
        statement = statement.where(_triggers.c.created_at >= query.since)
    if query.until:
        statement = statement.where(_triggers.c.created_at < query.until)
    rows, following = await _page(conn, statement, _triggers, query)
    return Page(await _with_parts(conn, rows), following)


async def get_trigger(conn: AsyncConnection, trigger: UUID) -> Row | None:
    found = await get_triggers(conn, [trigger])
    return found[0] if found else None


async def get_triggers(conn: AsyncConnection, ids: Sequence[UUID]) -> list[Row]:
    """Those that exist, the newest first, together within the bounds of a page."""
    wanted = select(_triggers).where(_triggers.c.id.in_(ids)).order_by(_triggers.c.id.desc())
    return await _with_parts(conn, (await conn.execute(wanted)).mappings().all())


_SHOWN_BEHIND = ("id", "alert_id", "severity", "status", "starts_at", "labels")
_ALERTS_OF = rows_of(
    f"""
    SELECT behind, {names_of(_alerts, "b")} FROM (
        SELECT t AS behind, {names_of(_alerts, "a")}, row_number() OVER (ORDER BY t, a.id) AS place,
            sum(octet_length(CAST(a.labels AS text))) OVER (ORDER BY t, a.id) AS bytes
        FROM unnest(CAST(:ids AS uuid[])) t CROSS JOIN LATERAL (
            SELECT DISTINCT alert FROM decisions
            WHERE trigger_id = t AND (action IN ('fire', 'hold', 'cancel') OR reason = 'shadow') LIMIT :shown
        ) d JOIN alerts a ON a.id = d.alert
    ) b WHERE place = 1 OR bytes < CAST(:bytes AS bigint) ORDER BY id
""",
    _alerts,
    behind=Uuid(),
)

_ATTEMPTS_OF = rows_of(
    f"""
    SELECT {names_of(tables.attempts, "a")} FROM unnest(CAST(:ids AS uuid[])) i CROSS JOIN LATERAL (
        SELECT * FROM attempts WHERE item = i ORDER BY id DESC LIMIT :shown
    ) a ORDER BY a.id
""",
    tables.attempts,
)


# What MLflow held at the last look: app.lineage keeps these tables.
_RUNS_OF = text(
    """
    SELECT r.trigger_id, r.run_id, r.status, r.name, r.seen_at, coalesce((
        SELECT jsonb_agg(jsonb_build_object('model', v.model, 'version', v.version) ORDER BY v.created_at)
        FROM versions v WHERE v.run_id = r.run_id
    ), '[]') AS versions
    FROM unnest(CAST(:ids AS uuid[])) t CROSS JOIN LATERAL (
        SELECT * FROM runs WHERE trigger_id = t AND NOT deleted ORDER BY started_at DESC LIMIT :shown
    ) r ORDER BY r.started_at, r.run_id
"""
).columns(trigger_id=Uuid(), versions=JSONB())


async def _with_parts(conn: AsyncConnection, rows: Sequence[Found]) -> list[Row]:
    parameters = {"ids": [row["id"] for row in rows], "shown": _shown_of(len(rows))}
    most = parameters | {"bytes": MOST_BYTES}
    behind: dict[UUID, list[Row]] = {row["id"]: [] for row in rows}
    tried: dict[UUID, list[Row]] = {row["id"]: [] for row in rows}
    for a in (await conn.execute(_ALERTS_OF, most)).mappings():
        behind[a["behind"]].append({name: a[name] for name in _SHOWN_BEHIND})
    for a in (await conn.execute(_ATTEMPTS_OF, parameters)).mappings():
        names = ("result", "code", "detail", "count", "first_at", "last_at")
        tried[a["item"]].append({name: a[name] for name in names})
    made: dict[UUID, list[Row]] = {row["id"]: [] for row in rows}
    for r in (await conn.execute(_RUNS_OF, parameters)).mappings():
        made[r["trigger_id"]].append({name: r[name] for name in ("run_id", "name", "status", "versions", "seen_at")})
    parts = {"alerts": behind, "attempts": tried, "runs": made}
    return [_trigger(row) | {name: part[row["id"]] for name, part in parts.items()} for row in rows]


def _trigger(row: Found) -> Row:
    names = ("id", "route", "mode", "reason", "state", "outcome", "detail", "blocked", "created_at", "fired_at")
    more = ("accepted_at", "started_at", "ended_at", "lost_at", "airflow", "dag_id", "dag_run_id", "dag_run_state")
    return {name: row[name] for name in (*names, *more, "requested_by")} | {"group": row["group_labels"]}


#: What a lane shows of an alert; and with it, what a line shows and `decisions_of` needs.
OF_A_MARK = ("group_key", "id", "alert_id", "severity", "status", "first_seen_at", "last_seen_at")
OF_A_LINE = (*OF_A_MARK, "count", "decision_id", "decision_count")
_LATELY_ALERTED: dict[tuple[str, ...], TextualSelect] = {
    names: text(
        f"""
        SELECT a.* FROM unnest(CAST(:keys AS text[])) k CROSS JOIN LATERAL (
            SELECT {", ".join(names)} FROM alerts WHERE group_key = k AND last_seen_at >= :since ORDER BY id DESC LIMIT :most
        ) a
"""
    ).columns(*(_alerts.c[name] for name in names))
    for names in (OF_A_MARK, OF_A_LINE)
}
_LATELY_FIRED = (
    "group_key",
    "id",
    "mode",
    "reason",
    "state",
    "outcome",
    "detail",
    "created_at",
    "fired_at",
    "ended_at",
    "lost_at",
)
_LATELY_TRIGGERED = text(
    f"""
    SELECT t.* FROM unnest(CAST(:keys AS text[])) k CROSS JOIN LATERAL (
        SELECT {", ".join(_LATELY_FIRED)} FROM triggers
        WHERE group_key = k AND (ended_at IS NULL OR ended_at >= :since) ORDER BY id DESC LIMIT :most
    ) t
"""
).columns(*(_triggers.c[name] for name in _LATELY_FIRED))
_TRIGGERS = rows_of(f"SELECT {names_of(_triggers)} FROM triggers WHERE id = ANY(CAST(:ids AS uuid[]))", _triggers)


async def lately_alerted(
    conn: AsyncConnection, keys: Sequence[str], since: datetime, most: int, *, names: tuple[str, ...] = OF_A_LINE
) -> dict[str, list[Row]]:
    """By group key, the newest `most` alerts last seen since a time, with OF_A_LINE or OF_A_MARK. Their labels may be fat.
    `keys` are those of app.decide.state.group_key."""
    return await _by_group(conn, _LATELY_ALERTED[names], names, {"keys": list(keys), "since": since, "most": most})


async def lately_triggered(
    conn: AsyncConnection, keys: Sequence[str], since: datetime, most: int
) -> dict[str, list[Row]]:
    """By group key, the newest `most` triggers that are open or ended since a time: what a lane shows of them."""
    asked = {"keys": list(keys), "since": since, "most": most}
    return await _by_group(conn, _LATELY_TRIGGERED, _LATELY_FIRED, asked)


async def _by_group(
    conn: AsyncConnection, statement: TextualSelect, names: Sequence[str], asked: Row
) -> dict[str, list[Row]]:
    """Rows by the key of their group, which is the first of `names`. A page reads thousands: a mapping of each costs more
    than the query."""
    found: dict[str, list[Row]] = {key: [] for key in asked["keys"]}
    async for row in in_turns((await conn.execute(statement, asked)).all()):
        found[row[0]].append(dict(zip(names, row, strict=True)))
    return found


async def versions_made(conn: AsyncConnection, triggers: Sequence[UUID]) -> list[Row]:
    """The model versions that the runs of these triggers made, the newest first."""
    asked = {"ids": list(triggers), "shown": _shown_of(len(triggers))}
    made = (await conn.execute(_RUNS_OF, asked)).mappings()
    return [version for run in made for version in run["versions"]][::-1]


async def triggers_by_id(conn: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Row]:
    """The triggers with these ids, without their parts."""
    return {row["id"]: _trigger(row) for row in (await conn.execute(_TRIGGERS, {"ids": list(ids)})).mappings()}


async def conf_of(conn: AsyncConnection, trigger: UUID) -> Any:
    """What Airflow gets as the `conf` of the DAG run; None before the fire."""
    return (await conn.execute(select(_triggers.c.conf).where(_triggers.c.id == trigger))).scalar()


async def list_quarantine(conn: AsyncConnection, limit: int, before: tuple[datetime, str] | None) -> Page:
    """What could not be read, the newest first. `before` is a place in the list, from `read_quarantine_cursor`."""
    q = tables.quarantine
    statement = select(q).order_by(q.c.last_at.desc(), q.c.sha256.desc())
    if before:
        # The bad alerts of one body have the same time. Only time and hash together name one place in the list.
        statement = statement.where(tuple_(q.c.last_at, q.c.sha256) < tuple_(*before))
    rows, more = await read_page(conn, statement, limit, "last_at", "sha256")
    last = rows[-1] if more else None
    following = f"{(last['last_at'] - _EPOCH) // timedelta(microseconds=1)}_{last['sha256']}" if last else None
    return Page([_quarantined(row) for row in rows], following)


def read_quarantine_cursor(cursor: str) -> tuple[datetime, str]:
    """The place in the quarantine that a cursor names: time and hash. `cursor` matches QUARANTINE_CURSOR."""
    microseconds, _, digest = cursor.partition("_")
    return _EPOCH + timedelta(microseconds=int(microseconds)), digest


def _quarantined(row: Found) -> Row:
    names = ("sha256", "source", "error", "size", "count", "first_at", "last_at")
    body = bytes(row["body"])
    shown = {"body": body.decode("utf-8", "replace"), "body_base64": b64encode(body).decode()}
    return {name: row[name] for name in names} | shown
