"""The drift episodes of live groups, each with its alerts, its retrains and their effect. Reads only."""

from collections import defaultdict
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
from app.effects.store import firing
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

# All alerts of each group that had an alert since then: an episode may have begun long before.
_ALERTS = text("""
    SELECT a.group_key, g.route, a.id, left(a.alert_id, :long) AS alert_id, left(a.severity, :long) AS severity,
        a.first_seen_at, a.last_seen_at, a.closed_at, a.resolved_at
    FROM alerts a JOIN groups g ON g.key = a.group_key
    WHERE g.mode = 'live' AND (CAST(:route AS text) IS NULL OR g.route = :route) AND g.labels @> CAST(:labels AS jsonb)
      AND (a.trigger_id IS NOT NULL OR a.closed_at IS DISTINCT FROM a.first_seen_at)
      AND EXISTS (
        SELECT FROM alerts late WHERE late.group_key = a.group_key AND (late.closed_at IS NULL OR late.closed_at >= :since)
      )
    ORDER BY a.first_seen_at DESC LIMIT :most
""").columns(id=Uuid())
_LABELS = text("SELECT key, labels FROM groups WHERE key = ANY(CAST(:keys AS text[]))").columns(labels=JSONB())

_RETRAINS = text(f"""
    SELECT t.id, t.group_key, t.fired_at, {EFFECT} AS effect FROM triggers t LEFT JOIN effects e ON e.trigger_id = t.id
    WHERE t.fired_at IS NOT NULL AND t.group_key = ANY(CAST(:keys AS text[])) AND t.route = ANY(CAST(:routes AS text[]))
      AND t.fired_at >= :since ORDER BY t.fired_at, t.id
""").columns(id=Uuid())


@dataclass(frozen=True, slots=True)
class Query:
    """The filters of a list of episodes: those that had not ended before `since`. `cursor`: see `read_cursor`. `most`: how
    many alerts it reads, the newest."""

    since: datetime
    route: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    goes_on: bool | None = None
    limit: int = 100
    cursor: tuple[datetime, str] | None = None
    most: int = MOST_ALERTS


def read_cursor(cursor: str) -> tuple[datetime, str]:
    """The place in the list that a cursor names: the beginning and the id of an episode."""
    microseconds, _, ident = cursor.partition("_")
    return _EPOCH + timedelta(microseconds=int(microseconds)), ident


async def page(conn: AsyncConnection, policy: Policy, query: Query, now: datetime) -> tuple[list[Row], str | None]:
    """Episodes, the newest first, and the next page's cursor."""
    asked: Row = {"route": query.route, "labels": as_json(query.labels), "since": query.since}
    asked |= {"most": query.most, "long": LONGEST}
    groups: defaultdict[str, list[RowMapping]] = defaultdict(list)
    for row in (await conn.execute(_ALERTS, asked)).mappings():
        groups[row["group_key"]].append(row)
    found: list[tuple[Drift, RowMapping]] = []
    for rows in groups.values():
        terms = terms_of(policy, policy.route(rows[0]["route"]))
        for drift in drifts(map(firing, rows), terms.watch, terms.stale_after, now):
            if (drift.end is None or drift.end >= query.since) and query.goes_on in (None, drift.end is None):
                found.append((drift, rows[0]))
    found.sort(key=lambda pair: _place(pair[0]), reverse=True)
    if query.cursor is not None:
        found = [pair for pair in found if _place(pair[0]) < query.cursor]
    items: list[Row] = []
    held = 0
    while len(items) < min(query.limit, len(found)) and held < MOST_BYTES:
        for item in await _some(conn, found[len(items) : query.limit][:_PART]):
            if held < MOST_BYTES:
                items.append(item)
                held += len(to_json(item))
    following = None
    if len(found) > len(items):
        begin, ident = _place(found[len(items) - 1][0])
        following = f"{(begin - _EPOCH) // timedelta(microseconds=1)}_{ident}"
    return items, following


async def _some(conn: AsyncConnection, found: list[tuple[Drift, RowMapping]]) -> list[Row]:
    """A few episodes as the answer shows them."""
    retrains = await _retrains(conn, found)
    labels = {r.key: r.labels for r in await conn.execute(_LABELS, {"keys": [row["group_key"] for _, row in found]})}
    keyed = [(drift, row["route"], row["group_key"]) for drift, row in found]
    return [_shown(drift, route, labels.get(key, {}), retrains[key]) for drift, route, key in keyed]


def _place(drift: Drift) -> tuple[datetime, str]:
    return drift.begin, drift.firings[0].id


async def _retrains(conn: AsyncConnection, shown: list[tuple[Drift, RowMapping]]) -> defaultdict[str, list[RowMapping]]:
    """The retrains of the groups of these episodes, by group, the oldest first."""
    found: defaultdict[str, list[RowMapping]] = defaultdict(list)
    if shown:
        keys = {group["group_key"] for _, group in shown}
        routes = {group["route"] for _, group in shown}
        asked: dict[str, Any] = {"keys": list(keys), "routes": list(routes), "since": min(d.begin for d, _ in shown)}
        for row in (await conn.execute(_RETRAINS, asked)).mappings():
            found[row["group_key"]].append(row)
    return found


def _shown(drift: Drift, route: str, labels: Row, retrains: list[RowMapping]) -> Row:
    mine = [row for row in retrains if drift.holds(row["fired_at"])]
    return {
        "id": UUID(drift.firings[0].id),
        "route": route,
        "group": labels,
        "begin": drift.begin,
        "end": drift.end,
        "severity": drift.severity,
        "alerts": len(drift.firings),
        "newest_alerts": [_alert(each) for each in drift.firings[-SHOWN:]],
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
