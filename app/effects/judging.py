"""The loop that judges the effects of triggers. Any number of replicas may run it: each takes what is due.

The facts are read in one transaction, and each judgement is written in one of its own. Nothing is kept in this process, so
a restart loses nothing. A trigger is judged from the end of its DAG run on, every few minutes, until its effect is known.
"""

import logging
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.decide.drift import Firing
from app.decide.state import LIVE
from app.deliver.ending import TriggerIncidents, run_time
from app.effects import store, streak
from app.effects.rules import Deaf, Facts, Judgement, Made, Terms, Why, judge
from app.effects.store import LOOK, Known
from app.groups import store as groups
from app.kit.db import transaction, with_retries
from app.kit.loop import each_alone
from app.policy.core import Core
from app.policy.in_force import is_behind
from app.policy.schema import EffectTerms, Policy, Route

log = logging.getLogger(__name__)

MOST: Final = 50  # triggers that one step judges
_MOVED_EVERY: Final = timedelta(minutes=1)  # between two searches for late facts


class Judging:
    """`step()` judges the triggers that are due."""

    def __init__(self, core: Core, incidents: TriggerIncidents) -> None:
        self._core, self._incidents = core, incidents
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._moved_at: datetime | None = None

    async def step(self) -> bool:
        """One round. True: more may be due, or groups were reviewed. A trigger that cannot be judged stops no other."""
        now, policy = self._clock.now(), self._policy()
        late = self._moved_at is None or now - self._moved_at >= _MOVED_EVERY

        async def begin(conn: AsyncConnection) -> tuple[list[str], list[UUID], bool] | None:
            # Before anything is judged, it must be known when nobody could hear an alert.
            if not await store.note_outage(conn, now):
                return None
            if late:
                await store.move(conn, now)
            reviewed = await streak.keys(conn) if late else []
            return reviewed, await store.claim(conn, now, MOST), await is_behind(conn, self._core, now)

        begun = await with_retries(self._engine, begin)
        if begun is None:
            return False
        reviewed, due, behind = begun
        self._moved_at = now if late else self._moved_at

        async def review(key: str) -> None:
            await with_retries(self._engine, lambda conn: self._review(conn, key, now, behind=behind))

        await each_alone(reviewed, review, lambda key: {"group_key": key}, "a group cannot be reviewed")
        if not due:
            return bool(reviewed)
        async with transaction(self._engine) as conn:  # It only reads.
            known = await store.known(conn, due)
            surveyed_at = await store.surveyed_at(conn)
            since = min((k.trigger["fired_at"] or now for k in known), default=now)
            deaf = await store.deaf_times(conn, [switch.name for switch in policy.heartbeats], since, now)

        async def settle(each: Known) -> None:
            terms = terms_of(policy, policy.route(each.trigger["route"]))
            facts = facts_of(each, policy, surveyed_at, deaf)
            judgement = judge(facts, terms, now)
            if behind and judgement.why is Why.SWITCHED:
                return  # Its route may only be newer than the policy of this process. A replica that knows it judges.
            await self._write(each.trigger, judgement, policy, now, behind=behind)

        failed = await each_alone(known, settle, _named, "the effect of a trigger cannot be judged")
        if failed:
            self._metrics.items_failed.labels("effects").inc(len(failed))
            raise ExceptionGroup("effects that could not be judged", [error for _, error in failed])
        return bool(reviewed) or len(due) == MOST

    async def _review(self, conn: AsyncConnection, key: str, now: datetime, *, behind: bool) -> None:
        group = await groups.lock_group(conn, key)
        if group is not None and not (behind and streak.counts_otherwise(group, self._policy())):
            await streak.review(conn, group, self._policy(), self._incidents, now)

    async def _write(
        self, trigger: RowMapping, judgement: Judgement, policy: Policy, now: datetime, *, behind: bool
    ) -> None:
        """Keep a judgement that was made under a policy. `behind`: another replica has a newer one."""
        found = policy.route(trigger["route"])
        under = found.digest if found is not None else None

        async def write(conn: AsyncConnection) -> RowMapping | None:
            group = await groups.lock_group(conn, trigger["group_key"])  # Every flow locks the group first.
            row = await store.write(conn, trigger, judgement, next_look(judgement, trigger, now), under, now)
            moved = row is not None and row["before"] != judgement.effect
            if group is not None and moved and not (behind and streak.counts_otherwise(group, policy)):
                await streak.review(conn, group, policy, self._incidents, now)
            return row

        written = await with_retries(self._engine, write)
        effect = judgement.effect
        if written is None or effect is None or written["before"] == effect:
            return
        route, ran = trigger["route"], run_time(trigger)
        self._metrics.effects.labels(route, effect).inc()
        if not written["former"]:  # An effect that moves ran only once.
            self._metrics.run_seconds.labels(route, effect).inc(ran.total_seconds())
        extra = {"trigger_id": str(trigger["id"]), "route": route, "detail": judgement.detail}
        log.info("the effect of a trigger: %s", effect, extra=extra)


