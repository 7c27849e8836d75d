"""The drift episodes of live groups, each with its alerts, its retrains and their effect. Reads only."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import RowMapping, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.decide.drift import Drift, Firing, drifts
from app.effects.judging import terms_of
from app.effects.show import EFFECT, Row
from app.kit.db import as_json
from app.kit.pages import MOST_BYTES
from app.policy.schema import Policy

#: The most alerts that one answer reads, the newest. Older ones of the same groups are left out.
MOST_ALERTS: Final = 20_000
#: How many alerts of an episode an answer shows, the newest.
SHOWN: Final = 100
#: Characters of the name of an alert, and of its severity, that an answer shows.
LONGEST: Final = 500

_PART: Final = 100  # episodes whose labels are read at once: a page ends at a number of bytes too

#: Microseconds since 1970, and the id of the first alert.
CURSOR: Final = "^[0-9]{1,16}_[0-9a-f-]{36}$"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# All alerts of each group that had an alert since then: an episode may have begun long before. The groups are found first.
# Without MATERIALIZED Postgres asks again for each alert whether its group is one of them, and takes twenty times as long.
_ALERTS = text("""
    WITH lately AS MATERIALIZED (
        SELECT g.key, g.route FROM groups g
        WHERE g.mode = 'live' AND (CAST(:route AS text) IS NULL OR g.route = :route) AND g.labels @> CAST(:labels AS jsonb)
          AND EXISTS (
            SELECT FROM alerts late WHERE late.group_key = g.key AND (late.closed_at IS NULL OR late.closed_at >= :since)
          )
    )
    SELECT a.group_key, g.route, a.id, left(a.alert_id, :long) AS alert_id, left(a.severity, :long) AS severity,
        a.first_seen_at, a.last_seen_at, a.closed_at, a.resolved_at
    FROM lately g JOIN alerts a ON a.group_key = g.key
    WHERE a.trigger_id IS NOT NULL OR a.closed_at IS DISTINCT FROM a.first_seen_at
    ORDER BY a.first_seen_at DESC LIMIT :most
""").columns(id=Uuid())
_LABELS = text("SELECT key, labels FROM groups WHERE key = ANY(CAST(:keys AS text[]))").columns(labels=JSONB())

_RETRAINS = text(f"""
    SELECT t.id, t.group_key, t.fired_at, {EFFECT} AS effect FROM triggers t LEFT JOIN effects e ON e.trigger_id = t.id
    WHERE t.fired_at IS NOT NULL AND t.group_key = ANY(CAST(:keys AS text[])) AND t.route = ANY(CAST(:routes AS text[]))
      AND t.fired_at >= :since ORDER BY t.fired_at, t.id
""").columns(id=Uuid())


#: An episode, its route and the key of its group.
_Found = tuple[Drift, str, str]


@dataclass(frozen=True, slots=True)
class Query:
    """The filters of a list of episodes: those that had not ended before `since`. `cursor`: see `read_cursor`. `most`: how
    many alerts it reads, the newest. `shown`: how many of an episode it shows."""

    since: datetime
    route: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    goes_on: bool | None = None
    limit: int = 100
    cursor: tuple[datetime, str] | None = None
    most: int = MOST_ALERTS
    shown: int = SHOWN


def read_cursor(cursor: str) -> tuple[datetime, str]:
    """The place in the list that a cursor names: the beginning and the id of an episode."""
    microseconds, _, ident = cursor.partition("_")
    return _EPOCH + timedelta(microseconds=int(microseconds)), ident


async def page(conn: AsyncConnection, policy: Policy, query: Query, now: datetime) -> tuple[list[Row], str | None]:
    """Episodes, the newest first, and the next page's cursor."""
    asked: Row = {"route": query.route, "labels": as_json(query.labels), "since": query.since}
    asked |= {"most": query.most, "long": LONGEST}
    groups: defaultdict[tuple[str, str], list[Firing]] = defaultdict(list)
    for row in (await conn.execute(_ALERTS, asked)).all():
        groups[row[1], row[0]].append(_firing(row))
    found: list[_Found] = []
    for (route, key), firings in groups.items():
        terms = terms_of(policy, policy.route(route))
        for drift in drifts(firings, terms.watch, terms.stale_after, now):
            if (drift.end is None or drift.end >= query.since) and query.goes_on in (None, drift.end is None):
                found.append((drift, route, key))
    found.sort(key=lambda each: _place(each[0]), reverse=True)
    if query.cursor is not None:
        found = [each for each in found if _place(each[0]) < query.cursor]
    items: list[Row] = []
    held = 0
    while len(items) < min(query.limit, len(found)) and held < MOST_BYTES:
        for item in await _some(conn, found[len(items) : query.limit][:_PART], query.shown):
            if held < MOST_BYTES:
                items.append(item)
                held += len(to_json(item))
    following = None
    if len(found) > len(items):
        begin, ident = _place(found[len(items) - 1][0])
        following = f"{(begin - _EPOCH) // timedelta(microseconds=1)}_{ident}"
    return items, following


def _firing(row: Sequence[Any]) -> Firing:
    """From a row of _ALERTS, of which there are thousands: by its place a column costs a third. As `firing` of
    app.effects.store does it."""
    _, _, ident, alert_id, severity, first_seen_at, last_seen_at, closed_at, resolved_at = row
    end = closed_at if resolved_at is not None else None
    return Firing(alert_id, first_seen_at, end, last_seen_at, closed_at, str(ident), severity)


async def _some(conn: AsyncConnection, found: list[_Found], most: int) -> list[Row]:
    """A few episodes as the answer shows them, each with `most` alerts."""
    retrains = await _retrains(conn, found)
    labels = {r.key: r.labels for r in await conn.execute(_LABELS, {"keys": [key for _, _, key in found]})}
    return [_shown(drift, route, labels.get(key, {}), retrains[key], most) for drift, route, key in found]


def _place(drift: Drift) -> tuple[datetime, str]:
    return drift.begin, drift.firings[0].id


async def _retrains(conn: AsyncConnection, shown: list[_Found]) -> defaultdict[str, list[RowMapping]]:
    """The retrains of the groups of these episodes, by group, the oldest first."""
    found: defaultdict[str, list[RowMapping]] = defaultdict(list)
    if shown:
        keys, routes = {key for _, _, key in shown}, {route for _, route, _ in shown}
        asked: dict[str, Any] = {"keys": list(keys), "routes": list(routes), "since": min(d.begin for d, _, _ in shown)}
        for row in (await conn.execute(_RETRAINS, asked)).mappings():
            found[row["group_key"]].append(row)
    return found


def _shown(drift: Drift, route: str, labels: Row, retrains: list[RowMapping], most: int) -> Row:
    mine = [row for row in retrains if drift.holds(row["fired_at"])]
    return {
        "id": UUID(drift.firings[0].id),
        "route": route,
        "group": labels,
        "begin": drift.begin,
        "end": drift.end,
        "severity": drift.severity,
        "alerts": len(drift.firings),
        "newest_alerts": [_alert(each) for each in drift.firings[max(len(drift.firings) - most, 0) :]],
        "retrains": [{"trigger_id": row["id"], "fired_at": row["fired_at"], "effect": row["effect"]} for row in mine],
        "effect": mine[-1]["effect"] if mine else None,
    }


def _alert(each: Firing) -> Row:
    return {
        "id": UUID(each.id),
        "alert_id": each.alert_id,
        "severity": each.severity,
        "begin": each.begin,
        "end": each.end,
        "last_seen_at": each.heard,
    }
