"""One relay for every destination: claim items, deliver them with no transaction open, settle them.

A destination makes one attempt and classifies its outcome. Only the relay decides everything else: when to try again, how
long to leave a target alone, when to give up.
"""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.kit.clock import Clock
from app.kit.columns import storable
from app.kit.db import is_temporary, one_statement, transaction
from app.kit.errors import OutOfFiles
from app.kit.metrics import Metrics
from app.kit.outbox import store
from app.kit.outbox.model import LONGEST_HOLD, SOON, Breaker, Dead, Delivered, Item, Outcome, Retry, backoff, spent

log = logging.getLogger(__name__)


class Destination(ABC):
    """Where items of one kind go. A subclass makes one attempt, and writes what follows from it."""

    kind: ClassVar[str]
    #: What a delivered item started goes on and keeps its slot, until somebody calls `store.release_slot`.
    keeps_slot: ClassVar[bool] = False
    #: The members of a payload that every log line of an item shows.
    log_fields: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    async def deliver(self, item: Item) -> Outcome:
        """Make one attempt and classify it. Never loop: the relay tries again. No transaction is open."""

    async def answers(self, item: Item) -> bool | None:  # noqa: ARG002 (the interface)
        """Whether the target of an item answers a question that is not about this item. None: it cannot be asked. The relay
        asks after an attempt without an answer whose item may be the cause."""
        return None

    async def settled(  # noqa: B027 (most kinds have nothing to write)
        self, conn: AsyncConnection, item: Item, outcome: Outcome, now: datetime
    ) -> None:
        """Write what follows, in the transaction that settles the item. The relay has judged the deadline before."""

    async def after(self, item: Item, outcome: Outcome) -> None:  # noqa: B027 (as above)
        """Do what follows the commit: log lines, loops to wake."""


class _Unknown(Destination):
    """Puts off items of a kind that this version does not know. A newer version wrote them and will deliver them."""

    kind = "unknown"

    async def deliver(self, item: Item) -> Outcome:
        return Retry("unknown_kind", f"this version cannot deliver items of the kind {item.kind!r}", waits=True)


_UNKNOWN = _Unknown()


@dataclass(frozen=True, slots=True)
class Limits:
    """Times are in seconds. `cap(target)` is how many items of a target may hold a slot at once; None: any number.
    `turn` is how long a step waits for a slow target before it goes on with the others."""

    deadline: float
    attempt: float
    retry_max: float
    parallel: int
    cap: Callable[[str], int | None]
    turn: float = 0.5


