"""Read the books of a pass from Postgres under lock, and write what it changed. Every function takes the transaction.

Locks are taken in one order: the lock of the pauses, routes by name, groups by key, alerts by fingerprint. Many rows travel
as one JSON parameter, so that the number of statements does not depend on the number of alerts.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app import tables
from app.decide import facts, placing
from app.decide.books import MATES, Books
from app.decide.conf import dag_call
from app.decide.ledger import Ledger
from app.decide.placing import GroupName, Intent
from app.decide.state import SHADOW, Episode, Group, TriggerChange, TriggerState
from app.groups import heard, pauses
from app.kit.db import insert_rows, names_of, rows_of, update_rows
from app.kit.outbox.model import new_item
from app.kit.telemetry import traceparent
from app.policy.core import Core
from app.policy.schema import Policy, Route
from app.tables import SHAPE

KIND: Final = "airflow.dag_run"  # the kind of its items in the outbox

# SQLAlchemy's names are a class of their own, which the encoder of the rows meets forty times slower than text.
_GROUP_COLUMNS = [str(c.name) for c in tables.groups.columns]
_EPISODE_COLUMNS = [str(c.name) for c in tables.alerts.columns]

_LOCK_GROUPS = (
    select(tables.groups)
    .where(tables.groups.c.key == text("ANY(CAST(:keys AS text[]))"))
    .order_by(tables.groups.c.key)
    .with_for_update()
)

# Normally a route has groups of one shape. The index is asked for the next shape, and not for every group of the route.
_OF_ROUTE = "route = :route AND mode = :mode AND last_trigger IS NOT NULL"
_OTHER_SHAPES = text(f"""
    WITH RECURSIVE shapes (shape) AS (
        (SELECT {SHAPE} FROM groups WHERE {_OF_ROUTE} ORDER BY {SHAPE} LIMIT 1)
        UNION ALL
        SELECT (SELECT {SHAPE} FROM groups WHERE {_OF_ROUTE} AND {SHAPE} > shape ORDER BY {SHAPE} LIMIT 1)
        FROM shapes WHERE shape IS NOT NULL
    )
    SELECT 1 FROM shapes WHERE NOT (
        shape @> to_jsonb(CAST(:names AS text[])) AND jsonb_array_length(shape) = cardinality(CAST(:names AS text[]))
    ) LIMIT 1
""")
_OF_ANOTHER_SHAPE = rows_of(
    f"""
    SELECT {names_of(tables.groups)} FROM groups WHERE {_OF_ROUTE} AND NOT (
        jsonb_exists_all(labels, CAST(:names AS text[])) AND labels - CAST(:names AS text[]) = '{{}}'
    )
""",
    tables.groups,
)

_WANTED = """
    SELECT coalesce(
        (SELECT id FROM alerts WHERE fingerprint = f AND closed_at IS NULL),
        (SELECT id FROM alerts WHERE fingerprint = f ORDER BY id DESC LIMIT 1)
    ) AS id FROM unnest(CAST(:fingerprints AS text[])) f
    UNION
    SELECT mate.id FROM unnest(CAST(:keys AS text[])) k CROSS JOIN LATERAL (
        SELECT id FROM alerts WHERE group_key = k AND (closed_at IS NULL OR late_at IS NOT NULL)
        ORDER BY last_seen_at DESC LIMIT :most
    ) mate
