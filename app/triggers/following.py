"""Accepted by Airflow is not success: every open DAG run is read until it ends."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app import tables
from app.airflow.client import AirflowClient, DagRun
from app.clock import Clock
from app.db import rows_of, transaction
from app.errors import TargetError
from app.triggers.ending import Endings
from app.triggers.state import FAILED, GONE, LOST, SUCCESS, TriggerState

log = logging.getLogger(__name__)

_triggers = tables.triggers

# The next look is booked before the read: when this process dies, another one looks later.
_DUE = rows_of(
    """
    UPDATE triggers SET follow_at = :next WHERE id IN (
        SELECT id FROM triggers WHERE follow_at <= :now ORDER BY follow_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) RETURNING *
""",
    _triggers,
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one read showed: the run, or that it is gone (None)."""

    run: DagRun | None


class Follower:
    """`step()` reads the DAG runs that are due and writes what became of them."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        airflows: Callable[[], Mapping[str, AirflowClient]],
        endings: Endings,
        *,
        interval: float,
        parallel: int,
        succeeded: Callable[[str, datetime], None],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._airflows = airflows
        self._endings = endings
        self._succeeded = succeeded
        self._interval = timedelta(seconds=interval)
        self._parallel = parallel

    async def step(self) -> bool:
        """One round. True when as many were due as one round takes."""
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            parameters = {"now": now, "next": now + self._interval, "most": self._parallel}
            due = (await conn.execute(_DUE, parameters)).mappings().all()
        await asyncio.gather(*(self._look(row) for row in due))
        return len(due) == self._parallel

    async def _look(self, trigger: RowMapping) -> None:
        client = self._airflows().get(trigger["airflow"])
        if client is None:
            return
        try:
            seen = _Seen(await client.run(trigger["dag_id"], trigger["dag_run_id"]))
            seen = await self._end_queued(client, trigger, seen)
        except TargetError as error:
            log.warning(
                "a DAG run cannot be read now",
                extra={"trigger_id": str(trigger["id"]), "code": error.code, "detail": error.detail},
            )
            return
        await self._write(trigger, seen, self._clock.now())

    async def _end_queued(self, client: AirflowClient, trigger: RowMapping, seen: _Seen) -> _Seen:
        """A run that has not even begun by its run_timeout must not begin later, beside a newer one."""
        if seen.run is None or seen.run.state != "queued" or not _overdue(trigger, self._clock.now()):
            return seen
        log.warning(
            "a DAG run is still queued after its run_timeout: failing it", extra={"trigger_id": str(trigger["id"])}
        )
        return _Seen(await client.fail_run(trigger["dag_id"], trigger["dag_run_id"]))

    async def _write(self, trigger: RowMapping, seen: _Seen, now: datetime) -> None:
        run, trigger_id = seen.run, trigger["id"]
        ended: tuple[str, str] | None = None
        async with transaction(self._engine) as conn:
            if run is None:
                detail = "Airflow no longer has the DAG run: somebody deleted it"
                if await self._endings.end(conn, trigger_id, GONE, None, detail, now):
                    ended = (GONE, detail)
            elif run.state == "success":
                detail = "the DAG run succeeded"
                if await self._endings.end(conn, trigger_id, SUCCESS, run.state, detail, now):
                    ended = (SUCCESS, detail)
            elif run.state == "failed":
                detail = "the DAG run failed"
                if _overdue(trigger, now) and trigger["dag_run_state"] == "queued":
                    detail = "the DAG run was still queued after its run_timeout and was set to failed"
                if await self._endings.end(conn, trigger_id, FAILED, run.state, detail, now):
                    ended = (FAILED, detail)
            else:
                await self._still_open(conn, trigger, run, now)
                if _overdue(trigger, now):
                    detail = f"the DAG run is still {run.state} after its run_timeout: it counts as lost"
                    if await self._endings.lose(conn, trigger_id, detail, now):
                        ended = (LOST, detail)
        if ended is not None:
            self._tell(trigger, *ended, now)

    async def _still_open(self, conn: Any, trigger: RowMapping, run: DagRun, now: datetime) -> None:
        if run.state == trigger["dag_run_state"] and trigger["state"] != TriggerState.SUBMITTED:
            return
        running = run.state == "running"
        await conn.execute(
            update(_triggers)
            .where(_triggers.c.id == trigger["id"], _triggers.c.state.in_(("submitted", "running")))
            .values(
                state=TriggerState.RUNNING if running else trigger["state"],
                started_at=(trigger["started_at"] or run.started_at or now) if running else trigger["started_at"],
                dag_run_state=run.state,
                detail="the DAG run is running" if running else "the DAG run is queued in Airflow",
            )
        )

    def _tell(self, trigger: RowMapping, outcome: str, detail: str, now: datetime) -> None:
        if outcome == SUCCESS:
            self._succeeded(trigger["route"], now)
        self._endings.tell(trigger["id"], outcome, detail, trigger["route"])


def _overdue(trigger: RowMapping, now: datetime) -> bool:
    """Judged on a read made after the deadline: `now` is taken when the answer is there."""
    accepted: datetime | None = trigger["accepted_at"]
    return accepted is not None and now >= accepted + timedelta(seconds=trigger["run_timeout"])
