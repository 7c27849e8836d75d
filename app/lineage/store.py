"""MLflow as it was last seen, and the orphans, in SQL. Every statement runs in the caller's transaction."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Table, and_, delete, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.kit.metrics import Metrics
from app.lineage.model import SeenAlias, SeenRun, SeenVersion
from app.lineage.rules import Kind, Orphan, TriggerFacts

_runs, _versions, _aliases = tables.runs, tables.versions, tables.aliases
_orphans, _surveys, _triggers = tables.orphans, tables.surveys, tables.triggers

SURVEY = "mlflow"

_WAITING = text("SELECT state, count(*) AS number FROM records WHERE state IN ('pending', 'aside') GROUP BY state")

# The open incidents of promotions whose alias MLflow shows at another version than the gate left it at. That is the version
# which it promoted or gave the alias back to. After a refusal it is the one that held the alias then.
_MOVED = text("""
    SELECT n.key, p.mark AS alias, a.version AS holder FROM notices n
    JOIN promotions p ON p.registry = 'mlflow' AND p.id = CASE WHEN n.event IN ('promotion_blocked', 'probation_failed')
        THEN CAST(n.labels ->> 'promotion' AS uuid) END
    LEFT JOIN aliases a ON a.model = p.model AND a.alias = p.mark
    WHERE n.resolved_at IS NULL AND n.opened_at < :began AND NOT (p.kind = 'promote' AND p.state = 'unreadable')
        AND a.version IS DISTINCT FROM CASE
            WHEN n.event = 'promotion_blocked' AND p.kind = 'promote' THEN p.previous
            WHEN p.probation ->> 'state' = 'rolled_back' THEN p.previous
            ELSE p.version END
    ORDER BY n.key
