"""How a trigger ends, in one place: its row, its group's facts, its slot, the episodes behind it, and who is told."""

import logging
from datetime import datetime
from uuid import UUID

from sqlalchemy import RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import tables
from app.decide import facts
from app.decide.state import DEAD, LOST, OPEN_STATES, SUCCESS, Group, state_after
from app.deliver.notify import EVENTS, RUN_FAILED, TRIGGER_DEAD, TRIGGER_LOST, TRIGGER_WAITING, Tell
from app.groups import limits, store
from app.kit.db import with_retries
from app.kit.outbox.store import release_slot
from app.policy.core import Core
from app.policy.schema import Route

log = logging.getLogger(__name__)

_triggers = tables.triggers
_TOLD = (_triggers.c.id, _triggers.c.route, _triggers.c.group_key, _triggers.c.group_labels)


class Endings:
    """Every way out of an open trigger goes through `end` or `lose`."""

    def __init__(self, core: Core, notify: Tell) -> None:
        self._bells = core.bells
        self._metrics = core.metrics
        self._policy = core.policies.current
        self._notify = notify

    async def end(
        self,
        conn: AsyncConnection,
        trigger_id: UUID,
        outcome: str,
        dag_run_state: str | None,
        detail: str,
        now: datetime,
    ) -> bool:
        """The trigger is over. Success begins the cooldown's full length, anything else releases it as the policy says.
        False: it was over already."""
        group = await self._group_of(conn, trigger_id)
        changed = await conn.execute(
            update(_triggers)
            .where(_triggers.c.id == trigger_id, _triggers.c.state.in_(OPEN_STATES))
            .values(
                state=state_after(outcome),
                outcome=outcome,
                detail=detail,
                ended_at=now,
                dag_run_state=dag_run_state,
                follow_at=None,
                blocked=None,
            )
            .returning(*_TOLD, _triggers.c.lost_at)
        )
        row = changed.mappings().one_or_none()
        if row is None:
            return False
        if outcome == SUCCESS:
            # In the order of all locks on alerts: repeats are counted under no group's lock.
            a = tables.alerts
            mine = select(a.c.id).where(a.c.trigger_id == trigger_id).order_by(a.c.fingerprint)
            await conn.execute(update(a).where(a.c.id.in_(mine.with_for_update(key_share=True))).values(spent=True))
        await release_slot(conn, trigger_id)
        counted = row["lost_at"] is not None
        if group is not None and facts.end(group, trigger_id, outcome, self._route(group), now, counted=counted):
            await store.save_groups(conn, [group])
        await self._tell_of_end(conn, row, outcome, detail, now)
        return True

    async def lose(self, conn: AsyncConnection, trigger_id: UUID, detail: str, now: datetime) -> bool:
        """The run is still open after its run_timeout: it counts as failed, and its group stays in flight until a read
        shows that it ended or is gone. False: that was known already."""
        group = await self._group_of(conn, trigger_id)
        changed = await conn.execute(
            update(_triggers)
            .where(_triggers.c.id == trigger_id, _triggers.c.state.in_(OPEN_STATES), _triggers.c.lost_at.is_(None))
            .values(outcome=LOST, lost_at=now, detail=detail)
            .returning(*_TOLD)
        )
        row = changed.mappings().one_or_none()
        if row is None:
            return False
        if group is not None and facts.lose(group, trigger_id, self._route(group), now):
            await store.save_groups(conn, [group])
        await self._notify.wrong(conn, TRIGGER_LOST, row, detail, now)
        return True

    async def _tell_of_end(
        self, conn: AsyncConnection, trigger: RowMapping, outcome: str, detail: str, now: datetime
    ) -> None:
        if outcome == SUCCESS:
            await self._notify.over(conn, EVENTS, trigger, detail, now)
        else:
            await self._notify.over(conn, (TRIGGER_WAITING, TRIGGER_LOST), trigger, detail, now)
            await self._notify.wrong(conn, TRIGGER_DEAD if outcome == DEAD else RUN_FAILED, trigger, detail, now)

    async def taken(self, conn: AsyncConnection, trigger: RowMapping, now: datetime) -> None:
        """Airflow has a run of the group: whatever kept it from starting is over."""
        await self._notify.over(conn, (TRIGGER_DEAD, TRIGGER_WAITING), trigger, "Airflow has the DAG run", now)

    async def waits(self, conn: AsyncConnection, trigger: RowMapping, detail: str, now: datetime) -> None:
        """The trigger has been waiting for Airflow for so long that a person must know."""
        await self._notify.wrong(conn, TRIGGER_WAITING, trigger, detail, now)

    def _route(self, group: Group) -> Route | None:
        return self._policy().route(group.route)

    async def _group_of(self, conn: AsyncConnection, trigger_id: UUID) -> Group | None:
        """Lock the group first: groups before triggers, as every flow does."""
        key = (await conn.execute(select(_triggers.c.group_key).where(_triggers.c.id == trigger_id))).scalar_one()
        return await store.lock_group(conn, key)

    async def let_in(self, engine: AsyncEngine, trigger_id: UUID, route_name: str) -> None:
        """A dead trigger leaves its place in the limit of its route: what waits for one is decided at once, and not when
        it was told to be. After the commit, in a transaction of its own, since it locks other groups than the trigger's."""
        route = self._policy().route(route_name)
        if route is not None and route.limit is not None:
            await with_retries(engine, lambda conn: limits.wake_waiting(conn, route_name, trigger_id))

    def tell(self, trigger_id: UUID, outcome: str, detail: str, route: str) -> None:
        """After the commit: log, count, wake whoever waits for a slot or for the group."""
        self._metrics.triggers_ended.labels(route, outcome).inc()
        level = logging.INFO if outcome == SUCCESS else logging.ERROR
        log.log(level, "trigger ended: %s", outcome, extra={"trigger_id": str(trigger_id), "detail": detail})
        for bell in (self._bells.relay, self._bells.waker, self._bells.confirmer):
            bell.ring()
