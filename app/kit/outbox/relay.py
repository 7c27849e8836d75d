"""One relay for every destination: claim, deliver with no transaction open, settle.

A destination is an adapter that makes one attempt and says what came of it, and a settle function that writes the
consequences in the transaction that settles the item. Retrying, waiting, leaving a target alone and giving up are here,
and only here.
"""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.kit.clock import Clock
from app.kit.db import passes, transaction
from app.kit.metrics import Metrics
from app.kit.outbox import store
from app.kit.outbox.model import Breaker, Dead, Delivered, Item, Outcome, Retry, backoff, spent

log = logging.getLogger(__name__)


class Destination(ABC):
    """Where items of one kind go. A subclass makes one attempt, and writes what follows from it."""

    kind: ClassVar[str]
    log_fields: ClassVar[tuple[str, ...]] = ()  # the members of a payload that every log line of an item shows

    @abstractmethod
    async def deliver(self, item: Item) -> Outcome:
        """Make one attempt and classify it. Never loop: the relay tries again. No transaction is open."""

    async def settled(  # noqa: B027 (most kinds have nothing to write)
        self, conn: AsyncConnection, item: Item, outcome: Outcome, now: datetime
    ) -> None:
        """Write what follows, in the transaction that settles the item. The relay has judged the deadline before."""

    async def after(self, item: Item, outcome: Outcome) -> None:  # noqa: B027 (as above)
        """Do what follows the commit: log lines, loops to wake."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; `cap` tells how many items of a target may hold a slot at once (None: any number). A step leaves a target
    that takes longer than `turn` to itself and goes on with the others."""

    deadline: float
    attempt: float
    retry_max: float
    parallel: int
    cap: Callable[[str], int | None]
    turn: float = 0.5


@dataclass(frozen=True, slots=True)
class _Round:
    """One target's round under way, and since when."""

    task: asyncio.Task[bool]
    since: datetime


