"""The probation of a promotion: for a time, an alert may speak against the version. Then the alias goes back.

    the promotion ends ------------------------ for ------------------------| passed
                          an alert begins ---- debounce ----| it still fires: rolled back, or receivers get a notice

`judge` is pure: the facts of one promotion, the terms of the policy and one `now` go in, one judgement comes out. It looks
at what was true at the boundaries, so a look after an outage comes to the same as a look in time. Only what was heard is
evidence. Each look judges anew from stored facts, so a worker that dies at any step leaves nothing that the next one must
know. The rollback is one of the gate: a row of the journal, then the registry, by compare-and-set.

Any number of replicas may run the loop: each takes what is due. No transaction is open while the registry is asked.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.effects.rules import Deaf, covering
from app.effects.store import deaf_times, note_outage
from app.kit.db import as_json, transaction, with_retries
from app.kit.errors import Problem
from app.kit.loop import each_alone
from app.kit.times import at, iso
from app.policy.core import Core
from app.policy.in_force import is_behind
from app.policy.language.durations import format_duration
from app.policy.promotions import Probation
from app.policy.schema import Policy
from app.promotion import store
from app.promotion.incidents import PromotionIncidents
from app.promotion.model import BY_PROBATION, Standing
from app.promotion.promote import Gate
from app.promotion.store import Promotion
from app.tables import QUIET_SINCE

log = logging.getLogger(__name__)

LOOK: Final = timedelta(seconds=15)
#: Longer than one rollback takes, with its reads.
LEASE: Final = timedelta(minutes=1)
MOST: Final = 5  # promotions of one step, all at the same time
#: How long an alert that fires already may take to arrive, after a time in which nobody could hear it.
BACK: Final = timedelta(hours=1)
#: After a rollback that did not come about, by how many there were. The last one holds for all that follow.
PAUSES: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 15))

# Containment finds the alerts by an index; the matchers choose among them. An earlier episode of an alert that never ended
# makes it unsure whether the alert began after the promotion.
_ALERTS = text(f"""
    SELECT a.id, a.alert_id, a.labels, a.route, a.first_seen_at, a.firing_since, a.last_seen_at, a.closed_at, EXISTS (
        SELECT FROM alerts b WHERE b.fingerprint = a.fingerprint AND b.first_seen_at <= :promoted
            AND b.resolved_at IS NULL AND b.last_seen_at >= :lately
    ) AS unsure
    FROM alerts a
    WHERE a.labels @> CAST(:labels AS jsonb) AND a.first_seen_at > :promoted AND a.first_seen_at < :until
        AND (a.closed_at IS NULL OR {QUIET_SINCE} >= :promoted)
    ORDER BY a.first_seen_at, a.id
