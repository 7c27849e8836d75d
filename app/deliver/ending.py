"""How a trigger ends, in one place: its row, its group's facts, its slot, the episodes behind it and its incidents."""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import tables
from app.decide import facts
from app.decide.state import DEAD, LOST, OPEN_STATES, SUCCESS, Group, state_after
from app.groups import store
from app.kit.db import with_retries
from app.kit.outbox.store import release_slot
from app.notices.incidents import Incidents
from app.notices.model import MOST_ALIKE, Notice, Severity
from app.policy.core import Core
from app.policy.receivers import NO_EFFECT
from app.policy.schema import Route

log = logging.getLogger(__name__)

TRIGGER_DEAD: Final = "trigger_dead"
TRIGGER_WAITING: Final = "trigger_waiting"
TRIGGER_LOST: Final = "trigger_lost"
RUN_FAILED: Final = "run_failed"

_TITLES: Final[Mapping[str, tuple[Severity, str]]] = {
    TRIGGER_DEAD: (Severity.CRITICAL, "No retraining of {group}: its trigger is dead"),
    TRIGGER_WAITING: (Severity.ERROR, "The retraining of {group} waits for Airflow"),
    TRIGGER_LOST: (Severity.ERROR, "The retraining of {group} does not end"),
    RUN_FAILED: (Severity.WARNING, "The retraining of {group} failed"),
    NO_EFFECT: (Severity.WARNING, "Retraining does not help {group}"),
}
#: The events of a trigger itself: its good end resolves them.
EVENTS: Final = (TRIGGER_DEAD, TRIGGER_WAITING, TRIGGER_LOST, RUN_FAILED)
_FLOOD: Final = "flood"  # in a key, in place of a group


_triggers = tables.triggers

# From its end on it is judged whether the trigger helped, and its good end is announced (app.effects). A redriven trigger
# ends, and is judged, again.
_JUDGE = text("""
    INSERT INTO effects (trigger_id, reason, detail, at, former, next_at, announce_at)
    SELECT id, 'running', 'its DAG run has ended', CAST(:now AS timestamptz), '[]', :now,
        CASE WHEN state = 'succeeded' THEN CAST(:now AS timestamptz) END
    FROM triggers WHERE id = :id AND mode = 'live' AND fired_at IS NOT NULL
    ON CONFLICT (trigger_id) DO UPDATE SET next_at = excluded.next_at, announce_at = excluded.announce_at
""")
_NAMED = (_triggers.c.id, _triggers.c.route, _triggers.c.group_key, _triggers.c.group_labels)


class Endings:
    """Every way out of an open trigger goes through `end` or `lose`."""

    def __init__(self, core: Core, incidents: "TriggerIncidents") -> None:
        self._bells = core.bells
        self._metrics = core.metrics
        self._policy = core.policies.current
        self._incidents = incidents

    async def end(
        self,
        conn: AsyncConnection,
        trigger_id: UUID,
        outcome: str,
        dag_run_state: str | None,
        detail: str,
        now: datetime,
    ) -> bool:
        """End the trigger. False: it had ended already.

        After a success the cooldown goes on, counted from the fire. Any other outcome may end it early (`facts.clear_at`).
        """
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
            .returning(*_NAMED, _triggers.c.lost_at)
        )
        row = changed.mappings().one_or_none()
        if row is None:
            return False
        if outcome == SUCCESS:
            # Lock alerts in the order that every flow uses, because intake counts repeats without the lock of a group.
            a = tables.alerts
            mine = select(a.c.id).where(a.c.trigger_id == trigger_id).order_by(a.c.fingerprint)
            await conn.execute(update(a).where(a.c.id.in_(mine.with_for_update(key_share=True))).values(spent=True))
        await release_slot(conn, trigger_id)
        await conn.execute(_JUDGE, {"id": trigger_id, "now": now})
        counted = row["lost_at"] is not None
        if group is not None and facts.end(group, trigger_id, outcome, self._route(group), now, counted=counted):
            await store.save_groups(conn, [group])
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
        if group is not None and facts.lose(group, trigger_id, self._route(group), now):
            await store.save_groups(conn, [group])
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
        """Airflow has a run of the group: resolve the incidents that say that none can start."""
        await self._incidents.resolve(conn, (TRIGGER_DEAD, TRIGGER_WAITING), trigger, "Airflow has the DAG run", now)

    async def waiting_long(self, conn: AsyncConnection, trigger: RowMapping, detail: str, now: datetime) -> None:
        """The trigger has waited for Airflow for so long that a person must know."""
        await self._incidents.open(conn, TRIGGER_WAITING, trigger, detail, now)

    def _route(self, group: Group) -> Route | None:
        return self._policy().route(group.route)

    async def _group_of(self, conn: AsyncConnection, trigger_id: UUID) -> Group | None:
        """Lock the group first: groups before triggers, as every flow does."""
        found = await conn.execute(select(_triggers.c.group_key).where(_triggers.c.id == trigger_id))
        key = found.scalar_one_or_none()
        return await store.lock_group(conn, key) if key is not None else None

    async def free_place(self, engine: AsyncEngine, trigger_id: UUID, route_name: str) -> None:
        """A dead trigger no longer counts in the limit of its route: wake the groups that wait for a place. This follows the
        commit, in a transaction of its own, since it locks other groups than the trigger's."""
        route = self._policy().route(route_name)
        if route is not None and route.limit is not None:
            await with_retries(engine, lambda conn: store.wake_waiting(conn, route_name, trigger_id))

    def after(self, trigger_id: UUID, outcome: str, detail: str, route: str) -> None:
        """After the commit of an end: log it, count it, and wake the loops that wait for a slot or for the group."""
        self._metrics.triggers_ended.labels(route, outcome).inc()
        level = logging.INFO if outcome == SUCCESS else logging.ERROR
        log.log(level, "trigger ended: %s", outcome, extra={"trigger_id": str(trigger_id), "detail": detail})
        for bell in (self._bells.relay, self._bells.waker, self._bells.confirmer):
            bell.ring()