"""

_wanted = text(_WANTED).columns(tables.alerts.c.id).cte("wanted")

_LOCK_EPISODES = (
    select(
        tables.alerts,
        tables.decisions.c.action,
        tables.decisions.c.trigger_id.label("decided_trigger"),
    )
    .join(_wanted, _wanted.c.id == tables.alerts.c.id)
    .join(tables.decisions, tables.decisions.c.id == tables.alerts.c.decision_id)
    .order_by(tables.alerts.c.fingerprint, tables.alerts.c.id)
    .with_for_update(of=tables.alerts, key_share=True)
)


class MovedGroup(Exception):
    """An open episode belongs to another group than the policy in force gives it. Lock that group as well, and try again."""

    def __init__(self, groups: dict[str, GroupName]) -> None:
        super().__init__("an episode keeps the group that took it")
        self.groups = groups


async def load(conn: AsyncConnection, books: Books, intents: Sequence[Intent], extra: dict[str, GroupName]) -> None:
    """Lock and read everything that a batch may change. `extra`: the groups of an earlier MovedGroup. Raises MovedGroup."""
    wanted = placing.groups_of(intents) | extra
    books.pauses = await pauses.in_force(conn)
    books.fires = await lock_routes(conn, books.policy, (route for route, _, _ in wanted.values()), books.now)
    await _lock_groups(conn, books, wanted)
    await _lock_episodes(conn, books, sorted({i.alert.fingerprint for i in intents}), placing.deciding(books))
    if moved := placing.missing(books):
        raise MovedGroup(moved)


async def load_groups(conn: AsyncConnection, books: Books, keys: Iterable[str]) -> None:
    """Lock and read groups with their alerts, for a wake or the end of a run."""
    for row in (await conn.execute(_LOCK_GROUPS, {"keys": sorted(keys)})).mappings():
        books.take_group(Group(**row))
    await _inherit(conn, books)
    await _lock_episodes(conn, books, [], list(books.groups))


async def load_group(conn: AsyncConnection, books: Books, route: Route, key: str, labels: dict[str, str]) -> None:
    """Lock and read one group with its alerts, for a request. The group is made if it does not exist yet."""
    books.pauses = await pauses.in_force(conn)
    books.fires = await lock_routes(conn, books.policy, [route.name], books.now)
    await _lock_groups(conn, books, {key: (route.name, route.mode, labels)})
    await _lock_episodes(conn, books, [], [key])


def new_ledger(core: Core, policy: Policy, now: datetime) -> Ledger:
    """An empty ledger for one pass."""
    ledger = Ledger(policy, now, core.reorder, uuid7)
    ledger.books.records = core.records
    return ledger


async def lock_group(conn: AsyncConnection, key: str) -> Group | None:
    """One group, locked until the transaction ends."""
    row = (await conn.execute(_LOCK_GROUPS, {"keys": [key]})).mappings().one_or_none()
    return Group(**row) if row else None


async def _lock_groups(conn: AsyncConnection, books: Books, wanted: dict[str, GroupName]) -> None:
    if not wanted:
        return
    keys = sorted(wanted)
    rows: list[Mapping[str, Any]] = [*(await conn.execute(_LOCK_GROUPS, {"keys": keys})).mappings()]
    known = {row["key"] for row in rows}
    new = [_new_group(key, *wanted[key]) for key in keys if key not in known]
    if await insert_rows(conn, tables.groups, new, conflict="ON CONFLICT DO NOTHING") == len(new):
        # Nobody else has seen what this transaction made: it need not be read.
        rows = sorted([*rows, *new], key=lambda row: str(row["key"]))
    else:
        rows = [*(await conn.execute(_LOCK_GROUPS, {"keys": keys})).mappings()]
    for row in rows:
        books.take_group(Group(**row))
    await _inherit(conn, books)


async def _inherit(conn: AsyncConnection, books: Books) -> None:
    """Groups that have not fired yet take over what their route fired under another group_by."""
    by_shape: dict[tuple[str, str, frozenset[str]], list[Group]] = {}
    for group in books.groups.values():
        if group.last_trigger is None:
            by_shape.setdefault((group.route, group.mode, frozenset(group.labels)), []).append(group)
    for (route, mode, names), groups in by_shape.items():
        parameters = {"route": route, "mode": mode, "names": sorted(names)}
        if (await conn.execute(_OTHER_SHAPES, parameters)).first() is None:
            continue
        others = [Group(**row) for row in (await conn.execute(_OF_ANOTHER_SHAPE, parameters)).mappings()]
        for group in groups:
            if facts.inherit(group, others):
                books.mark(group)


async def make_groups(conn: AsyncConnection, wanted: dict[str, GroupName]) -> None:
    """Make the rows of the groups that have none yet."""
    new = [_new_group(key, *wanted[key]) for key in sorted(wanted)]
    await insert_rows(conn, tables.groups, new, conflict="ON CONFLICT DO NOTHING")


def _new_group(key: str, route: str, mode: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "key": key,
        "route": route,
        "mode": mode,
        "labels": labels,
        "failures": 0,
        "ineffective": 0,
        "version": 0,
        "nonce": secrets.token_hex(4),
    }


async def _lock_episodes(conn: AsyncConnection, books: Books, fingerprints: list[str], keys: list[str]) -> None:
    parameters = {"fingerprints": fingerprints, "keys": keys, "most": MATES}
    for row in (await conn.execute(_LOCK_EPISODES, parameters)).mappings():
        books.take_episode(Episode(**row))


async def save(conn: AsyncConnection, books: Books) -> None:
    """Write everything that the pass changed. Closed episodes and cancelled triggers go first, to make room for new ones."""
    await update_rows(conn, tables.alerts, [_episode_row(e) for e in books.changed.values()], _EPISODE_COLUMNS[1:])
    # In one order, because no group's lock covers alerts without a route: two batches with the same ones must not deadlock.
    created = sorted(books.created.values(), key=lambda e: e.fingerprint)
    await insert_rows(conn, tables.alerts, [_episode_row(e) for e in created])
    if books.records and books.forgotten:
        await heard.keep(conn, books.forgotten)
    decisions = [
        {
            "id": d.id,
            "alert": d.alert,
            "trigger_id": d.trigger_id,
            "route": d.route,
            "group_key": d.group_key,
            "action": d.action,
            "reason": d.reason,
            "until": d.until,
            "detail": d.detail,
            "policy": books.policy.hash,
            "count": 1,
            "first_at": d.at,
            "last_at": d.at,
        }
        for d in books.decisions
    ]
    await insert_rows(conn, tables.decisions, decisions)
    ended = [{"id": i, "count": count, "last_at": at} for i, count, at in books.ended_decisions]
    await update_rows(conn, tables.decisions, ended, ["count", "last_at"])
    await _save_triggers(conn, books)
    await save_groups(conn, [books.groups[key] for key in sorted(books.changed_groups)])


async def _save_triggers(conn: AsyncConnection, books: Books) -> None:
    rows = [(t, _trigger_row(t, books)) for t in books.triggers.values()]
    fired = [row for t, row in rows if t.fired and not t.is_new]
    others = [row for t, row in rows if not t.fired and not t.is_new]
    await update_rows(conn, tables.triggers, others, ["state", "detail", "ended_at"])
    columns = [
        "state",
        "reason",
        "detail",
        "fired_at",
        "airflow",
        "dag_id",
        "dag_run_id",
        "conf",
        "run_timeout",
        "ended_at",
    ]
    await update_rows(conn, tables.triggers, fired, [*columns, "on_failure", "requested_by", "policy"])
    await insert_rows(conn, tables.triggers, [row for t, row in rows if t.is_new])
    await insert_rows(conn, tables.outbox, [outbox_item(row, books.now) for t, row in rows if t.state == "pending"])


def outbox_item(trigger: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The outbox item that delivers a fired trigger to its Airflow. Its id is the trigger's, so there is at most one."""
    payload = {"trigger_id": trigger["id"], "route": trigger["route"]}
    return new_item(trigger["id"], KIND, f"airflow:{trigger['airflow']}", payload, now)


