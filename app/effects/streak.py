"""Retrains of a group in a row that did not help: they are counted, told, and with `then: hold` the group fires no more.

The count is made anew from the effects each time, so facts that come late or out of order lead to the same count.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.decide import facts, rules
from app.decide.drift import Firing, drifts
from app.decide.state import LIVE, Group
from app.deliver.ending import TriggerIncidents, run_time
from app.effects.rules import Effect
from app.effects.store import firing
from app.groups import store as groups
from app.policy.language.durations import format_duration
from app.policy.receivers import NO_EFFECT
from app.policy.schema import Policy, Route
from app.promotion.beside import in_words

#: The effects that count. A failed retrain changed no model, and of an unknown one nobody can say.
WITHOUT: Final = (Effect.RECURRED, Effect.NOT_PROMOTED, Effect.NO_MODEL)

_EFFECTS = text("""
    SELECT t.fired_at, e.effect, e.under FROM triggers t JOIN effects e ON e.trigger_id = t.id
    WHERE t.route = :route AND t.group_key = :key AND t.fired_at >= :since AND e.effect IS NOT NULL
    ORDER BY t.fired_at DESC LIMIT 1000
""")
_NEWEST = text("""
    SELECT t.accepted_at, t.started_at, t.ended_at, e.model, e.version, p.metrics, p.previous
    FROM triggers t JOIN effects e ON e.trigger_id = t.id
    LEFT JOIN LATERAL (
        SELECT metrics, previous FROM promotions WHERE trigger_id = t.id AND metrics IS NOT NULL AND NOT dry_run
        ORDER BY state = 'promoted' DESC, ended_at DESC LIMIT 1
    ) p ON true
    WHERE t.route = :route AND t.group_key = :key AND t.fired_at = :fired_at LIMIT 1
""").columns(metrics=JSONB())
# As GET /api/v1/episodes reads them: without those that were over when they arrived.
_ALERTS = text("""
    SELECT id, alert_id, severity, first_seen_at, last_seen_at, closed_at, resolved_at, EXISTS (
        SELECT FROM alerts b WHERE b.fingerprint = a.fingerprint AND b.first_seen_at > a.first_seen_at
    ) AS replaced FROM alerts a
    WHERE group_key = :key AND (closed_at IS NULL OR closed_at >= :since)
        AND (trigger_id IS NOT NULL OR closed_at IS DISTINCT FROM first_seen_at)
""")
# The groups that count something, and those of an incident that is open.
_REVIEWED = text("""
    SELECT key FROM groups WHERE ineffective > 0
    UNION SELECT g.key FROM notices n JOIN groups g
        ON g.route = n.labels ->> 'route' AND left(g.key, 16) = split_part(n.key, ':', 3)
    WHERE n.resolved_at IS NULL AND n.event = 'no_effect' ORDER BY 1
