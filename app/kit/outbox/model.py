"""The words of delivery: an item, the outcome of one attempt at it, and when to try again. Pure."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that must reach another server."""

    id: UUID
    kind: str
    target: str
    payload: dict[str, Any]
    created_at: datetime
    claim: UUID
    attempts: int  # failed attempts in a row before this one
    ambiguous: bool  # an earlier attempt may have arrived: read back before sending again
    answered_at: datetime | None
    answered_seconds: float


@dataclass(frozen=True, slots=True)
class Delivered:
    """It has arrived. `result` is for the destination's `settled` and `after`."""

    result: Any
    detail: str = "delivered"
    code: str = "ok"


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now; the relay tries again.

    `answered`: the target is well and answered, so this time counts against the deadline. `suspect`: it did not answer, but
    the request may have reached it, so the item may be the cause. `waits`: somebody must act outside of delivery first, and
    no deadline runs. `absent`: as far as this attempt could see, nothing has arrived, and nothing is under way. `ambiguous`:
    it may have arrived, so the next attempt must read first. `progress`: a part has arrived, so this attempt is the first of
    a new row of failed ones. `after`: seconds for which the target asks to be left alone. `pause`: seconds until this item
    is tried again; it says nothing of the target. `own`: the gateway itself failed, or did not ask,
    so the breaker does not count it.
    """

    code: str
    detail: str
    answered: bool = True
    suspect: bool = False
    waits: bool = False
    absent: bool = False
    ambiguous: bool = False
    progress: bool = False
    after: float | None = None
    pause: float | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """It will never arrive as it is. A person must look."""

    code: str
    detail: str


Outcome = Delivered | Retry | Dead


def new_item(
    ident: UUID, kind: str, target: str, payload: dict[str, Any], now: datetime, lane: str | None = None
) -> dict[str, Any]:
    """The row of an item to deliver from now on. In its lane it comes after the items before it."""
    return {
        "id": ident,
        "kind": kind,
        "target": target,
        "lane": lane,
        "payload": payload,
        "state": "pending",
        "detail": "",
        "created_at": now,
        "available_at": now,
        "slot": False,
        "ambiguous": False,
        "attempts": 0,
        "answered_seconds": 0.0,
    }


def backoff(attempts: int, longest: float, chance: random.Random) -> timedelta:
    """A random pause below a bound that doubles with each attempt in a row and is `longest` seconds at most."""
    return timedelta(seconds=chance.uniform(0.1, min(longest, 2.0 ** min(attempts, 20))))


#: So many seconds between two answers to one item count, at most, as time in which the target answered. During a longer
#: silence nobody asked: this process was down, or the breaker let other items try.
LONGEST_GAP = 120.0


def spent(item: Item, outcome: Retry, now: datetime) -> float:
    """The seconds of its deadline that an item has used. Only time between two answers in a row counts."""
    if not outcome.answered or outcome.waits or item.answered_at is None:
        return item.answered_seconds
    gap = max(0.0, (now - item.answered_at).total_seconds())
    return item.answered_seconds + min(gap, LONGEST_GAP)


#: Seconds of answers for which an unclear attempt keeps its slot. After that it holds up no other item.
LONGEST_HOLD = 120.0
#: An item that keeps a slot is read back so soon, in seconds, while the target answers.
SOON = 10.0


#: Suspects that a breaker remembers, the newest.
MOST_SUSPECTS = 1000


class Breaker:
    """Leaves a target alone while it does not answer.

    It counts rounds, not items: a round of eight that fails at once is one failure. After a pause it lets one item
    through. Each answer lets one more through, so rounds of 1, 2, 4, ... do not overload a target that has just come back.

    One item can be the cause of its own failure. So a new item may go in the pause of the others. And an item that got no
    answer while others did is a suspect: its next failures say nothing about the target.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest  # seconds between two tries while it is open
        self._failures = 0
        self._open_until: datetime | None = None
        self._new_from: datetime | None = None  # from then on an item that was never tried may go
        self._ramp: int | None = None  # None: closed, no bound
        self._unanswered: set[UUID] = set()  # items without an answer since the target answered anybody
        self._suspects: dict[UUID, None] = {}  # items without an answer before the target answered others; in order

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    def allows(self, now: datetime, most: int) -> int:
        """How many items may be tried now, at most `most`."""
        if self._open_until is not None:
            return 0 if now < self._open_until else 1
        return most if self._ramp is None else min(self._ramp, most)

    def allows_new(self, now: datetime) -> bool:
        """Whether an item that was never tried may be tried now, in the pause of the others."""
        return self._new_from is not None and now >= self._new_from

    def answered(self, answers: int, most: int) -> None:
        """The target answered so many items of a round: close, and let more through than before."""
        self._failures = 0
        if self._open_until is not None:
            self._open_until, self._new_from, self._ramp = None, None, 1
        if self._ramp is not None:
            self._ramp = None if self._ramp + answers >= most else self._ramp + answers

    def failed(self, now: datetime, after: float | None = None, *, new: bool = False) -> None:
        """The target answered no item of a round, or asked to be left alone for `after` seconds. new: the round was a new
        item in the pause of the others. That pause does not grow by it, or many new items would keep the others waiting."""
        self._new_from = now + timedelta(seconds=max(min(self._longest, 2.0), after or 0.0))
        if new:
            return
        self._failures += 1
        self._ramp = None
        pause = min(self._longest, 2.0 ** min(self._failures, 20))
        self._open_until = now + timedelta(seconds=max(pause, after or 0.0))

    def remember(self, answered: Collection[UUID], silent: Collection[UUID]) -> None:
        """Keep which items of a round were answered and which were not, to find the suspects."""
        for item in answered:
            self._suspects.pop(item, None)
        self._unanswered |= set(silent)
        if answered:
            self._suspects |= dict.fromkeys(self._unanswered)
            self._unanswered.clear()
        for item in list(self._suspects)[:-MOST_SUSPECTS]:
            del self._suspects[item]

    def blames(self, item: UUID) -> bool:
        """Whether the item itself is the likely cause of its failures: the target answered others since it failed first, and
        has answered everybody else since then."""
        return item in self._suspects and not self._unanswered