def _trigger_row(trigger: TriggerChange, books: Books) -> dict[str, Any]:
    group, now = trigger.group, books.now
    row: dict[str, Any] = {
        "id": trigger.id,
        "route": group.route,
        "mode": group.mode,
        "group_key": group.key,
        "group_labels": group.labels,
        "reason": trigger.reason,
        "state": trigger.state,
        "detail": trigger.detail,
        "requested_by": trigger.request.by if trigger.request else None,
        "created_at": now,
        "policy": books.policy.hash,
        "ended_at": now if trigger.state is TriggerState.CANCELLED else None,
    }
    route = books.policy.route(group.route)
    if route is None:  # Only a cancelled trigger can have no route any more, and its row exists already.
        return row
    call = dag_call(trigger, route, traceparent=traceparent(trigger.id))
    row |= {"airflow": call.airflow, "dag_id": call.dag_id, "dag_run_id": call.dag_run_id}
    row |= {"run_timeout": route.run_timeout.total_seconds(), "on_failure": route.on_failure}
    # Rows of one INSERT share their columns: one that is only held names these as well.
    return row | {"fired_at": now if trigger.fired else None, "conf": call.conf if trigger.fired else None}


async def save_groups(conn: AsyncConnection, changed: list[Group]) -> None:
    """Write groups with their next version."""
    for group in changed:
        group.version += 1
        group.nonce = secrets.token_hex(4)
    rows = [{name: getattr(group, name) for name in _GROUP_COLUMNS} for group in changed]
    await update_rows(conn, tables.groups, rows, _GROUP_COLUMNS[4:], key="key")