class TriggerIncidents:
    """Opens and resolves the incidents of triggers, in the transaction that finds out.

    An incident is one event of one group, with the key `<event>:<route>:<group>`. If the same happens again while it is
    open, it stays the same incident (docs/reference/notices.md). Groups after the first MOST_ALIKE share one. `trigger` is a
    row with at least id, route, group_key and group_labels.
    """

    def __init__(self, core: Core, incidents: Incidents) -> None:
        self._policy = core.policies.current
        self._incidents = incidents

    async def open(self, conn: AsyncConnection, event: str, trigger: Any, detail: str, now: datetime) -> None:
        """Open the incident of this event for the trigger's group, unless it is open already."""
        severity, title = _TITLES[event]
        route, labels = trigger["route"], trigger["group_labels"]
        group = ", ".join([route, *(f"{name}={value}" for name, value in labels.items())])
        key = _key(event, trigger)
        if await self._is_flood(conn, event, route, key):
            key, labels = f"{_prefix(event, route)}{_FLOOD}", {}
            title = f"More than {MOST_ALIKE} groups of {route} have an incident {event}: further ones open none"
        notice = Notice(
            key=key,
            event=event,
            severity=severity,
            title=title.format(group=group),
            detail=detail,
            labels={**labels, "route": route},
            link=f"/ui/triggers/{trigger['id']}",
        )
        await self._incidents.open(conn, self._policy().receivers_of(event, route), notice, now)

    async def resolve(
        self, conn: AsyncConnection, events: tuple[str, ...], trigger: Any, detail: str, now: datetime
    ) -> None:
        """Resolve the incidents of these events that are open for the trigger's group."""
        if not await self._incidents.resolve_all(conn, [_key(event, trigger) for event in events], now, detail):
            return
        for prefix in sorted(_prefix(event, trigger["route"]) for event in events):
            if await self._incidents.open_below(conn, prefix) == {f"{prefix}{_FLOOD}"}:
                await self._incidents.resolve(conn, f"{prefix}{_FLOOD}", now, "the incidents of single groups are over")

    async def _is_flood(self, conn: AsyncConnection, event: str, route: str, key: str) -> bool:
        """Whether so many groups have this incident that a further group opens none of its own."""
        found = await self._incidents.open_below(conn, _prefix(event, route))
        return key not in found and len(found) >= MOST_ALIKE


def run_time(trigger: Mapping[Any, Any], now: datetime | None = None) -> timedelta:
    """How long its DAG run took, in seconds; nothing, if Airflow never had it. One that is open ends `now`."""
    began: datetime | None = trigger["started_at"] or trigger["accepted_at"]
    ended: datetime | None = trigger["ended_at"] or now
    if began is None or ended is None or ended < began:
        return timedelta(0)
    return timedelta(seconds=round((ended - began).total_seconds()))


def _prefix(event: str, route: str) -> str:
    return f"{event}:{route}:"


def _key(event: str, trigger: Any) -> str:
    return f"{_prefix(event, trigger['route'])}{trigger['group_key'][:16]}"
