"""Accepted by Airflow is not success: every open DAG run is read until it ends."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import RowMapping, Update, func, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide.state import FAILED, GONE, LOST, SUCCESS, TriggerState
from app.deliver.ending import Endings
from app.kit.airflow.client import AirflowClient, DagRun
from app.kit.db import names_of, rows_of, transaction, with_retries
from app.kit.errors import TargetError
from app.kit.loop import each_alone
from app.policy.core import Core

log = logging.getLogger(__name__)

_triggers = tables.triggers

# The time of the next look is written before the read: when this process dies, another one looks later.
_DUE = rows_of(
    f"""
    UPDATE triggers SET follow_at = :next WHERE id IN (
        SELECT id FROM triggers WHERE follow_at <= :now ORDER BY follow_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) RETURNING {names_of(_triggers)}
""",
    _triggers,
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one read showed: the run, or None when it is gone; `paused`: the run is queued and its DAG is paused."""

    run: DagRun | None
    paused: bool = False


class Follower:
    """`step()` reads the DAG runs that are due and writes their state. An error with one run does not stop the others."""

    def __init__(
        self,
        core: Core,
        airflows: Callable[[], Mapping[str, AirflowClient]],
        endings: Endings,
        *,
        interval: float,
        parallel: int,
        incident_after: float,
    ) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._airflows = airflows
        self._endings = endings
        self._interval = timedelta(seconds=interval)
        self._parallel = parallel
        self._incident_after = timedelta(seconds=incident_after)

    async def step(self) -> bool:
        """One round. True: more may be due."""
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            parameters = {"now": now, "next": now + self._interval, "most": self._parallel}
            due = (await conn.execute(_DUE, parameters)).mappings().all()
        broken = await each_alone(
            due, self._look, _named, "an open DAG run could not be looked at", at_once=self._parallel
        )
        self._metrics.items_failed.labels("follower").inc(len(broken))
        return len(due) == self._parallel

    async def _look(self, trigger: RowMapping) -> None:
        client = self._airflows().get(trigger["airflow"])
        if client is None:
            await self._unread(trigger, "no_airflow", f"the policy has no airflow named {trigger['airflow']!r}")
            return
        try:
            seen = _Seen(await client.run(trigger["dag_id"], trigger["dag_run_id"]))
            seen = await self._end_queued(client, trigger, seen)
        except TargetError as error:
            await self._unread(trigger, error.code, error.detail)
            return
        await self._write(trigger, seen, self._clock.now())

    async def _unread(self, trigger: RowMapping, code: str, detail: str) -> None:
        """The DAG run cannot be read. The trigger shows why; after a while an incident is opened. The next good read ends
        both."""
        now, detail = self._clock.now(), f"the DAG run cannot be read: {detail}"
        is_new = (trigger["blocked"], trigger["detail"]) != (code, detail)
        is_long = trigger["unread_since"] is not None and now - trigger["unread_since"] >= self._incident_after
        if trigger["lost_at"] is not None or not (is_new or is_long):
            return
        if is_new:
            log.warning("a DAG run cannot be read now", extra=_named(trigger) | {"code": code, "detail": detail})
        async with transaction(self._engine) as conn:
            since = func.coalesce(_triggers.c.unread_since, now)
            found = await conn.execute(_open(trigger).values(blocked=code, detail=detail, unread_since=since))
            if found.rowcount and is_long:
                await self._endings.waiting_long(conn, trigger, detail, now)

    async def _end_queued(self, client: AirflowClient, trigger: RowMapping, seen: _Seen) -> _Seen:
        """Fail a run that has not begun by its run_timeout: it must not begin later, beside a newer one. Before that time,
        look whether its DAG was paused after the run was queued."""
        if seen.run is None or seen.run.state != "queued":
            return seen
        if not _overdue(trigger, self._clock.now()):
            return _Seen(seen.run, await self._is_paused(client, trigger))
        log.warning("a DAG run is still queued after its run_timeout: failing it", extra=_named(trigger))
        return _Seen(await client.fail_run(trigger["dag_id"], trigger["dag_run_id"]))

    async def _is_paused(self, client: AirflowClient, trigger: RowMapping) -> bool:
        if trigger["dag_run_state"] != "queued" or trigger["lost_at"] is not None:
            return False  # Ask only at the second look: most runs leave the queue at once.
        try:
            return (await client.dag(trigger["dag_id"])).is_paused
        except TargetError:
            return False

    async def _write(self, trigger: RowMapping, seen: _Seen, now: datetime) -> None:
        found = _outcome(trigger, seen.run, now)

        async def write(conn: AsyncConnection) -> bool:
            if seen.run is not None and seen.run.state in ("queued", "running"):
                await self._still_open(conn, trigger, seen, now)
            if found is None:
                return False
            outcome, detail = found
            if outcome == LOST:
                return await self._endings.lose(conn, trigger["id"], detail, now)
            state = seen.run.state if seen.run else None
            return await self._endings.end(conn, trigger["id"], outcome, state, detail, now)

        if await with_retries(self._engine, write) and found is not None:
            self._endings.after(trigger["id"], *found, trigger["route"])

    async def _still_open(self, conn: AsyncConnection, trigger: RowMapping, seen: _Seen, now: datetime) -> None:
        """Write what is new about an open run: its state, or that its DAG was paused while it was queued."""
        run = seen.run
        if run is None:
            return
        running = run.state == "running"
        detail = "the DAG run is running" if running else "the DAG run is queued in Airflow"
        if seen.paused:
            detail = f"the DAG run is queued, and the DAG {trigger['dag_id']} is paused in Airflow: unpause it"
        if (run.state == trigger["dag_run_state"] and detail == trigger["detail"]) or trigger["lost_at"] is not None:
            return
        found = await conn.execute(
            _open(trigger).values(
                state=TriggerState.RUNNING if running else trigger["state"],
                started_at=(trigger["started_at"] or run.started_at or now) if running else trigger["started_at"],
                dag_run_state=run.state,
                blocked="dag_paused" if seen.paused else None,
                detail=detail,
                unread_since=None,
            )
        )
        if found.rowcount and trigger["unread_since"] is not None:
            await self._endings.accepted(conn, trigger, now)


def _named(trigger: RowMapping) -> dict[str, str]:
    return {"trigger_id": str(trigger["id"]), "dag_run_id": trigger["dag_run_id"]}


def _open(trigger: RowMapping) -> Update:
    """Change the trigger's row, unless it has ended meanwhile."""
    return update(_triggers).where(_triggers.c.id == trigger["id"], _triggers.c.state.in_(("submitted", "running")))


def _outcome(trigger: RowMapping, run: DagRun | None, now: datetime) -> tuple[str, str] | None:
    """The trigger's outcome after this read, with one sentence; None while the run is open and in time."""
    if run is None:
        return GONE, "Airflow no longer has the DAG run: somebody deleted it"
    if run.state == "success":
        return SUCCESS, "the DAG run succeeded"
    if run.state == "failed":
        if _overdue(trigger, now) and trigger["dag_run_state"] == "queued":
            return FAILED, "the DAG run was still queued after its run_timeout and was set to failed"
        return FAILED, "the DAG run failed"
    if _overdue(trigger, now):
        return LOST, f"the DAG run is still {run.state} after its run_timeout: it counts as lost"
    return None


def _overdue(trigger: RowMapping, now: datetime) -> bool:
    """Whether the run_timeout is over. `now` is taken after the answer, so the read itself was made after the deadline."""
    accepted: datetime | None = trigger["accepted_at"]
    return accepted is not None and now >= accepted + timedelta(seconds=trigger["run_timeout"])