def _episode_row(episode: Episode) -> dict[str, Any]:
    return {name: getattr(episode, name) for name in _EPISODE_COLUMNS}


# -- The limit of a route: its fires are counted under a lock on its row. Without it two groups could take the last place. --

_MAKE_ROUTES = text("INSERT INTO routes (name) SELECT unnest(CAST(:names AS text[])) ON CONFLICT DO NOTHING")
_LOCK_ROUTES = text("SELECT name FROM routes WHERE name = ANY(CAST(:names AS text[])) ORDER BY name FOR UPDATE")

# The keys are locked in the order that every flow uses.
_WAKE_WAITING = text("""
    UPDATE groups SET wake_at = t.ended_at FROM triggers t WHERE t.id = :trigger AND key IN (
        SELECT key FROM groups WHERE route = :route AND wake_at IS NOT NULL AND open_trigger IS NULL ORDER BY key FOR UPDATE
    ) AND groups.wake_at > t.ended_at
""")


async def lock_routes(
    conn: AsyncConnection, policy: Policy, names: Iterable[str], now: datetime
) -> dict[str, list[datetime]]:
    """Lock the named routes that have a limit. Returns their fires that count, by route, the newest first."""
    limited = [r for name in sorted(set(names)) if (r := policy.route(name)) is not None and r.limit is not None]
    if not limited:
        return {}
    wanted = {"names": [route.name for route in limited]}
    if len((await conn.execute(_LOCK_ROUTES, wanted)).all()) < len(limited):
        await conn.execute(_MAKE_ROUTES, wanted)
        await conn.execute(_LOCK_ROUTES, wanted)
    return {route.name: await fires(conn, route, now) for route in limited}


async def fires(conn: AsyncConnection, route: Route, now: datetime) -> list[datetime]:
    """The newest fires of a route that count against its limit. A trigger counts from its fire on, also when it was forced
    or its run failed, but not when it is dead or cancelled. In shadow mode the triggers that would have fired count; they
    never count for the route in live mode."""
    if route.limit is None:
        return []
    t = tables.triggers
    statement = (
        select(t.c.fired_at)
        .where(t.c.route == route.name, t.c.mode == route.mode, t.c.fired_at > now - route.limit.per)
        .where(or_(t.c.mode == SHADOW, t.c.state.not_in(("dead", "cancelled"))))
        .order_by(t.c.fired_at.desc())
        .limit(route.limit.triggers)
    )
    return list((await conn.execute(statement)).scalars())


async def wake_waiting(conn: AsyncConnection, route: str, trigger: UUID) -> None:
    """Make every waiting group of the route due: a dead trigger no longer counts, so one of them can take its place."""
    await conn.execute(_WAKE_WAITING, {"route": route, "trigger": trigger})
