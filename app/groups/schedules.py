"""Schedules: each occurrence is decided like a request, exactly once, whatever the number of replicas.

The row of a schedule holds its newest occurrence and only moves forward. It moves in the transaction of the decision. So one
replica alone decides an occurrence, and after a crash another replica decides it.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide.ledger import Ledger
from app.decide.occurrences import group_of, passed_over, request_of
from app.decide.state import Decision
from app.groups import requests, store
from app.groups.aftermath import Aftermath
from app.kit.db import transaction, with_retries
from app.kit.loop import each_alone
from app.kit.times import at
from app.policy.core import Core
from app.policy.schedules import Schedule
from app.policy.schema import Policy

log = logging.getLogger(__name__)

_schedules = tables.schedules

# A schedule that is new or changed counts from now on.
_ADOPT = text("""
    INSERT INTO schedules (name, definition, last_at) VALUES (:name, :definition, :now)
    ON CONFLICT (name) DO UPDATE SET definition = :definition, last_at = greatest(schedules.last_at, :now)
    WHERE schedules.definition <> :definition
""")

# It returns no row when another replica has taken this occurrence or a later one.
_TAKE = text("""
    INSERT INTO schedules (name, definition, last_at, decided_at, detail)
    VALUES (:name, :definition, :occurrence, :now, :detail)
    ON CONFLICT (name) DO UPDATE SET definition = :definition, last_at = :occurrence, decided_at = :now, detail = :detail,
        action = NULL, reason = NULL, trigger_id = NULL
    WHERE schedules.last_at < :occurrence RETURNING name
""")


class Schedules:
    """`step()` decides the schedules that are due. Memory holds when each is due, so that most steps read no database."""

    def __init__(self, core: Core, aftermath: Aftermath) -> None:
        self._core = core
        self._engine, self._clock = core.engine, core.clock
        self._policy = core.policies.current
        self._aftermath = aftermath
        self._adopted: str | None = None  # the hash of the policy whose schedules are known
        self._since: dict[str, datetime] = {}  # by name: the newest occurrence that was taken
        self._next: dict[str, datetime] = {}

    async def step(self) -> bool:
        """Take the newest occurrence of every schedule that is due. Always False, because it takes all of them.

        A schedule that fails does not stop the others. Its error is raised after all have been tried.
        """
        policy, now = self._policy(), self._clock.now()
        if self._adopted != policy.hash:
            await self._adopt(policy, now)

        async def take(schedule: Schedule) -> None:
            await self._take(policy, schedule, now)

        due = [schedule for schedule in policy.schedules if self._next[schedule.name] <= now]
        failed = await each_alone(
            due, take, lambda schedule: {"schedule": schedule.name}, "a schedule cannot be decided"
        )
        if failed:
            self._core.metrics.items_failed.labels("schedules").inc(len(failed))
            raise ExceptionGroup("schedules that could not be decided", [error for _, error in failed])
        return False

    async def _adopt(self, policy: Policy, now: datetime) -> None:
        """Learn the newest occurrence of each schedule, once for each policy."""

        async def adopt(conn: AsyncConnection) -> dict[str, datetime]:
            names = [schedule.name for schedule in policy.schedules]
            # A schedule that left the policy and comes back later counts as new.
            await conn.execute(delete(_schedules).where(_schedules.c.name.not_in(names)))
            for schedule in sorted(policy.schedules, key=lambda s: s.name):
                values = {"name": schedule.name, "definition": schedule.definition, "now": now}
                await conn.execute(_ADOPT, values)
            rows = await conn.execute(select(_schedules.c.name, _schedules.c.last_at))
            return {row.name: row.last_at for row in rows}

        self._since = await with_retries(self._engine, adopt)
        self._next = {s.name: s.times.after(self._since[s.name]) for s in policy.schedules}
        self._adopted = policy.hash

    async def _take(self, policy: Policy, schedule: Schedule, now: datetime) -> None:
        occurrence = schedule.times.newest(self._since[schedule.name], now)
        if occurrence is not None:
            missed = passed_over(schedule, occurrence, now)
            if missed is not None:
                await self._pass_over(schedule, occurrence, now, missed)
            else:
                await self._decide(policy, schedule, occurrence, now)
            self._since[schedule.name] = occurrence
        self._next[schedule.name] = schedule.times.after(self._since[schedule.name])

    async def _pass_over(self, schedule: Schedule, occurrence: datetime, now: datetime, detail: str) -> None:
        async with transaction(self._engine) as conn:
            taken = await _move(conn, schedule, occurrence, now, detail)
        if taken:
            extra = {"schedule": schedule.name, "occurrence": at(occurrence), "route": schedule.route}
            log.warning("a scheduled run was passed over", extra=extra | {"detail": detail})

    async def _decide(self, policy: Policy, schedule: Schedule, occurrence: datetime, now: datetime) -> None:
        async def decide(conn: AsyncConnection) -> tuple[Ledger, Decision] | None:
            if not await _move(conn, schedule, occurrence, now, ""):
                return None
            ledger = store.new_ledger(self._core, policy, now)
            decision = await _request(conn, ledger, schedule, occurrence)
            decided = {"action": decision.action, "reason": decision.reason, "trigger_id": decision.trigger_id}
            values = decided | {"detail": decision.detail}
            await conn.execute(update(_schedules).where(_schedules.c.name == schedule.name).values(**values))
            return ledger, decision

        taken = await with_retries(self._engine, decide)
        if taken is None:
            return
        ledger, decision = taken
        await self._aftermath.committed(ledger)
        extra = {"schedule": schedule.name, "occurrence": at(occurrence), "route": schedule.route}
        trigger_id = str(decision.trigger_id) if decision.trigger_id else None
        log.info("schedule decided: %s", decision.reason, extra=extra | {"trigger_id": trigger_id})


async def _move(conn: AsyncConnection, schedule: Schedule, occurrence: datetime, now: datetime, detail: str) -> bool:
    """Move the schedule's row forward to this occurrence. False: another replica has taken it."""
    values = {"name": schedule.name, "definition": schedule.definition, "occurrence": occurrence, "now": now}
    return (await conn.execute(_TAKE, values | {"detail": detail})).one_or_none() is not None


async def _request(conn: AsyncConnection, ledger: Ledger, schedule: Schedule, occurrence: datetime) -> Decision:
    """The decision on one occurrence."""
    route = ledger.policy.route(schedule.route)
    if route is None:
        raise ValueError(f"the schedule {schedule.name} names a route that the policy does not have")
    request = request_of(schedule, occurrence)
    return await requests.decide(conn, ledger, route, group_of(schedule, route), request)


async def list_schedules(conn: AsyncConnection, schedules: Sequence[Schedule], now: datetime) -> list[dict[str, Any]]:
    """Each schedule with its next occurrence and the decision on its newest one, as the API shows them."""
    rows = {row["name"]: row for row in (await conn.execute(select(_schedules))).mappings()}
    return [_shown(schedule, rows.get(schedule.name), now) for schedule in schedules]


def _shown(schedule: Schedule, row: RowMapping | None, now: datetime) -> dict[str, Any]:
    last = None
    if row is not None and row["decided_at"] is not None:
        names = ("decided_at", "action", "reason", "trigger_id", "detail")
        last = {"at": row["last_at"]} | {name: row[name] for name in names}
    # An occurrence that is due but not taken yet is the next one, however late.
    since = row["last_at"] if row is not None else now
    return schedule.model_dump(mode="json") | {"next_at": schedule.times.after(since), "last": last}
