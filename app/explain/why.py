"""Why did nothing happen? What the history says about a route, or some of its groups, since a time. Reads only, by index.

answer = await why(conn, policy, route, {"model": "churn"}, since, now)
answer["summary"]  # "The route accuracy has fired no trigger for model=churn since ... 41 alerts arrived since ..."
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Uuid, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide.rules import Obstacles
from app.decide.state import Group
from app.explain import history, lines, sentences, silence
from app.explain.explain import at_this_moment, load_episodes, obstacles_of, shown_decision
from app.explain.silence import Row
from app.groups import live
from app.groups.schedules import list_schedules
from app.kit.db import as_json, names_of, rows_of
from app.kit.pages import read_page
from app.policy.own_alarms import is_own_alarm
from app.policy.schema import Policy, Route

#: The most alerts that are counted, the newest, so that one question stays cheap.
MOST_ALERTS = 10_000
#: The most groups that are shown: those with a firing alert first, then by their newest fire.
MOST_GROUPS = 100
_NEWEST = 200  # alerts among which it looks for the nearest

# Each alert counts once, by one decision. The labels of an alert are indexed. They include the labels of its group, except
# empty ones.
_DECIDED = f"""
    SELECT decided.action, decided.reason, count(*) AS alerts, max(arrived.last_seen_at) AS newest FROM (
        SELECT id, last_seen_at FROM alerts WHERE route = :route AND group_labels @> CAST(:labels AS jsonb) {{having}}
            AND {lines.LATELY} ORDER BY id DESC LIMIT :most
    ) arrived CROSS JOIN LATERAL ({lines.DECIDED}) decided GROUP BY 1, 2 ORDER BY 3 DESC, 2
"""
_DECIDED_ON_ROUTE = text(_DECIDED.format(having=""))
_DECIDED_ON_GROUPS = text(_DECIDED.format(having="AND labels @> CAST(:having AS jsonb)"))

_REFUSED = text("""
    SELECT reason, sum(count)::bigint AS count, max(last_at) AS newest FROM decisions
    WHERE alert IS NULL AND route = :route AND first_at >= :since AND action <> 'fire'
        AND EXISTS (SELECT FROM groups g WHERE g.key = group_key AND g.labels @> CAST(:labels AS jsonb))
    GROUP BY 1 ORDER BY 2 DESC, 1
""")

_GROUP_COLUMNS = [c.name for c in tables.groups.columns]
_GROUPS = rows_of(
    f"""
    SELECT {names_of(tables.groups, "g")}, firing.id AS firing FROM groups g LEFT JOIN LATERAL (
        SELECT id FROM alerts WHERE group_key = g.key AND closed_at IS NULL ORDER BY last_seen_at DESC, id LIMIT 1
    ) firing ON true
    WHERE g.route = :route AND g.mode = :mode AND g.labels @> CAST(:labels AS jsonb)
    ORDER BY firing.id IS NULL, g.fired_at DESC NULLS LAST, g.key LIMIT :most