@dataclass(frozen=True, slots=True)
class _Round:
    """A round of one target that has not ended yet, and when it began."""

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
        # From the generator of the process, so that a process with a seed is repeatable.
        self._chance = chance or random.Random(random.getrandbits(64))
        self._breakers: dict[str, Breaker] = {}
        self._rounds: dict[str, _Round] = {}

    async def step(self) -> bool:
        """Begin a round for every target that has something ready. True when there may be more.

        A target whose earlier round has not ended gets no new one: a slow target holds up only itself. All errors of the
        rounds that have ended are raised together.
        """
        now = self._clock.now()
        async with one_statement(self._engine) as conn:
            targets = await store.ready_targets(conn, now)
        begun = [target for target in targets if target not in self._rounds]
        for target in begun:
            task = asyncio.create_task(self._round(target, now), name=f"relay {target}")
            self._rounds[target] = _Round(task, now)
        try:
            await self._wait(begun, now)
        except asyncio.CancelledError:
            await self.stop()
            raise
        ended = [self._rounds.pop(target).task for target in list(self._rounds) if self._rounds[target].task.done()]
        errors = [error for task in ended if (error := task.exception()) is not None]
        if errors:
            raise BaseExceptionGroup("rounds of the relay failed", errors)
        return any(task.result() for task in ended) or bool(self._rounds)

    async def stop(self) -> None:
        """Give up what has not ended, and wait until it has let go of its connections: this process ends. When its leases
        have run out, another relay goes on."""
        tasks = [round_.task for round_ in self._rounds.values()]
        self._rounds.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, begun: list[str], now: datetime) -> None:
        """Wait for all rounds that this step began, or for any round if it began none; for one turn at most.

        A round that should have ended long ago is waited for without end. So /livez sees that the loop is stuck.
        """
        turn, longest = timedelta(seconds=self._limits.turn), timedelta(seconds=3 * self._limits.attempt)
        stuck = {round_.task for round_ in self._rounds.values() if now - round_.since > longest}
        if stuck:
            await asyncio.wait(stuck, return_when=asyncio.FIRST_COMPLETED)
            return
        waited = {self._rounds[target].task for target in begun or self._rounds}
        while waited:
            done, waited = await asyncio.wait(waited, timeout=0.05)
            if self._clock.now() - now >= turn or (done and not begun):
                return

    async def _round(self, target: str, now: datetime) -> bool:
        """One round of a target; it ends with its slowest item. False: nothing could be claimed."""
        breaker = self._breaker(target)
        most = breaker.allows(now, self._limits.parallel)
        new = not most and breaker.allows_new(now)
        if not most and not new:
            return False
        lease, cap = 2 * self._limits.attempt, self._limits.cap(target)
        async with transaction(self._engine) as conn:
            items = await store.claim(conn, target, now, most=most or 1, lease=lease, cap=cap, only_new=new)
        outcomes: dict[UUID, Outcome] = {}
        handled = await asyncio.gather(*(self._handle(item, outcomes) for item in items), return_exceptions=True)
        self._count(target, outcomes, new=new)
        errors = [error for error in handled if error is not None]
        if errors:
            raise BaseExceptionGroup(f"items of {target} could not be settled", errors)
        return bool(items)

    async def _handle(self, item: Item, outcomes: dict[UUID, Outcome]) -> None:
        """Make one attempt at an item, add its outcome to `outcomes`, and settle it."""
        destination = self._destinations.get(item.kind, _UNKNOWN)
        outcome: Outcome
        try:
            async with asyncio.timeout(self._limits.attempt) as limit:
                outcome = await destination.deliver(item)
        except OutOfFiles as error:  # Nothing is known of the target, and a request may have left before.
            outcome = Retry(error.code, error.detail, answered=False, own=True, ambiguous=True)
        except Exception as error:
            if limit.expired():
                outcome = _unclear("timeout", "the attempt took too long")
            elif is_temporary(error):  # A TimeoutError that is not ours belongs here too: Postgres hangs.
                # Our own Postgres failed. That says nothing of the target, and the item cannot be settled anyway. When the
                # lease has run out, a relay takes the item up as one whose attempt has an unknown end.
                log.warning("a delivery attempt is put off: Postgres does not answer", extra=_logged(item, destination))
                return
            else:
                log.exception("a delivery attempt broke", extra=_logged(item, destination))
                outcome = replace(_unclear("error", f"the attempt broke: {type(error).__name__}"), own=True)
        outcome = replace(outcome, detail=storable(outcome.detail))  # It may have another server's words.
        if isinstance(outcome, Retry) and outcome.suspect:
            there = await self._answers(item, destination)
            outcome = replace(outcome, answered=bool(there), suspect=there is None)
        outcomes[item.id] = outcome
        if isinstance(outcome, Retry) and self._is_to_blame(item.target, item.id, outcome):
            outcome = replace(outcome, answered=True)
        self._metrics.attempts.labels(item.target, type(outcome).__name__.lower(), outcome.code).inc()
        await self._settle(item, destination, outcome)

    async def _answers(self, item: Item, destination: Destination) -> bool | None:
        """Whether the target is there, although it did not answer this item. Ends within the lease of the item."""
        try:
            async with asyncio.timeout(self._limits.attempt / 2):
                return await destination.answers(item)
        except TimeoutError:
            return False
        except Exception:
            log.exception("a target could not be asked whether it is there", extra=_logged(item, destination))
            return False

    async def _settle(self, item: Item, destination: Destination, outcome: Outcome) -> None:
        now = self._clock.now()
        used = spent(item, outcome, now) if isinstance(outcome, Retry) else item.answered_seconds
        if isinstance(outcome, Retry) and outcome.absent and not outcome.waits and used > self._limits.deadline:
            outcome = Dead(outcome.code, f"given up after {used:.0f} s of answers: {outcome.detail}")
        async with transaction(self._engine) as conn:
            if not await store.settle(conn, item, **self._values(item, destination, outcome, used, now)):
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

    def _values(
        self, item: Item, destination: Destination, outcome: Outcome, used: float, now: datetime
    ) -> dict[str, object]:
        match outcome:
            case Delivered():
                kept = destination.keeps_slot
                return {"state": "delivered", "detail": outcome.detail, "ambiguous": False, "slot": kept}
            case Dead():
                return {"state": "dead", "detail": outcome.detail, "slot": False}
        attempts = 1 if outcome.progress else item.attempts + 1
        wait = backoff(attempts, self._limits.retry_max, self._chance)
        if outcome.after is not None:
            wait = timedelta(seconds=outcome.after)
        if outcome.pause is not None:
            wait = max(timedelta(seconds=outcome.pause), timedelta(seconds=outcome.after or 0.0))
        maybe_there = outcome.ambiguous or (item.ambiguous and not outcome.absent)
        slot = maybe_there and not outcome.absent and used <= LONGEST_HOLD
        if slot and outcome.answered and destination.keeps_slot:  # Others may wait for the slot.
            wait = min(wait, timedelta(seconds=SOON))
        return {
            "detail": outcome.detail,
            "available_at": now + wait,
            "attempts": attempts,
            "ambiguous": maybe_there,
            "slot": slot,
            "answered_at": now if outcome.answered and not outcome.waits else None,
            "answered_seconds": used,
        }

    def _count(self, target: str, outcomes: Mapping[UUID, Outcome], *, new: bool) -> None:
        """Count a round in the target's breaker. A target that answered any item is well."""
        breaker = self._breaker(target)
        outcomes = {item: it for item, it in outcomes.items() if not (isinstance(it, Retry) and it.own)}
        blamed = {item for item, outcome in outcomes.items() if self._is_to_blame(target, item, outcome)}
        silent = {
            item: outcome
            for item, outcome in outcomes.items()
            if isinstance(outcome, Retry) and not outcome.answered and item not in blamed
        }
        answered = outcomes.keys() - silent.keys() - blamed
        breaker.remember(answered, silent)
        if answered or (blamed and not silent):
            breaker.answered(len(answered) + len(blamed), self._limits.parallel)
        elif silent:
            breaker.failed(self._clock.now(), max(outcome.after or 0.0 for outcome in silent.values()), new=new)
        self._metrics.breaker_open.labels(target).set(breaker.is_open)

    def _is_to_blame(self, target: str, item: UUID, outcome: Outcome) -> bool:
        """Whether the item got no answer of a target that cannot be asked, but that answers all others."""
        return isinstance(outcome, Retry) and outcome.suspect and self._breaker(target).blames(item)

    def _breaker(self, target: str) -> Breaker:
        return self._breakers.setdefault(target, Breaker(self._limits.retry_max))


def _unclear(code: str, detail: str) -> Retry:
    """An attempt that ended in the middle."""
    return Retry(code, detail, answered=False, suspect=True, ambiguous=True)


def _logged(item: Item, destination: Destination) -> dict[str, Any]:
    """What every log line of an item shows, so that a search for its id finds it."""
    shown = {name: str(item.payload[name]) for name in destination.log_fields if name in item.payload}
    return {"item": str(item.id), "target": item.target} | shown