""").columns(id=Uuid(), labels=JSONB())


@dataclass(frozen=True, slots=True)
class Against:
    """An alert that matches, by our clock. `since`: when it last began to fire. `heard`: its
    newest notification. `unsure`: it may have fired before the promotion, because nobody heard an earlier end of it."""

    id: UUID
    alert_id: str
    begin: datetime
    since: datetime
    heard: datetime
    closed: datetime | None
    debounce: timedelta
    stale_after: timedelta
    unsure: bool = False

    @property
    def due(self) -> datetime:
        """When it has lasted for `debounce`."""
        return self.since + self.debounce


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a promotion. `since`: its rollbacks, and the later promotions to its alias. `went_back`: an earlier
    probation took the alias from the same version."""

    promotion: Promotion
    promoted_at: datetime
    since: Sequence[Promotion] = ()
    went_back: bool = False
    alerts: Sequence[Against] = ()
    deaf: Sequence[Deaf] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a probation has come to, and when it is judged again (`next_at`; None: never). `rolls_back`: the alias must go
    back now. `is_left`: a replica with a newer policy judges."""

    standing: Standing
    detail: str
    until: datetime
    next_at: datetime | None = None
    alert: UUID | None = None
    rolls_back: bool = False
    is_left: bool = False


def judge(facts: Facts, terms: Probation | None, now: datetime, *, behind: bool = False) -> Judgement:
    """The probation of a promotion, as it stands at `now`. `terms` None: the policy in force has none. `behind`: another
    replica has a newer policy, which may have it."""
    row = facts.promotion
    until = facts.promoted_at + terms.for_ if terms is not None else now
    watching = Judgement(Standing.WATCHING, "", until, next_at=now + LOOK)
    moved = _moved(facts, until)
    if moved is not None:
        return moved
    if any(each.is_open for each in facts.since):
        return replace(watching, detail="the alias is being moved", alert=row.probation_alert)
    if terms is None and behind:
        return replace(watching, is_left=True)
    if terms is None:
        return Judgement(Standing.OVER, "the policy has no probation for it any more", until)
    alerts = [alert for alert in facts.alerts if facts.promoted_at < alert.begin < until]
    lasted = {alert.id: _lasted(alert, facts.deaf, now) for alert in alerts}
    failing = [alert for alert in alerts if lasted[alert.id]]
    if failing:
        first = min(failing, key=lambda alert: (_unsure(alert, facts), alert.due, alert.begin, alert.id))
        return _failed(facts, terms, first, watching, now)
    waiting = [alert for alert in alerts if lasted[alert.id] is None]
    if waiting:
        first = min(waiting, key=lambda alert: (alert.due, alert.begin, alert.id))
        detail = f"{_began(first, facts)}; it speaks against version {row.version} if it still fires at {at(first.due)}"
        soon = min([now + LOOK, *(alert.due for alert in waiting if alert.due > now)])
        return replace(watching, detail=detail, alert=first.id, next_at=soon)
    if now < until:
        return replace(
            watching, detail=f"no alert has spoken against version {row.version}", next_at=min(now + LOOK, until)
        )
    return Judgement(Standing.PASSED, f"no alert spoke against version {row.version}", until)


def _moved(facts: Facts, until: datetime) -> Judgement | None:
    """Whether the alias has moved since, or cannot go back: then nothing is left to watch."""
    row = facts.promotion
    back = next((each for each in facts.since if each.state == "rolled_back"), None)
    if back is not None and back.requested_by == BY_PROBATION:
        detail = f"{back.reason}; version {row.previous} holds {row.alias} again"
        return Judgement(Standing.ROLLED_BACK, detail, until, alert=row.probation_alert)
    if back is not None:
        return Judgement(Standing.OVER, f"{back.requested_by} rolled it back", until)
    later = next((each for each in facts.since if each.state == "promoted"), None)
    if later is not None:
        return Judgement(Standing.OVER, f"version {later.version} got {row.alias} after it", until)
    refused = [each for each in _tries(facts) if each.state == "blocked" or each.came_late]
    if not refused:
        return None
    newest = refused[-1]
    if not newest.came_late:
        detail = f"{newest.reason}; there is no way back: {newest.detail}"
        return Judgement(Standing.FAILED, detail, until, alert=row.probation_alert)
    if newest.state == "lost":  # Its change was under way, so no other change of the gate was.
        return Judgement(Standing.OVER, newest.detail, until)
    # Once may have been in the midst of a promotion that did not come about.
    return Judgement(Standing.OVER, f"{newest.detail}: somebody moved it", until) if len(refused) > 1 else None


def _tries(facts: Facts) -> list[Promotion]:
    """The rollbacks that this probation asked for, the oldest first."""
    return [each for each in facts.since if each.kind == "rollback" and each.requested_by == BY_PROBATION]


def _failed(facts: Facts, terms: Probation, alert: Against, watching: Judgement, now: datetime) -> Judgement:
    """The verdict on a version that an alert speaks against."""
    why = (
        f"{_began(alert, facts)}, and lasted {format_duration(alert.debounce)}"
        if alert.debounce
        else _began(alert, facts)
    )
    stays = _cannot_go_back(facts, alert) if terms.then == "rollback" else ""
    if terms.then == "tell" or stays:
        return Judgement(Standing.FAILED, f"{why}; {stays}" if stays else why, watching.until, alert=alert.id)
    tries = _tries(facts)
    if tries and tries[-1].ended_at is not None:
        again = tries[-1].ended_at + PAUSES[min(len(tries), len(PAUSES)) - 1]
        if now < again:
            detail = f"{why}; the alias could not be given back yet: {tries[-1].detail}"
            return replace(watching, detail=detail, alert=alert.id, next_at=again)
    return replace(watching, detail=why, alert=alert.id, rolls_back=True)


def _cannot_go_back(facts: Facts, alert: Against) -> str:
    """Why the alias does not go back by itself; "" when it does."""
    row = facts.promotion
    if row.previous is None:
        return f"there is no way back: no version held {row.alias} before"
    if facts.went_back:
        return f"version {row.version} was given back once already, and was promoted again"
    if _unsure(alert, facts):
        return "it may have fired before the promotion, when nobody could hear it"
    return ""


def _unsure(alert: Against, facts: Facts) -> bool:
    """Whether an alert may have begun before the promotion: nobody could hear it then, or heard its earlier end."""
    before = [deaf for deaf in facts.deaf if deaf.since <= facts.promoted_at]
    return alert.unsure or any(deaf.until is None or alert.begin <= deaf.until + BACK for deaf in before)


def _began(alert: Against, facts: Facts) -> str:
    after = timedelta(seconds=int((alert.begin - facts.promoted_at).total_seconds()))
    return f"{alert.alert_id} began {format_duration(after)} after the promotion"


def _lasted(alert: Against, deaf: Sequence[Deaf], now: datetime) -> bool | None:
    """Whether an alert fired for `debounce`. None: that is not known yet."""
    if alert.closed is not None and alert.closed <= alert.due:
        return False
    if alert.closed is None and alert.heard >= alert.due:
        return True
    if now < alert.due:
        return None
    if covering(deaf, alert.due) is not None:  # Its end may have been sent while nobody could hear it.
        return None if alert.closed is None and now <= alert.heard + alert.stale_after else False
    return alert.heard + alert.stale_after >= alert.due


class Probations:
    """`step()` judges the probations that are due, and gives an alias back when a version has failed."""

    def __init__(self, core: Core, gate: Gate, incidents: PromotionIncidents) -> None:
        self._core, self._engine, self._clock, self._metrics = core, core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._gate = gate
        self._incidents = incidents

    async def step(self) -> bool:
        """One round. True: more may be due. A probation that cannot be judged stops no other."""
        now = self._clock.now()

        async def begin(conn: AsyncConnection) -> list[Promotion]:
            # Before anything is judged, it must be known when nobody could hear an alert.
            heard = await note_outage(conn, now)
            return await store.on_probation(conn, now, now + LEASE, MOST) if heard else []

        due = await with_retries(self._engine, begin)

        async def look(row: Promotion) -> None:
            await self._look(row, now)

        problem = "the probation of a promotion cannot be judged"
        failed = await each_alone(due, look, _named, problem, at_once=MOST)
        if failed:
            self._metrics.items_failed.labels("probations").inc(len(failed))
            raise ExceptionGroup("probations that could not be judged", [error for _, error in failed])
        return bool(due)

    async def _look(self, row: Promotion, now: datetime) -> None:
        found = await self._judged(row, now)
        if found.is_left:
            return
        if found.rolls_back:
            if not await self._write(row, found, row.probation_at, now):
                return
            row = replace(row, probation_alert=found.alert)
            with suppress(Problem):  # Somebody was faster: the facts say who.
                await self._gate.roll_back(row.id, f"its probation failed: {found.detail}", BY_PROBATION)
            now = self._clock.now()
            found = await self._judged(row, now)
        await self._write(row, found, found.next_at, now)

    async def _judged(self, row: Promotion, now: datetime) -> Judgement:
        policy = self._policy()
        terms = policy.probation(row.registry, row.model, row.alias)
        async with transaction(self._engine) as conn:  # It only reads.
            behind = terms is None and await is_behind(conn, self._core, now)
            return judge(await _facts(conn, row, policy, terms, now), terms, now, behind=behind)

    async def _write(self, row: Promotion, found: Judgement, next_at: datetime | None, now: datetime) -> bool:
        """Keep a judgement. False: another look was faster."""
        shown = {"state": str(found.standing), "until": iso(found.until), "detail": found.detail[:1000]}
        kept: dict[str, Any] = {"probation": shown, "probation_alert": found.alert, "probation_at": next_at}

        async def write(conn: AsyncConnection) -> bool:
            if not await store.keep_probation(conn, row, **kept):
                return False
            if found.standing is not Standing.WATCHING:
                await self._incidents.end_probation(conn, replace(row, **kept), now)
            return True

        written = await with_retries(self._engine, write)
        if written and found.standing is not Standing.WATCHING:
            self._metrics.probations.labels(found.standing).inc()
            log.info("a probation ended: %s", found.standing, extra={**_named(row), "detail": found.detail})
        return written


async def _facts(
    conn: AsyncConnection, row: Promotion, policy: Policy, terms: Probation | None, now: datetime
) -> Facts:
    promoted_at = row.ended_at or row.created_at
    return Facts(
        promotion=row,
        promoted_at=promoted_at,
        since=await store.since(conn, row),
        went_back=await store.went_back(conn, row),
        alerts=await _alerts(conn, row, policy, terms, promoted_at) if terms is not None else (),
        deaf=await deaf_times(conn, [switch.name for switch in policy.heartbeats], promoted_at, now),
    )


async def _alerts(
    conn: AsyncConnection, row: Promotion, policy: Policy, terms: Probation, promoted_at: datetime
) -> list[Against]:
    """The alerts that may speak against the version, the oldest first."""
    labels = terms.labels(row.model, row.version)
    wanted = labels | {matcher.name: matcher.value for matcher in terms.match if matcher.op == "="}
    asked = {
        "labels": as_json({name: value for name, value in wanted.items() if value}),  # "" is a label that is missing.
        "promoted": promoted_at,
        "until": promoted_at + terms.for_,
        "lately": promoted_at - terms.for_,
    }
    found = (await conn.execute(_ALERTS, asked)).mappings()
    return [_against(alert, policy, terms) for alert in found if terms.takes(alert["labels"], labels)]


def _against(alert: Mapping[Any, Any], policy: Policy, terms: Probation) -> Against:
    route = policy.route(alert["route"]) if alert["route"] else None
    debounce = terms.debounce if terms.debounce is not None else route.debounce if route is not None else timedelta(0)
    return Against(
        id=alert["id"],
        alert_id=alert["alert_id"],
        begin=alert["first_seen_at"],
        since=alert["firing_since"],
        heard=alert["last_seen_at"],
        closed=alert["closed_at"],
        debounce=debounce,
        stale_after=route.stale_after if route is not None else timedelta(hours=6),
        unsure=alert["unsure"],
    )


def _named(row: Promotion) -> dict[str, str]:
    return {"promotion": str(row.id), "model": row.model}