""",
    tables.groups,
    firing=Uuid(),
)


async def why(
    conn: AsyncConnection, policy: Policy, route: Route, labels: Mapping[str, str], since: datetime, now: datetime
) -> Row:
    """What happened on `route` from `since` to `now`, and why no more happened. With `labels`, only the groups that have
    them all; {} is the whole route."""
    scope = {"route": route.name, "labels": as_json(dict(labels)), "since": since}
    obstacles = await obstacles_of(conn, policy, route, now)
    decisions = await _decided(conn, scope, {name: value for name, value in labels.items() if value})
    alerts = sum(row["alerts"] for row in decisions)
    answer: Row = {
        "route": route.name,
        "group": dict(labels),
        "since": since,
        "until": now,
        "alerts": alerts,
        "decisions": decisions,
        "refused": await _refused(conn, scope),
        "triggers": await _fired(conn, route, labels, since),
        "trigger": await _newest(conn, route, labels),
        "last_success_at": await _success(conn, route, labels),
        "groups": await _groups(conn, route, scope, now, obstacles),
        "schedules": await _schedules(conn, policy, route, labels, now),
        "near": None if alerts else await _near(conn, route),
        "match": [str(matcher) for matcher in route.match],
    }
    answer["summary"] = silence.summary(answer, obstacles.mute)
    answer["would_fire"] = silence.would_fire(answer, route.group_by)
    answer["next_step"] = silence.next_step(answer)
    return answer


async def _decided(conn: AsyncConnection, scope: Row, having: dict[str, str]) -> list[Row]:
    """How many alerts arrived, by the decision that each counts for. `having`: labels that the alerts must have."""
    parameters = scope | {"most": MOST_ALERTS}
    if having:
        decided = await conn.execute(_DECIDED_ON_GROUPS, parameters | {"having": as_json(having)})
    else:
        decided = await conn.execute(_DECIDED_ON_ROUTE, parameters)
    return [dict(row) for row in decided.mappings()]


async def _refused(conn: AsyncConnection, scope: Row) -> list[Row]:
    """How many requests and schedules the policy refused, by reason."""
    return [dict(row) for row in (await conn.execute(_REFUSED, scope)).mappings()]


async def _fired(conn: AsyncConnection, route: Route, labels: Mapping[str, str], since: datetime) -> dict[str, int]:
    t = tables.triggers
    statement = select(t.c.state, func.count()).where(t.c.fired_at >= since).group_by(t.c.state).order_by(t.c.state)
    return {row[0]: row[1] for row in await conn.execute(_of(statement, route, labels))}


async def _newest(conn: AsyncConnection, route: Route, labels: Mapping[str, str]) -> Row | None:
    """The newest trigger that fired, with its attempts."""
    t = tables.triggers
    statement = select(t.c.id).where(t.c.fired_at.is_not(None)).order_by(t.c.fired_at.desc()).limit(1)
    found = (await conn.execute(_of(statement, route, labels))).scalar_one_or_none()
    return await history.get_trigger(conn, found) if found is not None else None


async def _success(conn: AsyncConnection, route: Route, labels: Mapping[str, str]) -> datetime | None:
    t = tables.triggers
    statement = select(t.c.ended_at).where(t.c.state == "succeeded").order_by(t.c.ended_at.desc()).limit(1)
    found: datetime | None = (await conn.execute(_of(statement, route, labels))).scalar_one_or_none()
    return found


def _of(statement: Select[Any], route: Route, labels: Mapping[str, str]) -> Select[Any]:
    t = tables.triggers
    mine = statement.where(t.c.route == route.name, t.c.mode == route.mode)
    return mine.where(t.c.group_labels.contains(dict(labels))) if labels else mine


async def _groups(conn: AsyncConnection, route: Route, scope: Row, now: datetime, obstacles: Obstacles) -> list[Row]:
    """The live states of the groups. A group with firing alerts also has the decision at this moment on the newest."""
    rows = (await conn.execute(_GROUPS, scope | {"mode": route.mode, "most": MOST_GROUPS})).mappings().all()
    firing = [row["firing"] for row in rows if row["firing"] is not None]
    episodes = await load_episodes(conn, firing) if firing else {}
    shown = []
    for row in rows:
        group = Group(**{name: row[name] for name in _GROUP_COLUMNS})
        state = live.group_state(group, route, now) | {"now": None, "would_fire": None}
        episode = episodes.get(row["firing"])
        if episode is not None:
            decision = at_this_moment(group, episode, route, now, obstacles)
            state["now"] = shown_decision(decision)
            state["would_fire"] = sentences.would_fire(decision, group, episode, route)
        shown.append(state)
    return shown


async def _schedules(
    conn: AsyncConnection, policy: Policy, route: Route, labels: Mapping[str, str], now: datetime
) -> list[Row]:
    """The schedules of these groups, the next one first."""
    mine = [s for s in policy.schedules if s.route == route.name and labels.items() <= s.group.items()]
    shown = await list_schedules(conn, mine, now) if mine else []
    upcoming = [{name: row[name] for name in ("name", "group", "next_at")} for row in shown]
    return sorted(upcoming, key=lambda row: row["next_at"])


async def _near(conn: AsyncConnection, route: Route) -> Row | None:
    """Of the newest alerts (those that have room on a page) and this route's newest alert, the nearest: it satisfies the
    most of its matchers."""
    a = tables.alerts
    names = ("id", "alert_id", "labels", "route", "last_seen_at")
    newest = select(*(a.c[name] for name in names)).order_by(a.c.id.desc())
    rows, _ = await read_page(conn, newest, _NEWEST, "id")
    own = (await conn.execute(newest.where(a.c.route == route.name).limit(1))).mappings().all()
    seen = [{name: row[name] for name in names} for row in (*rows, *own)]
    return silence.nearest([row for row in seen if not is_own_alarm(row["labels"])], list(route.match))
