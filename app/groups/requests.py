"""The requests of people and scripts: trigger, redrive, cancel, reset. Each is one transaction, and each is audited."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide import facts
from app.decide.books import Books
from app.decide.ledger import Ledger
from app.decide.state import Action, Decision, Group, Reason, RunRequest, TriggerChange, TriggerState, group_key
from app.explain import history
from app.groups import idempotency, store
from app.groups.aftermath import Aftermath
from app.groups.idempotency import Repeatable
from app.kit.db import with_retries
from app.kit.errors import Problem
from app.kit.links import page
from app.kit.outbox import store as outbox
from app.policy.conf import CONF_ROOM, conf_bytes
from app.policy.core import Core
from app.policy.schema import Route
from app.tables import audit_log as audit

log = logging.getLogger(__name__)

_triggers = tables.triggers


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for a DAG run, as it arrived. `by` and `why` are for the people who read it later."""

    route: str
    group: dict[str, str]
    why: str
    by: str
    force: bool
    conf: dict[str, Any]


async def decide(
    conn: AsyncConnection, ledger: Ledger, route: Route, labels: dict[str, str], request: RunRequest
) -> Decision:
    """Decide a request for one DAG run of a group, and write the decision. The group gets a row, also when the request is
    refused."""
    key = group_key(route.name, route.mode, labels)
    await store.load_group(conn, ledger.books, route, key, labels)
    decision = ledger.request(key, request)
    await store.save(conn, ledger.books)
    return decision


#: Either the stored answer to an earlier request with the same key, or the ledger of the pass, its decision, and the trigger
#: that it fired (None: refused).
_Answer = dict[str, Any] | tuple[Ledger, Decision, dict[str, Any] | None]