class Relay:
    """`step()` delivers one round of what is ready, each target's in a task of its own."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        destinations: Sequence[Destination],
        limits: Limits,
        metrics: Metrics,
        chance: random.Random | None = None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._destinations = {destination.kind: destination for destination in destinations}
        self._limits = limits
        self._metrics = metrics
        self._chance = chance or random.Random()
        self._breakers: dict[str, Breaker] = {}
        self._rounds: dict[str, _Round] = {}

    async def step(self) -> bool:
        """Claim what is ready, deliver it, settle it. True when there may be more. A target whose round of an earlier step
        is still under way is left out: a slow one holds up nobody but itself."""
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            targets = await store.ready_targets(conn, now)
        begun = [target for target in targets if target not in self._rounds]
        for target in begun:
            task = asyncio.create_task(self._round(target, now), name=f"relay {target}")
            self._rounds[target] = _Round(task, now)
        try:
            await self._wait(begun, now)
        except asyncio.CancelledError:
            self.stop()
            raise
        ended = [self._rounds.pop(target).task for target in list(self._rounds) if self._rounds[target].task.done()]
        for error in [task.exception() for task in ended]:
            if error is not None:
                raise error
        return any(task.result() for task in ended) or bool(self._rounds)

    def stop(self) -> None:
        """This process ends: give up what is under way. Its leases run out, and another relay goes on."""
        for round_ in self._rounds.values():
            round_.task.cancel()
        self._rounds.clear()

    async def _wait(self, begun: list[str], now: datetime) -> None:
        """Until what this step began has ended, or, when it began nothing, any round; for one turn at most. A round that
        should have ended long ago is waited for without end, so that /livez sees a loop that is stuck."""
        turn, overdue = timedelta(seconds=self._limits.turn), timedelta(seconds=3 * self._limits.attempt)
        waited = {self._rounds[target].task for target in begun or self._rounds}
        while waited:
            done, waited = await asyncio.wait(waited, timeout=0.05)
            is_stuck = any(now - round_.since > overdue for round_ in self._rounds.values())
            is_over = self._clock.now() - now >= turn and not is_stuck
            if is_over or (done and not begun):
                return

    async def _round(self, target: str, now: datetime) -> bool:
        """One round of a target. False: nothing could be claimed."""
        most = self._breaker(target).allows(now, self._limits.parallel)
        if not most:
            return False
        async with transaction(self._engine) as conn:
            items = await store.claim(
                conn, target, now, most=most, lease=2 * self._limits.attempt, cap=self._limits.cap(target)
            )
        await asyncio.gather(*(self._handle(item) for item in items))
        return bool(items)

    async def _handle(self, item: Item) -> None:
        destination = self._destinations[item.kind]
        outcome: Outcome
        try:
            async with asyncio.timeout(self._limits.attempt) as limit:
                outcome = await destination.deliver(item)
        except Exception as error:
            if limit.expired():
                outcome = Retry("timeout", "the attempt took too long", answered=False, ambiguous=True)
            elif passes(error):  # Also a TimeoutError of its own: a Postgres that hangs.
                # Our own Postgres says nothing of the target, and could not be told anyway. When the lease has run out, the
                # item is taken up as one whose attempt nobody knows the end of.
                log.warning("a delivery attempt is put off: Postgres does not answer", extra=_logged(item, destination))
                return
            else:
                log.exception("a delivery attempt broke", extra=_logged(item, destination))
                outcome = Retry("error", f"the attempt broke: {type(error).__name__}", answered=False, ambiguous=True)
        await self._settle(item, destination, outcome)

    async def _settle(self, item: Item, destination: Destination, outcome: Outcome) -> None:
        now = self._clock.now()
        self._count(item, outcome, now)
        used = spent(item, outcome, now) if isinstance(outcome, Retry) else item.answered_seconds
        if isinstance(outcome, Retry) and outcome.absent and not outcome.waits and used > self._limits.deadline:
            outcome = Dead(outcome.code, f"given up after {used:.0f} s of answers: {outcome.detail}")
        async with transaction(self._engine) as conn:
            if not await store.settle(conn, item, **self._values(item, outcome, used, now)):
                log.warning("a lease was lost; the result is dropped", extra=_logged(item, destination))
                return
            result = type(outcome).__name__.lower()
            new = await store.record_attempt(conn, item.id, result, outcome.code, outcome.detail, now)
            await destination.settled(conn, item, outcome, now)
        if new and not isinstance(outcome, Delivered):
            level = logging.ERROR if isinstance(outcome, Dead) else logging.WARNING
            extra = _logged(item, destination) | {"code": outcome.code, "detail": outcome.detail}
            log.log(level, "a delivery is dead" if level == logging.ERROR else "a delivery waits", extra=extra)
        await destination.after(item, outcome)

    def _values(self, item: Item, outcome: Outcome, used: float, now: datetime) -> dict[str, object]:
        match outcome:
            case Delivered():
                return {"state": "delivered", "detail": outcome.detail, "ambiguous": False}
            case Dead():
                return {"state": "dead", "detail": outcome.detail, "slot": False}
        wait = backoff(item.attempts + 1, self._limits.retry_max, self._chance)
        if outcome.after is not None:
            wait = timedelta(seconds=outcome.after)
        maybe_there = outcome.ambiguous or (item.ambiguous and not outcome.absent)
        return {
            "detail": outcome.detail,
            "available_at": now + wait,
            "ambiguous": maybe_there,
            "slot": maybe_there,
            "answered_at": now if outcome.answered and not outcome.waits else None,
            "answered_seconds": used,
        }

    def _count(self, item: Item, outcome: Outcome, now: datetime) -> None:
        breaker = self._breaker(item.target)
        if isinstance(outcome, Retry) and not outcome.answered:
            breaker.failed(now, outcome.after)
        else:
            breaker.answered(self._limits.parallel)
        self._metrics.breaker_open.labels(item.target).set(breaker.is_open)
        self._metrics.attempts.labels(item.target, type(outcome).__name__.lower(), outcome.code).inc()

    def _breaker(self, target: str) -> Breaker:
        return self._breakers.setdefault(target, Breaker(self._limits.retry_max))


def _logged(item: Item, destination: Destination) -> dict[str, Any]:
    """What every log line of an item shows, so that a search for its id finds it."""
    shown = {name: str(item.payload[name]) for name in destination.log_fields if name in item.payload}
    return {"item": str(item.id), "target": item.target} | shown
