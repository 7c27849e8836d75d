"""Alerts become decisions: read memory, take the repeats from it, lock the rest, decide, commit, remember.

The flow of one batch, and the only place where an alert's transaction is opened.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.alerts.model import Alert, Bad
from app.clock import Clock
from app.db import DATA_ERRORS, TRY_AGAIN, one_statement, sqlstate, transaction
from app.errors import NotDurable
from app.metrics import Metrics
from app.policy.deadman import Instance, heard
from app.policy.schema import Policy, Route
from app.triggers import logs, quarantine, rules, store
from app.triggers.batcher import Job
from app.triggers.episodes import Move, Window, place
from app.triggers.ledger import Ledger
from app.triggers.memory import Memory
from app.triggers.placing import Intent, intend
from app.triggers.repeats import count_repeats
from app.triggers.state import Action, Episode, Group, Reason, Verdict

log = logging.getLogger(__name__)

_ATTEMPTS = 5


#: Whoever waits for heartbeats takes them in the batch's own transaction: (connection, what was heard of, now).
Heard = Callable[[AsyncConnection, Sequence[Instance], datetime], Awaitable[None]]


class _StaleMemory(Exception):
    """Redis was behind Postgres: the batch is decided again without it."""


@dataclass(frozen=True)
class Answer:
    """The decision on one alert, as the 202 tells it. Equal notifications of a batch share one."""

    alert: Alert
    route: str | None
    group: dict[str, str]
    verdict: Verdict

    @cached_property
    def json(self) -> bytes:
        """As a decision of the contract; encoded once for all that share it."""
        v = self.verdict
        told = {
            "alert_id": self.alert.alert_id,
            "fingerprint": self.alert.fingerprint,
            "status": "firing" if self.alert.firing else "resolved",
            "route": self.route,
            "group": self.group,
            "action": v.action,
            "reason": v.reason,
            "trigger_id": v.trigger_id,
            "until": v.until,
            "detail": v.detail,
        }
        return to_json(told)


@dataclass(slots=True)
class _Fold:
    """Equal notifications in a row: the first may change something, the others repeat it."""

    intent: Intent
    places: list[int]


class Intake:
    """`commit(jobs)` for the batcher. `fired()` is called after a commit that started a trigger, or left one that is due."""

    def __init__(
        self,
        engine: AsyncEngine,
        memory: Memory,
        policy: Callable[[], Policy],
        clock: Clock,
        metrics: Metrics,
        *,
        new_id: Callable[[], UUID],
        reorder: timedelta,
        fired: Callable[[], None],
        limits: quarantine.Limits,
        heard: Heard,
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._policy = policy
        self._clock = clock
        self._metrics = metrics
        self._new_id = new_id
        self._reorder = reorder
        self._fired = fired
        self._limits = limits
        self._heard = heard

    async def commit(self, jobs: list[Job]) -> list[list[Answer]]:
        """One list of answers a job, in body order, after everything in them is durable. Raises NotDurable."""
        alerts = [a for job in jobs for a in job.alerts]
        bad = [(job.source, b) for job in jobs for b in job.bad]
        answers = await self._decide(alerts, bad)
        self._metrics.batch_alerts.observe(len(alerts))
        cut, lists = 0, []
        for job in jobs:
            lists.append(answers[cut : cut + len(job.alerts)])
            cut += len(job.alerts)
        return lists

    async def _decide(self, alerts: Sequence[Alert], bad: list[tuple[str, Bad]]) -> list[Answer]:
        try:
            return await self._with_retries(alerts, bad)
        except DBAPIError as error:
            state = sqlstate(error) or ""
            if not state.startswith(DATA_ERRORS) or state in TRY_AGAIN:
                raise NotDurable("Postgres does not take the alerts") from error
            if len(alerts) + len(bad) <= 1:
                return await self._set_aside(alerts, str(error.orig)[:500])
        # Halve until the culprit stands alone: one alert that Postgres cannot store must not cost the others.
        if not alerts:
            half = len(bad) // 2
            return await self._decide([], bad[:half]) + await self._decide([], bad[half:])
        half = len(alerts) // 2
        first = await self._decide(alerts[:half], bad if not half else [])
        return first + await self._decide(alerts[half:], [] if not half else bad)

    async def _set_aside(self, alerts: Sequence[Alert], error: str) -> list[Answer]:
        if not alerts:
            log.error("what could not be read could not be kept either", extra={"error": error})
            return []
        alert = alerts[0]
        async with transaction(self._engine) as conn:
            body = repr(alert).encode("utf-8", "replace")
            culprit = Bad(0, alert.alert_id, error, body)
            await quarantine.keep(conn, [(alert.source, culprit)], self._clock.now(), self._limits)
        log.error("an alert that Postgres cannot store was quarantined", extra={"error": error})
        return [Answer(alert, None, {}, Verdict(Action.IGNORE, Reason.INVALID, detail="it cannot be stored"))]

    async def _with_retries(self, alerts: Sequence[Alert], bad: list[tuple[str, Bad]]) -> list[Answer]:
        moved: dict[str, Any] = {}
        use_memory = True
        for attempt in range(_ATTEMPTS):
            try:
                return await self._once(alerts, bad, moved, use_memory=use_memory)
            except _StaleMemory:
                use_memory = False
                self._metrics.memory_stale.inc()
            except store.MovedGroup as error:
                moved |= error.groups
            except DBAPIError as error:
                if sqlstate(error) not in TRY_AGAIN or attempt == _ATTEMPTS - 1:
                    raise
                self._metrics.batch_retries.inc()
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))
            except (OSError, PoolTimeout, TimeoutError) as error:
                raise NotDurable("Postgres does not answer") from error
        raise NotDurable("the alerts could not be written in five attempts")

    async def _once(
        self, alerts: Sequence[Alert], bad: list[tuple[str, Bad]], moved: dict[str, Any], *, use_memory: bool
    ) -> list[Answer]:
        now, policy = self._clock.now(), self._policy()
        folds, ledger = _fold(alerts, policy), Ledger(policy, now, self._reorder, self._new_id)
        answers: list[Answer | None] = [None] * len(alerts)
        repeats: dict[UUID, list[Any]] = {}
        groups: dict[str, Group] = {}
        rest = folds
        if use_memory and folds:
            rest = await self._from_memory(folds, ledger, answers, repeats, groups)
        beats = _heartbeats(folds, policy)
        only_repeats = not (rest or bad or beats)
        async with one_statement(self._engine) if only_repeats else transaction(self._engine) as conn:
            if rest:
                await store.load(conn, ledger, [f.intent for f in rest], moved)
                for fold in rest:
                    _observe(ledger, fold, answers)
                await store.save(conn, ledger)
            if repeats:
                counted = [(r[0], r[1], r[2]) for r in repeats.values()]
                if not await count_repeats(conn, counted, list(groups.values()), now):
                    raise _StaleMemory
            if bad:
                await quarantine.keep(conn, bad, now, self._limits)
            if beats:
                await self._heard(conn, beats, now)
        await self._after(ledger, answers)
        return [a for a in answers if a is not None]

    async def _from_memory(
        self,
        folds: list[_Fold],
        ledger: Ledger,
        answers: list[Answer | None],
        repeats: dict[UUID, list[Any]],
        groups: dict[str, Group],
    ) -> list[_Fold]:
        """Answer the folds whose decision stands unchanged; returns the others. A fingerprint that has one fold to be
        decided from Postgres goes there with all of them, so that their order is kept."""
        keys = list({f.intent.key for f in folds if f.intent.key is not None})
        prints = list({f.intent.alert.fingerprint for f in folds})
        known_groups, episodes = await self._memory.read(keys, prints)
        if not episodes:
            return folds
        verdicts = [_unchanged(f.intent, episodes, known_groups, ledger) for f in folds]
        changed = {f.intent.alert.fingerprint for f, v in zip(folds, verdicts, strict=True) if v is None}
        rest = []
        for fold, verdict in zip(folds, verdicts, strict=True):
            intent = fold.intent
            if verdict is None or intent.alert.fingerprint in changed:
                rest.append(fold)
                continue
            episode = episodes[intent.alert.fingerprint]
            entry = repeats.setdefault(episode.id, [episode.id, episode.decision_id, 0])
            entry[2] += len(fold.places)
            if intent.key is not None:
                groups[intent.key] = known_groups[intent.key]
            answer = Answer(intent.alert, episode.route, intent.labels, verdict)
            for at in fold.places:
                answers[at] = answer
        return rest

    async def _after(self, ledger: Ledger, answers: list[Answer | None]) -> None:
        self._metrics.decided((a.route, a.verdict.action, a.verdict.reason) for a in answers if a is not None)
        logs.decided(ledger)
        self._metrics.rehearsed(t.group.route for t in ledger.triggers.values() if t.rehearsed)
        due = any(g.wake_at is not None and g.wake_at <= ledger.now for g in ledger.groups.values())
        if due or any(t.state == "pending" for t in ledger.triggers.values()):
            self._fired()
        if ledger.groups or ledger.latest:
            versions = {key: group.version for key, group in ledger.groups.items()}
            episodes = [(e, versions.get(e.group_key or "", 0)) for e in ledger.latest.values()]
            await self._memory.remember(ledger.groups.values(), episodes)


def _fold(alerts: Sequence[Alert], policy: Policy) -> list[_Fold]:
    """Alerts in order; equal notifications of one fingerprint with nothing of it in between become one fold."""
    newest: dict[str, _Fold] = {}
    folds = []
    for at, alert in enumerate(alerts):
        fold = newest.get(alert.fingerprint)
        if fold is not None:
            first = fold.intent.alert
            if first is alert or (
                first.firing == alert.firing
                and first.starts_at == alert.starts_at
                and first.ends_at == alert.ends_at
                and first.severity == alert.severity
            ):
                fold.places.append(at)
                continue
        fold = newest[alert.fingerprint] = _Fold(intend(alert, policy), [at])
        folds.append(fold)
    return folds


def _heartbeats(folds: Sequence[_Fold], policy: Policy) -> list[Instance]:
    """The switches that firing alerts of the batch are heartbeats of, each once."""
    if not policy.heartbeats:
        return []
    firing = (fold.intent.alert for fold in folds if fold.intent.alert.firing)
    return list({beat.name: beat for alert in firing for beat in heard(policy.heartbeats, alert.labels)}.values())


def _observe(ledger: Ledger, fold: _Fold, answers: list[Answer | None]) -> None:
    """The first of a fold, then its repeats at once: they may have become duplicates of it."""
    for places in (fold.places[:1], fold.places[1:]):
        if not places:
            continue
        verdict, episode = ledger.observe(fold.intent, len(places))
        answer = Answer(fold.intent.alert, episode.route, episode.group_labels, verdict)
        for at in places:
            answers[at] = answer


def _unchanged(
    intent: Intent, episodes: dict[str, Episode], groups: dict[str, Group], ledger: Ledger
) -> Verdict | None:
    """The verdict on a repeat if nothing but its count changes, from memory alone; None: ask Postgres.

    What only Postgres knows (the fires of a limit, a pause) can make a verdict differ from the one before, and then Postgres
    is asked; it cannot make one the same that is not."""
    alert, route = intent.alert, intent.route
    episode = episodes.get(alert.fingerprint)
    if episode is None or episode.group_key != intent.key or alert.severity != episode.severity:
        return None
    if place(episode, alert, Window(ledger.reorder, _stale_after(route)), ledger.now) is not Move.REPEAT:
        return None
    if alert.starts_at < episode.starts_at:
        return None
    if route is None:
        verdict = Verdict(Action.IGNORE, Reason.NO_ROUTE, detail="no route of the policy matches its labels")
    else:
        group = groups.get(intent.key or "")
        if group is None:
            return None
        verdict = rules.decide(group, episode, route, ledger.now, ledger.way(route))
        if verdict.until is not None and (group.wake_at is None or group.wake_at > verdict.until):
            return (
                None  # The same word as before, and nobody would look at it when it ends: in the next night of a mute.
            )
    same = (verdict.action, verdict.reason, verdict.trigger_id) == (
        episode.action,
        episode.reason,
        episode.decided_trigger,
    )
    return verdict if same else None


def _stale_after(route: Route | None) -> timedelta | None:
    return route.stale_after if route else None