def next_look(judgement: Judgement, trigger: RowMapping, now: datetime) -> datetime | None:
    """When a trigger is judged again: soon, while its effect is not known. The end of its DAG run judges it anyway."""
    if judgement.effect is not None or trigger["ended_at"] is None:
        return None
    return min(now + LOOK, max(judgement.until, now)) if judgement.until is not None else now + LOOK


def terms_of(policy: Policy, route: Route | None) -> Terms:
    """What the policy in force says about the effects of a route. A route that is gone has the defaults."""
    terms = route.effect if route is not None else EffectTerms()
    stale_after = route.stale_after if route is not None else timedelta(hours=6)
    return Terms(terms.settle, terms.watch, stale_after, policy.lineage.grace)


def facts_of(known: Known, policy: Policy, surveyed_at: datetime | None, deaf: list[Deaf]) -> Facts:
    """The facts that the rules judge, under the policy in force."""
    trigger = known.trigger
    return Facts(
        outcome=trigger["outcome"] if trigger["ended_at"] is not None else None,
        ended_at=trigger["ended_at"],
        switched=_switched(trigger, policy),
        registers=_registers(trigger, policy),
        surveyed_at=surveyed_at,
        versions=tuple(Made(model, version, policy.gates(model)) for model, version in known.versions),
        promotions=known.promotions,
        alerts=tuple(firing for firing in known.alerts if _counts(firing, known, policy)),
        fires=known.fires,
        deaf=tuple(deaf),
    )


def _counts(firing: Firing, known: Known, policy: Policy) -> bool:
    """Whether an alert says something of a trigger: it was behind it, or it fired then or later. One that had gone silent
    before, and was not heard since, says nothing."""
    trigger = known.trigger
    stale_after = terms_of(policy, policy.route(trigger["route"])).stale_after
    return firing.id in known.behind or firing.heard + stale_after >= trigger["fired_at"]


def _switched(trigger: RowMapping, policy: Policy) -> str:
    route = policy.route(trigger["route"])
    if route is None:
        return f"its route {trigger['route']} left the policy, so nobody watches its alerts"
    if route.mode != LIVE:
        return f"its route {route.name} is in {route.mode} mode now"
    if set(route.group_by) != set(trigger["group_labels"]):
        return f"the groups of its route {route.name} have other labels now"
    return ""


def _registers(trigger: RowMapping, policy: Policy) -> bool:
    """Whether the DAG run must register a version in MLflow: there is one, its route reports there, and the registry of the
    gate is not another one. The gateway does not read versions from SageMaker."""
    elsewhere = bool(policy.promotions) and all(entry.registry != "mlflow" for entry in policy.promotions)
    return policy.mlflow is not None and policy.reports(trigger["route"]) and not elsewhere


def _named(known: Known) -> dict[str, UUID | str]:
    return {"trigger_id": str(known.trigger["id"])}
