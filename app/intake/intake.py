"""Alerts become decisions: answer the repeats from memory, lock the rest, decide, commit, remember.

The flow of one batch, and the only place where an alert's transaction is opened.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.deadman.store import record_heartbeats
from app.decide.alert import Alert, Bad
from app.decide.batch import AlertDecision, Fold, Intents, fold
from app.decide.placing import GroupName
from app.decide.state import Action, Decision, Reason
from app.groups import store
from app.groups.aftermath import Aftermath
from app.groups.memory import Memory
from app.intake import quarantine
from app.intake.fast_path import FastPath
from app.intake.sources.read import storable
from app.intake.stages import Stages
from app.kit.clock import monotonic
from app.kit.db import (
    ATTEMPTS,
    CONNECTING,
    DATA_ERRORS,
    LOCK_TIMEOUT,
    OF_THE_DATABASE,
    TRY_AGAIN,
    again_after_races,
    sqlstate,
    transaction,
)
from app.kit.errors import OUT_OF_FILES, NotDurable
from app.kit.log import Seldom
from app.policy.core import Core
from app.policy.deadman import Instance
from app.policy.schema import Policy

log = logging.getLogger(__name__)

_QUIET = 60.0  # seconds between two tracebacks of the fast path: in a storm each batch would write one


@dataclass(slots=True, eq=False)
class Job:
    """One body, or a part of a large one: its alerts, its unreadable entries, the size of the body in bytes, and the future
    that its request waits for. `sent(i)` are the bytes of alert i as they came.

    `lane` names the sender. Its jobs keep their order, but parts of a `large` body wait beside its other jobs. `gone()`
    returns when the sender has gone away.
    """

    alerts: list[Alert]
    bad: list[Bad]
    source: str
    size: int
    sent: Callable[[int], bytes] = lambda _at: b""
    lane: str = ""
    gone: Callable[[], Coroutine[Any, Any, None]] | None = None
    done: "asyncio.Future[list[AlertDecision]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    arrived: float = field(default_factory=monotonic)
    large: bool = False
    # The batcher's own notes.
    due: float = field(default=0.0, init=False)  # by `monotonic`: then the request waits no longer
    queued: int = field(default=0, init=False)  # its weight in the queue: itself and each entry. 0: it has left
    in_doubt: bool = field(default=False, init=False)  # It is written, or may be.
    # Its request waits no longer. It wants to know when it turns out that nothing was written.
    lost: Callable[[], Coroutine[Any, Any, None]] | None = field(default=None, init=False)
    watch: "asyncio.Task[None] | None" = field(default=None, init=False)  # waits for `gone`


class Intake:
    """The batcher calls `commit(jobs)`, one batch after the other. The database connections of `core` are for intake only.
    `stages` says in which stage the batch under way is."""

    def __init__(self, core: Core, memory: Memory, aftermath: Aftermath, limits: quarantine.Limits) -> None:
        self._core = core
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self.stages = Stages(core.engine, core.metrics)
        self._fast_path = FastPath(core, memory, self.stages)
        self._aftermath = aftermath
        self._limits = limits
        self._may_log = Seldom(_QUIET)
        self._intents = Intents()  # of the batch under way

    async def commit(self, jobs: list[Job]) -> list[list[AlertDecision]]:
        """For each job the list of its answers, in the order of its body, when everything is durable. Raises NotDurable."""
        self._intents = Intents()
        alerts = [a for job in jobs for a in job.alerts]
        bad = [(job.source, b) for job in jobs for b in job.bad]
        answers = await self._answer(alerts, bad, jobs)
        self._metrics.batch_alerts.observe(len(alerts))
        cut, lists = 0, []
        for job in jobs:
            lists.append(answers[cut : cut + len(job.alerts)])
            cut += len(job.alerts)
        return lists

    async def _answer(
        self, alerts: Sequence[Alert], bad: list[tuple[str, Bad]], jobs: list[Job]
    ) -> list[AlertDecision]:
        try:
            answers = await self._repeated(alerts)
            rest = [at for at in range(len(alerts)) if at not in answers]
            if rest or bad:
                decided = await self._decide([alerts[at] for at in rest], bad, jobs)
                answers |= zip(rest, decided, strict=True)
        except (DBAPIError, *CONNECTING) as error:
            raise NotDurable("Postgres does not take the alerts") from error
        except (OSError, PoolTimeout, TimeoutError) as error:
            if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
                raise NotDurable("The gateway may open no more files") from error
            raise NotDurable("Postgres does not answer") from error
        return [answers[at] for at in range(len(alerts))]

    async def _repeated(self, alerts: Sequence[Alert]) -> dict[int, AlertDecision]:
        try:
            policy = self._policy()
            ledger = store.new_ledger(self._core, policy, self._clock.now())
            return await self._fast_path.answer(fold(alerts, policy, self._intents), ledger)
        except (NotDurable, *OF_THE_DATABASE):
            raise
        except Exception:  # Our bug. `_decide` needs no memory, and isolates the alert if the bug is in it too.
            self._metrics.fast_path_failures.labels("bug").inc()
            if self._may_log():
                log.exception("a bug: the fast path failed, Postgres decides the batch")
            return {}

    async def _decide(
        self, alerts: Sequence[Alert], bad: list[tuple[str, Bad]], jobs: list[Job]
    ) -> list[AlertDecision]:
        try:
            return await self._with_retries(alerts, bad)
        except DBAPIError as error:
            state = sqlstate(error) or ""
            if not state.startswith(DATA_ERRORS) or state in TRY_AGAIN:
                raise
            if len(alerts) + len(bad) <= 1:
                # The cause is the driver's own error; SQLAlchemy's repeats it behind the name of a class.
                words = getattr(error.orig, "__cause__", None) or error.orig
                return await self._set_aside(alerts, str(words), "it cannot be stored", jobs)
        except (NotDurable, *OF_THE_DATABASE):
            raise
        except Exception as error:
            if len(alerts) + len(bad) <= 1:
                log.exception("a bug: an alert cannot be decided")
                message = f"a bug of the gateway: {type(error).__name__}: {error}"
                return await self._set_aside(alerts, message, "it cannot be decided: a bug of the gateway", jobs)
        # Halve until the bad alert is alone: one alert that cannot be stored or decided must not fail the others.
        if not alerts:
            half = len(bad) // 2
            return await self._decide([], bad[:half], jobs) + await self._decide([], bad[half:], jobs)
        half = len(alerts) // 2
        first = await self._decide(alerts[:half], bad if not half else [], jobs)
        return first + await self._decide(alerts[half:], [] if not half else bad, jobs)

    async def _set_aside(
        self, alerts: Sequence[Alert], words: str, detail: str, jobs: list[Job]
    ) -> list[AlertDecision]:
        error = storable(words)[:500]
        if not alerts:
            log.error("an unreadable alert could not be kept in the quarantine", extra={"error": error})
            return []
        alert = alerts[0]
        self.stages.enter("pool")
        async with transaction(self._engine) as conn:
            self.stages.enter("statement", conn)
            culprit = Bad(0, alert.alert_id, error, _as_sent(alert, jobs))
            await quarantine.keep(conn, [(alert.source, culprit)], self._clock.now(), self._limits)
            self.stages.enter("commit", conn)
        self.stages.enter("decide")
        self._metrics.alerts_bad.labels(alert.source).inc()
        log.error("an alert was quarantined: %s", detail, extra={"error": error})
        return [AlertDecision(alert, None, {}, Decision(Action.IGNORE, Reason.INVALID, detail=detail))]

    async def _with_retries(self, alerts: Sequence[Alert], bad: list[tuple[str, Bad]]) -> list[AlertDecision]:
        """Raises NotDurable when each attempt finds episodes of yet other groups, which takes a new policy each time."""
        moved: dict[str, GroupName] = {}
        for attempt in range(ATTEMPTS):
            try:
                return await again_after_races(partial(self._once, alerts, bad, moved), self._lost)
            except store.MovedGroup as error:
                moved |= error.groups
            except TimeoutError:
                # One connection may hang while Postgres works. Before the commit nothing is written, and there is time for a
                # second attempt. During the commit the result is not known, so the sender has to repeat the alerts.
                if attempt or self.stages.current not in ("lock", "statement"):
                    raise
                self._metrics.batch_retries.inc()
        raise NotDurable(f"the alerts could not be written in {ATTEMPTS} attempts")

    def _lost(self, error: DBAPIError) -> None:
        self._metrics.batch_retries.inc()
        if sqlstate(error) == LOCK_TIMEOUT:
            self.stages.was_a_lock()

    async def _once(
        self, alerts: Sequence[Alert], bad: list[tuple[str, Bad]], moved: dict[str, GroupName]
    ) -> list[AlertDecision]:
        policy = self._policy()
        folds = fold(alerts, policy, self._intents)
        ledger = store.new_ledger(self._core, policy, self._clock.now())
        answers: dict[int, AlertDecision] = {}
        beats = _heartbeats(folds, policy)
        self.stages.enter("pool")
        async with transaction(self._engine) as conn:
            self.stages.enter("lock", conn)
            if folds:
                await store.load(conn, ledger.books, [f.intent for f in folds], moved)
                self.stages.enter("decide")
                answers = ledger.take(folds)
                self.stages.enter("statement", conn)
                await store.save(conn, ledger.books)
            if bad:
                await quarantine.keep(conn, bad, ledger.now, self._limits)
            if beats:
                entries = [switch.name for switch in ledger.policy.deadman]
                await record_heartbeats(conn, beats, entries, ledger.now)
            self.stages.enter("commit", conn)
        self.stages.enter("memory")
        await self._aftermath.committed(ledger)
        return [answers[at] for at in range(len(alerts))]


def _as_sent(alert: Alert, jobs: list[Job]) -> bytes:
    """The bytes that the alert came in. Equal alerts may be the same object; then it is those of the first."""
    found = (job.sent(at) for job in jobs for at, each in enumerate(job.alerts) if each is alert)
    return next(found, b"")


def _heartbeats(folds: Sequence[Fold], policy: Policy) -> list[Instance]:
    """The switches for which a firing alert of the batch is a heartbeat, each once."""
    if not policy.heartbeats:
        return []
    firing = (each.intent.alert for each in folds if each.intent.alert.firing)
    return list({beat.identity: beat for alert in firing for beat in policy.heartbeats_for(alert.labels)}.values())