""")
_EVER: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def streak(
    effects: Iterable[tuple[datetime, str, str | None]], digest: str
) -> tuple[int, datetime | None, datetime | None]:
    """How many of the newest retrains in a row did not help, and when the first and the newest of them fired. `effects`
    are those of a group, the newest first: the fire, the effect, and the digest of the route under which it was judged."""
    count, first, newest = 0, None, None
    for fired_at, effect, under in effects:
        if effect == Effect.FIXED or under != digest:
            break
        if effect in WITHOUT:
            count, first, newest = count + 1, fired_at, newest or fired_at
    return count, first, newest


def is_over(
    alerts: Sequence[Firing], fired_at: datetime, watch: timedelta, stale_after: timedelta, now: datetime
) -> bool:
    """Whether the drift that a retrain was for is over: its alerts ended, and none began within `watch`. An alert that went
    silent has not ended. If it began anew, its newest end counts."""
    retrain = Firing("", fired_at, fired_at, fired_at, fired_at)
    episodes = drifts([retrain, *alerts], watch, stale_after, now)
    mine = next(each for each in episodes if each.holds(fired_at))
    heard = all(firing.end is not None or firing.replaced for firing in mine.firings)
    return heard and mine.end is not None and now > mine.end + watch


async def keys(conn: AsyncConnection) -> list[str]:
    """The groups that must be reviewed from time to time."""
    return list((await conn.execute(_REVIEWED)).scalars())


def counts_otherwise(group: Group, policy: Policy) -> bool:
    """Whether a group was counted under another entry for its route than that of this policy, or this policy has none."""
    route = policy.route(group.route)
    return route is None or route.mode != LIVE or group.ineffective_under not in (None, route.digest)


async def review(
    conn: AsyncConnection, group: Group, policy: Policy, incidents: TriggerIncidents, now: datetime
) -> None:
    """Count again what did not help, and open or resolve the incident. The caller has locked the group."""
    route, before = policy.route(group.route), replace(group)
    if route is None or route.mode != LIVE or group.mode != LIVE:
        await _settle(conn, group, before, None, (0, None, None), now)
        await _resolve(conn, group, incidents, "its route left the policy or changed its mode", now)
        return
    parameters: dict[str, Any] = {"route": group.route, "key": group.key, "since": group.released_at or _EVER}
    rows = (await conn.execute(_EFFECTS, parameters)).all()
    count, first, newest = streak(((row.fired_at, row.effect, row.under) for row in rows), route.digest)
    why = "a retrain helped, or a person reset the group, or its route changed"
    if newest is not None and await _is_over(conn, group, route, newest, now):
        count, first, why = 0, None, f"its alerts ended and stayed away for {format_duration(route.effect.watch)}"
        facts.release(group, now)
    await _settle(conn, group, before, route, (count, first, route.digest if count else None), now)
    if count >= route.on_no_effect.after:
        detail = " ".join([_detail(group, route), *await _made(conn, group, newest)])
        await incidents.open(conn, NO_EFFECT, _named(group), detail, now)
    else:
        await _resolve(conn, group, incidents, why, now)


async def _is_over(conn: AsyncConnection, group: Group, route: Route, fired_at: datetime, now: datetime) -> bool:
    alerts = (await conn.execute(_ALERTS, {"key": group.key, "since": fired_at})).mappings()
    heard = [replace(firing(row), replaced=row["replaced"]) for row in alerts]
    return is_over(heard, fired_at, route.effect.watch, route.stale_after, now)


async def _settle(
    conn: AsyncConnection,
    group: Group,
    before: Group,
    route: Route | None,
    counted: tuple[int, datetime | None, str | None],
    now: datetime,
) -> None:
    """Write what changed. A group that may fire again is decided at once. One that was not held stays as it was: what else
    stops it ends at its own time, and another policy has had it decided already."""
    group.ineffective, group.ineffective_since, group.ineffective_under = counted
    held = route is not None and facts.is_ineffective(before, route)
    if held and group.ineffective < before.ineffective and group.open_trigger is None:
        group.wake_at = now
    if group != before:
        await groups.save_groups(conn, [group])


async def _resolve(conn: AsyncConnection, group: Group, incidents: TriggerIncidents, why: str, now: datetime) -> None:
    await incidents.resolve(conn, (NO_EFFECT,), _named(group), why, now)


async def _made(conn: AsyncConnection, group: Group, fired_at: datetime | None) -> list[str]:
    """What the newest retrain took and made, in a sentence."""
    asked = {"route": group.route, "key": group.key, "fired_at": fired_at}
    row = (await conn.execute(_NEWEST, asked)).mappings().one_or_none()
    if row is None:
        return []
    took = f"The newest took {format_duration(run_time(row))}"
    if row["model"] is None:
        return [f"{took}."]
    metrics = in_words(row["metrics"] or {}, row["previous"])
    return [f"{took} and made version {row['version']} of {row['model']}{f': {metrics}' if metrics else ''}."]


def _named(group: Group) -> dict[str, Any]:
    return {"id": group.last_trigger, "route": group.route, "group_key": group.key, "group_labels": group.labels}


def _detail(group: Group, route: Route) -> str:
    found = f"{rules.in_vain(group)}."
    if route.on_no_effect.then == "hold":
        return f"{found} It fires no more until a person resets it, its alerts end and stay away, or its route changes."
    return found
