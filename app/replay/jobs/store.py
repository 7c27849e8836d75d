"""The backtests in the database, so that every replica can answer for each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, Uuid, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from app import tables
from app.kit.db import one_statement, transaction

#: How long a backtest is kept after its end, and a question that no worker took.
KEPT: Final = timedelta(days=1)
#: How many are kept for one token, and how many bytes of reports for all.
MOST_KEPT: Final = 20
MOST_BYTES: Final = 128 * 2**20
#: A process that has not said for so long that it works at a backtest does not work at it any more.
LOST: Final = timedelta(seconds=30)

_T = tables.backtests
_OPEN = tables.OPEN_BACKTEST

_ASK = text(f"""
    INSERT INTO backtests (id, caller, asked, state, created_at, attempts, done, total, size)
    VALUES (:id, :caller, :asked, 'pending', :now, 0, 0, 0, 0)
    ON CONFLICT (caller) WHERE {_OPEN} DO NOTHING RETURNING id
""")
_CLAIM = text("""
    UPDATE backtests SET state = 'running', claim = :claim, alive_at = :now, started_at = coalesce(started_at, :now),
        attempts = attempts + 1
    WHERE id = (
        SELECT id FROM backtests WHERE state = 'pending' OR (state = 'running' AND alive_at < :lost)
        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING id, asked, attempts
""")
_MINE = "WHERE id = :id AND claim = :claim AND state = 'running'"
_BEAT = text(f"UPDATE backtests SET alive_at = :now, step = :step, done = :done, total = :total {_MINE}")
_RELEASE = text(f"UPDATE backtests SET state = 'pending', claim = NULL, step = NULL, attempts = attempts - 1 {_MINE}")
_END = text(f"""
    UPDATE backtests SET state = :state, ended_at = :now, error = :error, result = :result, size = :size {_MINE}
""")
_TRIM = text(f"""
    DELETE FROM backtests WHERE (coalesce(ended_at, created_at) < :before AND state <> 'running') OR id IN (
        SELECT id FROM (
            SELECT id, row_number() OVER (PARTITION BY caller ORDER BY id DESC) AS place,
                sum(size) OVER (ORDER BY id DESC) AS bytes
            FROM backtests WHERE NOT ({_OPEN})
        ) kept WHERE place > :most OR bytes > :bytes
    )
""")
# Postgres cuts a long report: it would take this process long to read it as a whole. With OFFSET it reads the JSON once.
_SHOWN = text("""
    SELECT id, caller, CAST(asked AS jsonb) AS asked, state, created_at, started_at, ended_at, step, done, total, error,
        jsonb_array_length(read -> 'changed') AS changed,
        jsonb_set(read, '{changed}', jsonb_path_query_array(read, CAST(:changes AS jsonpath))) AS report
    FROM (SELECT *, CAST(result AS jsonb) AS read FROM backtests WHERE id = :id OFFSET 0) b
""").columns(id=Uuid(), asked=JSONB(), report=JSONB())


@dataclass(frozen=True, slots=True)
class Job:
    """A backtest that this process works at."""

    id: UUID
    claim: UUID
    asked: str
    attempts: int


async def ask(engine: AsyncEngine, caller: str, asked: str, now: datetime) -> RowMapping | None:
    """Keep a question. None: the caller has an open one already."""
    async with transaction(engine) as conn:
        values = {"id": uuid7(), "caller": caller, "asked": asked, "now": now}
        made: UUID | None = (await conn.execute(_ASK, values)).scalar_one_or_none()
        return await find(conn, made) if made is not None else None


async def open_of(conn: AsyncConnection, caller: str) -> RowMapping | None:
    """The open backtest of a caller."""
    wanted = _T.select().where(_T.c.caller == caller, text(_OPEN))
    return (await conn.execute(wanted)).mappings().one_or_none()


async def find(conn: AsyncConnection, ident: UUID) -> RowMapping | None:
    """The backtest of this id."""
    return (await conn.execute(_T.select().where(_T.c.id == ident))).mappings().one_or_none()


async def shown(conn: AsyncConnection, ident: UUID, most: int) -> RowMapping | None:
    """The backtest of this id for a page: `asked` and `report` as values, with `most` of the `changed` episodes."""
    asked = {"id": ident, "changes": f"$.changed[0 to {most - 1}]"}
    return (await conn.execute(_SHOWN, asked)).mappings().one_or_none()


async def of_caller(conn: AsyncConnection, caller: str) -> Sequence[RowMapping]:
    """The backtests of a caller that are kept, the newest first, without what was asked and found."""
    names = ("id", "state", "created_at", "ended_at", "error")
    wanted = select(*(_T.c[name] for name in names)).where(_T.c.caller == caller)
    return (await conn.execute(wanted.order_by(_T.c.id.desc()).limit(MOST_KEPT + 1))).mappings().all()


async def remove(engine: AsyncEngine, ident: UUID) -> None:
    """Forget a backtest. A process that works at it notices and ends it."""
    async with transaction(engine) as conn:
        await conn.execute(_T.delete().where(_T.c.id == ident))


async def claim(engine: AsyncEngine, now: datetime) -> Job | None:
    """The oldest backtest that nobody works at."""
    mark = uuid7()
    async with one_statement(engine) as conn:
        values = {"claim": mark, "now": now, "lost": now - LOST}
        row = (await conn.execute(_CLAIM, values)).mappings().one_or_none()
    return Job(row["id"], mark, row["asked"], row["attempts"]) if row is not None else None


async def beat(engine: AsyncEngine, job: Job, now: datetime, progress: tuple[str, int, int] | None) -> bool:
    """Say that this process works at it, and how far it is. False: it is not its own any more."""
    step, done, total = progress or (None, 0, 0)
    return await _change(engine, _BEAT, job, {"now": now, "step": step, "done": done, "total": total})


async def release(engine: AsyncEngine, job: Job) -> None:
    """Let another process work at it, from the beginning."""
    await _change(engine, _RELEASE, job, {})


async def end(engine: AsyncEngine, job: Job, now: datetime, *, error: str | None = None, result: str = "") -> None:
    """Keep how it ended: with an error, or with the report."""
    state = "failed" if error is not None else "succeeded"
    values = {"now": now, "state": state, "error": error, "result": result or None, "size": len(result)}
    await _change(engine, _END, job, values)


async def trim(engine: AsyncEngine, now: datetime) -> None:
    """Delete what is old, and what is too much."""
    async with one_statement(engine) as conn:
        await conn.execute(_TRIM, {"before": now - KEPT, "most": MOST_KEPT, "bytes": MOST_BYTES})


async def _change(engine: AsyncEngine, statement: TextClause, job: Job, values: Mapping[str, Any]) -> bool:
    """False: this process does not work at it any more."""
    async with one_statement(engine) as conn:
        return bool((await conn.execute(statement, {"id": job.id, "claim": job.claim, **values})).rowcount)