""")

_FACTS = tuple(_triggers.c[name] for name in ("id", "route", "state", "dag_run_id", "accepted_at", "ended_at"))


async def keep_runs(conn: AsyncConnection, seen: Iterable[SeenRun], now: datetime) -> None:
    """Keep runs as they were seen now."""
    await _keep(conn, _runs, sorted((asdict(run) for run in seen), key=lambda row: str(row["run_id"])), now)


async def keep_versions(
    conn: AsyncConnection, seen: Iterable[SeenVersion], now: datetime, of: Collection[str] = ()
) -> None:
    """Keep versions as they were seen now, and delete every other version of the runs `of`."""
    rows = sorted((asdict(version) for version in seen), key=lambda row: (row["model"], row["version"]))
    await _keep(conn, _versions, rows, now)
    await conn.execute(delete(_versions).where(_versions.c.run_id.in_(of), _versions.c.seen_at < now))


async def keep_aliases(
    conn: AsyncConnection, models: Collection[str], seen: Iterable[SeenAlias], now: datetime
) -> None:
    """Keep aliases as they were seen now, and delete every other alias of these models."""
    rows = sorted((asdict(alias) for alias in seen), key=lambda row: (row["model"], row["alias"]))
    await _keep(conn, _aliases, rows, now)
    await conn.execute(delete(_aliases).where(_aliases.c.model.in_(models), _aliases.c.seen_at < now))


async def forget_version(conn: AsyncConnection, model: str, version: str) -> None:
    """Delete a version that MLflow does not have."""
    await conn.execute(delete(_versions).where(_versions.c.model == model, _versions.c.version == version))


async def forget_run(conn: AsyncConnection, run_id: str, now: datetime) -> None:
    """Mark a run as deleted that MLflow does not have."""
    await conn.execute(update(_runs).where(_runs.c.run_id == run_id).values(deleted=True, seen_at=now))


async def _keep(conn: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]], now: datetime) -> None:
    if not rows:
        return
    statement = insert(table).values([row | {"seen_at": now} for row in rows])
    keys = [column.name for column in table.primary_key]
    changed = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    # A late answer must not overwrite a newer one.
    newer = table.c.seen_at <= statement.excluded.seen_at
    await conn.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed, where=newer))


async def runs_named(
    conn: AsyncConnection, run_ids: Collection[str], since: datetime | None = None
) -> dict[str, SeenRun]:
    """Runs by id, as they were last seen. With `since`: only those that were seen since then."""
    statement = select(_runs).where(_runs.c.run_id.in_(run_ids))
    if since is not None:
        statement = statement.where(_runs.c.seen_at >= since)
    rows = (await conn.execute(statement)).mappings()
    return {row["run_id"]: _run(row) for row in rows}


async def runs_of(conn: AsyncConnection, triggers: Collection[UUID], most: int) -> list[SeenRun]:
    """The runs that name these triggers and were not deleted, the oldest first, at most `most`."""
    statement = select(_runs).where(_runs.c.trigger_id.in_(triggers), ~_runs.c.deleted)
    rows = (await conn.execute(statement.order_by(_runs.c.started_at, _runs.c.run_id).limit(most))).mappings()
    return [_run(row) for row in rows]


async def runs_of_dag_run(conn: AsyncConnection, dag_run_id: str, most: int) -> list[SeenRun]:
    """The runs that name this DAG run and were not deleted, the oldest first, at most `most`."""
    statement = select(_runs).where(_runs.c.dag_run_id == dag_run_id, ~_runs.c.deleted)
    rows = (await conn.execute(statement.order_by(_runs.c.started_at, _runs.c.run_id).limit(most))).mappings()
    return [_run(row) for row in rows]


async def versions_of(conn: AsyncConnection, run_ids: Collection[str], most: int) -> list[SeenVersion]:
    """The versions that come from these runs, the newest first, at most `most`."""
    statement = select(_versions).where(_versions.c.run_id.in_(run_ids)).order_by(_versions.c.created_at.desc())
    return [_version(row) for row in (await conn.execute(statement.limit(most))).mappings()]


async def versions_named(
    conn: AsyncConnection, names: Collection[tuple[str, str]], since: datetime | None = None
) -> dict[tuple[str, str], SeenVersion]:
    """Versions by (model, version), as they were last seen. With `since`: only those that were seen since then."""
    statement = select(_versions).where(tuple_(_versions.c.model, _versions.c.version).in_(names))
    if since is not None:
        statement = statement.where(_versions.c.seen_at >= since)
    return {(row["model"], row["version"]): _version(row) for row in (await conn.execute(statement)).mappings()}


async def aliases_of(conn: AsyncConnection, models: Collection[str]) -> list[SeenAlias]:
    """Every alias of these models."""
    statement = select(_aliases).where(_aliases.c.model.in_(models)).order_by(_aliases.c.alias)
    return [SeenAlias(row["model"], row["alias"], row["version"]) for row in (await conn.execute(statement)).mappings()]


async def moved(conn: AsyncConnection, began: datetime) -> list[RowMapping]:
    """The incidents of promotions that opened before a whole round of the survey, and whose alias was moved past the gate:
    `key`, `alias`, and its `holder` (None: no version)."""
    return list((await conn.execute(_MOVED, {"began": began})).mappings())


async def trigger_facts(conn: AsyncConnection, triggers: Collection[UUID]) -> dict[UUID, TriggerFacts]:
    """The facts that lineage judges, by id, for those triggers that the gateway has."""
    rows = (await conn.execute(select(*_FACTS).where(_triggers.c.id.in_(triggers)))).mappings()
    return {row["id"]: TriggerFacts(**row) for row in rows}


async def triggers_after(conn: AsyncConnection, place: tuple[datetime, UUID], most: int) -> list[TriggerFacts]:
    """A page of the triggers that ended after `place`, in the order of their ends."""
    key = (_triggers.c.ended_at, _triggers.c.id)
    statement = select(*_FACTS).where(_triggers.c.ended_at.is_not(None), tuple_(*key) > tuple_(*place))
    rows = (await conn.execute(statement.order_by(*key).limit(most))).mappings()
    return [TriggerFacts(**row) for row in rows]


async def count_runs(conn: AsyncConnection, triggers: Collection[UUID]) -> dict[UUID, int]:
    """How many runs name each of these triggers. Deleted runs do not count."""
    statement = (
        select(_runs.c.trigger_id, func.count())
        .where(_runs.c.trigger_id.in_(triggers), ~_runs.c.deleted)
        .group_by(_runs.c.trigger_id)
    )
    return {row[0]: row[1] for row in await conn.execute(statement)}


async def end_round(conn: AsyncConnection, began: datetime) -> None:
    """Remove what a whole round did not see: runs, versions and aliases that MLflow lost, and orphans that are repaired."""
    await conn.execute(update(_runs).where(_runs.c.seen_at < began, ~_runs.c.deleted).values(deleted=True))
    for table in (_versions, _aliases):
        await conn.execute(delete(table).where(table.c.seen_at < began))
    await conn.execute(delete(_orphans).where(_orphans.c.last_at < began))


# -- orphans ------------------------------------------------------------------------------------------------------------


async def keep_orphans(conn: AsyncConnection, found: Iterable[Orphan], now: datetime) -> None:
    """Keep orphans that were found now."""
    rows = {
        orphan.key: {
            "key": orphan.key,
            "kind": orphan.kind,
            "missing": orphan.missing,
            "detail": orphan.detail,
            "about": orphan.ids,
        }
        for orphan in found
    }
    if not rows:
        return
    statement = insert(_orphans).values([rows[key] | {"first_at": now, "last_at": now} for key in sorted(rows)])
    changed = {name: statement.excluded[name] for name in ("detail", "missing", "about", "last_at")}
    await conn.execute(statement.on_conflict_do_update(index_elements=["key"], set_=changed))


async def list_orphans(
    conn: AsyncConnection, kind: Kind | None, after: str | None, most: int
) -> Sequence[dict[str, Any]]:
    """A page of the orphans, all or of one kind, whose key is above `after`."""
    statement = select(_orphans).order_by(_orphans.c.key).limit(most)
    if kind is not None:
        statement = statement.where(_orphans.c.kind == kind)
    if after is not None:
        statement = statement.where(_orphans.c.key > after)
    return [dict(row) for row in (await conn.execute(statement)).mappings()]


async def count_orphans(conn: AsyncConnection) -> dict[Kind, int]:
    """How many orphans there are of each kind."""
    found = await conn.execute(select(_orphans.c.kind, func.count()).group_by(_orphans.c.kind))
    return dict.fromkeys(Kind, 0) | {Kind(kind): count for kind, count in found}


# -- the survey ---------------------------------------------------------------------------------------------------------


async def claim(
    conn: AsyncConnection, token: UUID, now: datetime, lease_until: datetime, due_before: datetime
) -> RowMapping | None:
    """Claim the survey, when a round is under way or the newest round began before `due_before`. None: nothing is due, or
    another replica has it."""
    await conn.execute(insert(_surveys).values(name=SURVEY).on_conflict_do_nothing())
    s = _surveys.c
    free = or_(s.lease_until.is_(None), s.lease_until < now)
    due = or_(s.place.is_not(None), s.began_at.is_(None), s.began_at <= due_before)
    statement = update(_surveys).where(and_(s.name == SURVEY, free, due))
    claimed = statement.values(claim=token, lease_until=lease_until).returning(*_surveys.c)
    return (await conn.execute(claimed)).mappings().one_or_none()


async def settle(conn: AsyncConnection, token: UUID, **values: Any) -> bool:
    """Release the survey with these values. False: the lease ran out and another replica has it."""
    statement = update(_surveys).where(_surveys.c.name == SURVEY, _surveys.c.claim == token)
    done = await conn.execute(statement.values(claim=None, lease_until=None, **values))
    return bool(done.rowcount)


async def survey(conn: AsyncConnection) -> RowMapping | None:
    """The row of the survey; None before the first round."""
    return (await conn.execute(select(_surveys).where(_surveys.c.name == SURVEY))).mappings().one_or_none()


# -- gauges -------------------------------------------------------------------------------------------------------------


async def set_gauges(conn: AsyncConnection, _now: datetime, metrics: Metrics) -> None:
    """Set the gauges: records that wait or were refused, orphans by kind, and the end of the newest round."""
    waiting = {row.state: row.number for row in await conn.execute(_WAITING)}
    newest = await survey(conn)
    orphans = await count_orphans(conn) if newest is not None else {}  # Without MLflow there is no survey.
    for state in ("pending", "aside"):
        metrics.metadata_waiting.labels(state).set(waiting.get(state, 0))
    for kind, count in orphans.items():
        metrics.orphans.labels(kind).set(count)
    if newest is not None and newest["ended_at"] is not None:
        metrics.survey_ended.set(newest["ended_at"].timestamp())


def _run(row: RowMapping) -> SeenRun:
    return SeenRun(**{field.name: row[field.name] for field in fields(SeenRun)})


def _version(row: RowMapping) -> SeenVersion:
    return SeenVersion(**{field.name: row[field.name] for field in fields(SeenVersion)})
