"""How a trigger ends, in one place: its row, its group's facts, its slot, the episodes behind it and its incidents."""

import logging
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy import RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import tables
from app.decide import facts
from app.decide.state import DEAD, LOST, OPEN_STATES, SUCCESS, Group, TriggerState
from app.deliver.incidents import EVENTS, RUN_FAILED, TRIGGER_DEAD, TRIGGER_LOST, TRIGGER_WAITING, Incidents
from app.groups import limits, store
from app.kit.db import with_retries
from app.kit.metrics import Metrics
from app.kit.outbox.store import release_slot
from app.policy.schema import Policy

log = logging.getLogger(__name__)

_triggers = tables.triggers
_NAMED = (_triggers.c.id, _triggers.c.route, _triggers.c.group_key, _triggers.c.group_labels)
_STATE = {SUCCESS: TriggerState.SUCCEEDED, DEAD: TriggerState.DEAD}


class Endings:
    """Every way out of an open trigger goes through `end` or `lose`."""

    def __init__(
        self, policy: Callable[[], Policy], metrics: Metrics, incidents: Incidents, ended: Callable[[], None]
    ) -> None:
        self._policy = policy
        self._metrics = metrics
        self._incidents = incidents
        self._ended = ended

    async def end(
        self,
        conn: AsyncConnection,
        trigger_id: UUID,
        outcome: str,
        dag_run_state: str | None,
        detail: str,
        now: datetime,
    ) -> bool:
        """End the trigger. After a success the whole cooldown begins; any other outcome releases it as the policy says.
        False: the trigger had ended already."""
        group = await self._group_of(conn, trigger_id)
        changed = await conn.execute(
            update(_triggers)
            .where(_triggers.c.id == trigger_id, _triggers.c.state.in_(OPEN_STATES))
            .values(
                state=_STATE.get(outcome, TriggerState.FAILED),
                outcome=outcome,
                detail=detail,
                ended_at=now,
                dag_run_state=dag_run_state,
                follow_at=None,
                blocked=None,
            )
            .returning(*_NAMED, _triggers.c.lost_at)
        )
        row = changed.mappings().one_or_none()
        if row is None:
            return False
        if outcome == SUCCESS:
            # Alerts are locked in the same order everywhere: intake counts repeats without the lock of a group.
            a = tables.alerts
            mine = select(a.c.id).where(a.c.trigger_id == trigger_id).order_by(a.c.fingerprint)
            await conn.execute(update(a).where(a.c.id.in_(mine.with_for_update(key_share=True))).values(spent=True))
        await release_slot(conn, trigger_id)
        if group is not None and group.open_trigger == trigger_id:
            group.open_trigger = group.held_since = None
            await self._book(conn, group, outcome, now, counted=row["lost_at"] is not None)
        await self._change_incidents(conn, row, outcome, detail, now)
        return True

    async def lose(self, conn: AsyncConnection, trigger_id: UUID, detail: str, now: datetime) -> bool:
        """The run is still open after its run_timeout, so it counts as failed. Its group stays in flight until a read shows
        that the run ended or is gone. False: the run was lost already."""
        group = await self._group_of(conn, trigger_id)
        changed = await conn.execute(
            update(_triggers)
            .where(_triggers.c.id == trigger_id, _triggers.c.state.in_(OPEN_STATES), _triggers.c.lost_at.is_(None))
            .values(outcome=LOST, lost_at=now, detail=detail)
            .returning(*_NAMED)
        )
        row = changed.mappings().one_or_none()
        if row is None:
            return False
        if group is not None and group.open_trigger == trigger_id:
            await self._book(conn, group, LOST, now, counted=False)
        await self._incidents.open(conn, TRIGGER_LOST, row, detail, now)
        return True

    async def _change_incidents(
        self, conn: AsyncConnection, trigger: RowMapping, outcome: str, detail: str, now: datetime
    ) -> None:
        if outcome == SUCCESS:
            await self._incidents.resolve(conn, EVENTS, trigger, detail, now)
        else:
            await self._incidents.resolve(conn, (TRIGGER_WAITING, TRIGGER_LOST), trigger, detail, now)
            await self._incidents.open(conn, TRIGGER_DEAD if outcome == DEAD else RUN_FAILED, trigger, detail, now)

    async def accepted(self, conn: AsyncConnection, trigger: RowMapping, now: datetime) -> None:
        """Airflow has a run of the group: nothing keeps it from starting any more."""
        await self._incidents.resolve(conn, (TRIGGER_DEAD, TRIGGER_WAITING), trigger, "Airflow has the DAG run", now)

    async def waiting_long(self, conn: AsyncConnection, trigger: RowMapping, detail: str, now: datetime) -> None:
        """The trigger has waited for Airflow for so long that a person must know."""
        await self._incidents.open(conn, TRIGGER_WAITING, trigger, detail, now)

    async def _book(self, conn: AsyncConnection, group: Group, outcome: str, now: datetime, *, counted: bool) -> None:
        facts.book(group, outcome, self._policy().route(group.route), now, counted=counted)
        await store.save_groups(conn, [group])

    async def _group_of(self, conn: AsyncConnection, trigger_id: UUID) -> Group | None:
        """Lock the group first: groups before triggers, as every flow does."""
        key = (await conn.execute(select(_triggers.c.group_key).where(_triggers.c.id == trigger_id))).scalar_one()
        return await store.lock_group(conn, key)

    async def free_place(self, engine: AsyncEngine, trigger_id: UUID, route_name: str) -> None:
        """A dead trigger no longer counts in the limit of its route: wake the groups that wait for a place. This follows the
        commit, in a transaction of its own, since it locks other groups than the trigger's."""
        route = self._policy().route(route_name)
        if route is not None and route.limit is not None:
            await with_retries(engine, lambda conn: limits.let_in(conn, route_name, trigger_id))

    def after(self, trigger_id: UUID, outcome: str, detail: str, route: str) -> None:
        """After the commit of an end: log it, count it, and wake the loops that wait for a slot or for the group."""
        self._metrics.triggers_ended.labels(route, outcome).inc()
        level = logging.INFO if outcome == SUCCESS else logging.ERROR
        log.log(level, "trigger ended: %s", outcome, extra={"trigger_id": str(trigger_id), "detail": detail})
        self._ended()
