"""A fired trigger on its way to Airflow: one attempt, and what follows from it in Postgres.

The id of the DAG run is made from the trigger's id, so a second request does no harm. After an unclear answer we read
back before we post again. A run counts as ours only when it carries our trigger's id.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide import facts
from app.decide.state import DEAD, TriggerState
from app.deliver.ending import Endings
from app.groups import store
from app.kit.airflow.client import IMPOSSIBLE, AirflowClient, DagRun, run_is_ours
from app.kit.db import one_statement
from app.kit.errors import Ambiguous, OutOfFiles, Refused, Rejected, TargetError, Unreachable
from app.kit.outbox.model import Dead, Delivered, Item, Outcome, Retry
from app.kit.outbox.relay import Destination
from app.kit.telemetry import root_span, span
from app.policy.core import Core

#: Refusals in which Airflow had no part: a page of a proxy, or a file of our login that cannot be read.
NOT_ANSWERS: Final = frozenset({"not_airflow", "token_file", "ca_file"})

log = logging.getLogger(__name__)

_triggers = tables.triggers


class Delivery(Destination):
    """Delivers a fired trigger to its Airflow."""

    kind = store.KIND
    keeps_slot = True  # until its DAG run has ended
    log_fields = ("trigger_id", "route")

    def __init__(
        self,
        core: Core,
        airflows: Callable[[], Mapping[str, AirflowClient]],
        endings: Endings,
        *,
        paused_retry: float,
        follow_interval: float,
        incident_after: float,
    ) -> None:
        self._engine = core.engine
        self._follower = core.bells.follower
        self._airflows = airflows
        self._endings = endings
        self._paused_retry = paused_retry
        self._follow_interval = follow_interval
        self._incident_after = timedelta(seconds=incident_after)

    async def deliver(self, item: Item) -> Outcome:
        """One attempt: look for the run if an earlier attempt may have arrived, look at the DAG, post the run."""
        trigger = await self._trigger(item.id)
        if trigger is None:
            return Dead("no_trigger", "the trigger is no longer kept")
        attributes = {
            "gateway.route": trigger["route"],
            "gateway.dag_id": trigger["dag_id"],
            "gateway.target": item.target,
        }
        with span("deliver", item.id, attributes) as made:
            outcome = await self._attempt(item, trigger)
            made.set_attribute("gateway.outcome", outcome.code)
        return outcome

    async def answers(self, item: Item) -> bool | None:
        """Whether the Airflow of an item answers anything else."""
        trigger = await self._trigger(item.id)
        client = self._airflows().get(trigger["airflow"]) if trigger else None
        return await client.answers() if client else False

    async def _attempt(self, item: Item, trigger: RowMapping) -> Outcome:
        client = self._airflows().get(trigger["airflow"])
        if client is None:
            return Retry("no_airflow", f"the policy has no airflow named {trigger['airflow']!r}", waits=True, after=30)
        absent = not item.ambiguous
        try:
            if item.ambiguous:
                run = await client.run(trigger["dag_id"], trigger["dag_run_id"])
                if run is not None:
                    return _arrived(run, trigger)
                absent = True
                if item.attempts > 1:
                    # This trigger failed again and again. Its slot goes to the others before it is posted once more.
                    return Retry(trigger["blocked"] or "unclear", trigger["detail"], absent=True)
            return await self._post(client, trigger)
        # These errors come from reads, which change nothing, and from a post that reached no server. A proxy's answer to a
        # read does not say whether a run has begun, so an ambiguous item stays ambiguous.
        except OutOfFiles as error:
            return Retry(error.code, error.detail, answered=False, own=True, absent=absent)
        except (Unreachable, Ambiguous) as error:
            return _away(error, absent=absent)
        except (Refused, Rejected) as error:
            return self._refused(error, absent=absent)

    def _refused(self, error: Refused | Rejected, *, absent: bool = True) -> Outcome:
        """Airflow cannot take the trigger now. That is not known of a server which is not Airflow, nor without our login."""
        if error.code in NOT_ANSWERS:
            return _away(error, absent=absent)
        return Retry(error.code, error.detail, absent=absent, after=self._paused_retry)

    async def _post(self, client: AirflowClient, trigger: RowMapping) -> Outcome:
        """Post the run, which does not exist yet. Not to a paused DAG: Airflow would accept the run and never start it."""
        dag_id, run_id = trigger["dag_id"], trigger["dag_run_id"]
        try:
            dag = await client.dag(dag_id)
            if dag.is_paused:
                detail = f"the DAG {dag_id} is paused in Airflow: unpause it and the run starts"
                return Retry("dag_paused", detail, waits=True, absent=True, after=self._paused_retry)
        except Refused as error:
            return self._refused(error)
        except Rejected as error:
            if error.code != IMPOSSIBLE:
                raise
            return Dead(error.code, error.detail)
        note = f"Started by Trigger Gateway: route {trigger['route']}, trigger {trigger['id']}"
        try:
            return _arrived(await client.trigger(dag_id, run_id, trigger["conf"], note), trigger)
        except Refused as error:
            return self._refused(error)
        except (Ambiguous, Rejected) as error:
            return await self._read_back(client, trigger, error)

    async def _read_back(self, client: AirflowClient, trigger: RowMapping, error: TargetError) -> Outcome:
        try:
            run = await client.run(trigger["dag_id"], trigger["dag_run_id"])
        except OutOfFiles as own:
            return Retry(own.code, own.detail, answered=False, own=True, ambiguous=True)
        except (Refused, Rejected) as refusal:
            away = refusal.code in NOT_ANSWERS
            detail = f"{error.detail}; and {refusal.detail}"
            return Retry(error.code, detail, answered=not away, suspect=away, ambiguous=True)
        except TargetError:
            return Retry(error.code, error.detail, answered=False, suspect=True, ambiguous=True)
        if run is not None:
            return _arrived(run, trigger)
        if isinstance(error, Rejected):
            return Dead(error.code, error.detail)
        # The run does not exist now, but Airflow may still work on a request that it has not answered itself. So the next
        # attempt reads before it posts. Airflow answers the read, so this trigger alone is at fault.
        detail = f"{error.detail}; Airflow answers, and has no such run"
        return Retry(error.code, detail, absent=error.finished, ambiguous=True)

    async def settled(self, conn: AsyncConnection, item: Item, outcome: Outcome, now: datetime) -> None:
        """Write the outcome to the trigger and its group."""
        match outcome:
            case Delivered():
                await self._accepted(conn, item.id, outcome.result, now)
            case Dead():
                await self._endings.end(conn, item.id, DEAD, None, outcome.detail, now)
            case Retry():
                await self._waits(conn, item, outcome, now)

    async def _waits(self, conn: AsyncConnection, item: Item, outcome: Retry, now: datetime) -> None:
        values = {"blocked": outcome.code, "detail": outcome.detail}
        changed = await conn.execute(
            update(_triggers)
            .where(_triggers.c.id == item.id, _triggers.c.state == "pending")
            .values(values)
            .returning(_triggers)
        )
        trigger = changed.mappings().one_or_none()
        if trigger is not None and now - item.created_at >= self._incident_after:
            await self._endings.waiting_long(conn, trigger, outcome.detail, now)

    async def _accepted(self, conn: AsyncConnection, trigger_id: UUID, run: DagRun, now: datetime) -> None:
        row = (await conn.execute(select(_triggers).where(_triggers.c.id == trigger_id))).mappings().one_or_none()
        if row is None:
            return
        group = await store.lock_group(conn, row["group_key"])
        changed = await conn.execute(
            update(_triggers)
            .where(_triggers.c.id == trigger_id, _triggers.c.state == TriggerState.PENDING)
            .values(
                state=TriggerState.SUBMITTED,
                accepted_at=now,
                dag_run_state=run.state,
                blocked=None,
                detail="Airflow has the DAG run",
                follow_at=now + timedelta(seconds=min(1.0, self._follow_interval)),
            )
        )
        if changed.rowcount and group is not None:
            facts.accept(group, now)
            await store.save_groups(conn, [group])
        await self._endings.accepted(conn, row, now)

    async def after(self, item: Item, outcome: Outcome) -> None:
        """Have the new run followed. After a dead trigger, wake the groups that wait for its place, and report its end."""
        if isinstance(outcome, Delivered):
            log.info("the DAG run is in Airflow", extra={"trigger_id": str(item.id)})
            root_span("trigger", item.id, item.created_at, {"gateway.target": item.target})
            self._follower.ring()
        if isinstance(outcome, Dead):
            await self._endings.free_place(self._engine, item.id, item.payload["route"])
            self._endings.after(item.id, DEAD, outcome.detail, item.payload["route"])

    async def _trigger(self, trigger_id: UUID) -> RowMapping | None:
        async with one_statement(self._engine) as conn:
            return (await conn.execute(select(_triggers).where(_triggers.c.id == trigger_id))).mappings().one_or_none()


def _away(error: TargetError, *, absent: bool) -> Retry:
    """Nobody answered for Airflow. The relay asks whether it is there for others."""
    return Retry(error.code, error.detail, answered=False, suspect=True, absent=absent, after=error.retry_after)


def _arrived(run: DagRun, trigger: RowMapping) -> Outcome:
    if run_is_ours(run, str(trigger["id"])):
        return Delivered(run)
    return Dead("id_taken", f"Airflow has a DAG run {run.dag_run_id} that does not carry our trigger's id")