class Requests:
    """Every method raises Problem: 404 unknown, 409 wrong state, 422 wrong group."""

    def __init__(self, core: Core, aftermath: Aftermath) -> None:
        self._core = core
        self._engine, self._clock = core.engine, core.clock
        self._policy = core.policies.current
        self._aftermath = aftermath

    async def trigger(self, wanted: Wanted, caller: str, idempotency_key: str | None) -> dict[str, Any]:
        """Start one DAG run of a group, or fire its held trigger. Returns the trigger as the API shows it.

        Raises Problem 409 with `reason` and `until` when the policy refuses. The refusal is a decision, and is recorded.
        """
        route, labels = self._route_and_group(wanted.route, wanted.group)
        request = RunRequest(
            Reason.FORCED if wanted.force else Reason.MANUAL, wanted.by, wanted.why, wanted.conf, wanted.force
        )
        _check_conf(route, request)
        again = Repeatable.of(caller, idempotency_key, asdict(wanted)) if idempotency_key else None

        async def answer(conn: AsyncConnection) -> _Answer:
            return await self._request(conn, route, labels, request, caller, again)

        answered = await with_retries(self._engine, answer)
        if isinstance(answered, dict):
            return answered
        ledger, decision, shown = answered
        await self._aftermath.committed(ledger)
        extra = {"route": route.name, "group": labels, "caller": caller, "requested_by": request.by}
        trigger_id = str(decision.trigger_id) if decision.trigger_id else None
        log.info("a request was decided: %s", decision.reason, extra=extra | {"trigger_id": trigger_id})
        if shown is None:
            raise _refused(decision, group_key(route.name, route.mode, labels))
        return shown

    async def _request(
        self,
        conn: AsyncConnection,
        route: Route,
        labels: dict[str, str],
        request: RunRequest,
        caller: str,
        again: Repeatable | None,
    ) -> "_Answer":
        ledger = store.new_ledger(self._core, self._policy(), self._clock.now())
        if again is not None and (answer := await idempotency.take(conn, again, ledger.now)) is not None:
            return answer
        decision = await decide(conn, ledger, route, labels, request)
        details = {"group": labels, "reason": request.why, "requested_by": request.by, "decision": str(decision.reason)}
        await audit.write(conn, ledger.now, caller, "force" if request.force else "trigger", route.name, details)
        fired = decision.action is Action.FIRE and decision.trigger_id is not None
        shown = await history.get_trigger(conn, decision.trigger_id) if fired and decision.trigger_id else None
        if again is not None and shown is not None:
            await idempotency.keep(conn, again, shown)
        elif again is not None:
            await idempotency.forget(conn, again)
        return ledger, decision, shown

    def _route_and_group(self, name: str, labels: Mapping[str, str]) -> tuple[Route, dict[str, str]]:
        route = self._policy().route(name)
        if route is None:
            raise Problem(404, "not_found", f"The policy has no route named {name!r}.")
        if set(labels) != set(route.group_by):
            wanted = list(route.group_by)
            raise Problem(
                422,
                "wrong_group",
                f"The group of the route {name} has exactly these labels: {', '.join(wanted) or 'none'}.",
                page=page(route=name),
            )
        return route, {label: labels[label] for label in route.group_by}

    async def redrive(self, trigger_id: UUID, caller: str) -> None:
        """Set a dead trigger to pending again. Like a fire, it needs a group without an open trigger and a free place in the
        limit of its route."""
        now = self._clock.now()

        async def redrive(conn: AsyncConnection) -> Ledger:
            ledger = store.new_ledger(self._core, self._policy(), now)
            books = ledger.books
            books.fires = await self._fires(conn, trigger_id, books)
            trigger, group = await self._locked(conn, trigger_id)
            if trigger["state"] != TriggerState.DEAD:
                raise _conflict(f"only a dead trigger can be redriven; this one is {trigger['state']}", trigger)
            books.take_group(group)
            refused = ledger.redrive(group.key, trigger_id, trigger["on_failure"])
            if refused is not None:
                until = {"until": refused.until} if refused.until is not None else {}
                raise _conflict(refused.detail, trigger, reason=refused.reason, **until)
            await outbox.redrive(conn, trigger_id, now)
            values = {"state": "pending", "outcome": None, "ended_at": None, "detail": "redriven", "blocked": None}
            redriven = update(_triggers).where(_triggers.c.id == trigger_id).values(**values, fired_at=now)
            await conn.execute(redriven)
            await store.save(conn, books)
            await audit.write(conn, now, caller, "redrive", str(trigger_id), {})
            # Its row is written above, because what it starts was fixed at its first fire. This is for the aftermath only.
            reason, detail = Reason(trigger["reason"]), f"redriven by {caller}"
            books.triggers[trigger_id] = TriggerChange(
                trigger_id, group, TriggerState.PENDING, reason, False, [], detail
            )
            return ledger

        await self._aftermath.committed(await with_retries(self._engine, redrive))
        log.info("trigger redriven", extra={"trigger_id": str(trigger_id), "caller": caller})

    async def cancel(self, trigger_id: UUID, caller: str) -> None:
        """Cancel a held trigger, with a decision on each of its alerts. Once it has fired, only Airflow can stop the run."""

        async def cancel(conn: AsyncConnection) -> Ledger:
            ledger = store.new_ledger(self._core, self._policy(), self._clock.now())
            trigger, group = await self._locked(conn, trigger_id)
            await store.load_groups(conn, ledger.books, [group.key])
            if not ledger.cancel(group.key, trigger_id, caller):
                raise _conflict(f"only a held trigger can be cancelled; this one is {trigger['state']}", trigger)
            await store.save(conn, ledger.books)
            await audit.write(conn, ledger.now, caller, "cancel", str(trigger_id), {})
            return ledger

        await self._aftermath.committed(await with_retries(self._engine, cancel))

    async def reset(self, route_name: str, labels: Mapping[str, str], caller: str) -> Group:
        """Clear a group's cooldown and backoff. Its alerts that still fire are decided again at once."""
        route, ordered = self._route_and_group(route_name, labels)
        now = self._clock.now()
        key = group_key(route.name, route.mode, ordered)

        async def reset(conn: AsyncConnection) -> Ledger:
            group = await store.lock_group(conn, key)
            if group is None:
                raise Problem(404, "not_found", "no alert of this group has been seen yet: there is nothing to reset")
            facts.reset(group, now)
            await store.save_groups(conn, [group])
            await audit.write(conn, now, caller, "reset", f"route {route.name}", {"group": ordered})
            ledger = store.new_ledger(self._core, self._policy(), now)
            ledger.books.take_group(group)
            return ledger

        ledger = await with_retries(self._engine, reset)
        await self._aftermath.committed(ledger)
        return ledger.books.groups[key]

    async def _fires(self, conn: AsyncConnection, trigger_id: UUID, books: Books) -> dict[str, list[datetime]]:
        """The fires that count against the limit of a trigger's route. The route is locked, as routes come before groups."""
        statement = select(_triggers.c.route).where(_triggers.c.id == trigger_id)
        names = (await conn.execute(statement)).scalars().all()
        return await store.lock_routes(conn, books.policy, names, books.now)

    async def _locked(self, conn: AsyncConnection, trigger_id: UUID) -> tuple[RowMapping, Group]:
        """A trigger and its group, both locked, the group first."""
        key = (
            await conn.execute(select(_triggers.c.group_key).where(_triggers.c.id == trigger_id))
        ).scalar_one_or_none()
        group = await store.lock_group(conn, key) if key else None
        if group is None:
            raise Problem(404, "not_found", f"there is no trigger {trigger_id}")
        locked = select(_triggers).where(_triggers.c.id == trigger_id).with_for_update()
        trigger = (await conn.execute(locked)).mappings().one_or_none()
        if trigger is None:  # It was older than the retention, and was deleted a moment ago.
            raise Problem(404, "not_found", f"there is no trigger {trigger_id}")
        return trigger, group


def _check_conf(route: Route, request: RunRequest) -> None:
    if "gateway" in request.conf:
        raise Problem(422, "invalid", "The key `gateway` of `conf` belongs to the gateway.")
    size = conf_bytes({**route.dag.conf, **request.conf})
    if size > CONF_ROOM:
        raise Problem(
            422, "invalid", f"The conf of the DAG run would have {size} bytes; at most {CONF_ROOM} are allowed."
        )


def _refused(decision: Decision, key: str) -> Problem:
    """The refusal of the policy, with its reason as the code of the problem. `key`: of the group."""
    detail = decision.detail
    if decision.reason is Reason.INEFFECTIVE:  # Its detail begins with a number.
        detail = f"retraining does not help: {detail}"
    detail = f"{detail[:1].upper()}{detail[1:]}."
    reason = str(decision.reason)
    members: dict[str, Any] = {"reason": reason, "until": decision.until, "trigger_id": decision.trigger_id}
    return Problem(409, reason, detail, page=page("groups", key), **members)


def _conflict(detail: str, trigger: RowMapping, **members: Any) -> Problem:
    where = page("triggers", str(trigger["id"]))
    return Problem(409, "wrong_state", detail, page=where, state=trigger["state"], **members)
