"""The words of delivery: an item, the outcome of one attempt at it, and when to try again. Pure."""

import random
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

    `answered`: the target is well and answered, so this time counts against the deadline. `waits`: somebody must act
    outside of delivery first, and no deadline runs. `absent`: a read in this attempt showed that nothing has arrived.
    `ambiguous`: it may have arrived. `progress`: a part has arrived, so this attempt is the first of a new row of failed
    ones. `after`: seconds for which the target asks to be left alone. `pause`: seconds until this item is tried again; it
    says nothing of the target.
    """

    code: str
    detail: str
    answered: bool = True
    waits: bool = False
    absent: bool = False
    ambiguous: bool = False
    progress: bool = False
    after: float | None = None
    pause: float | None = None


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


class Breaker:
    """Leaves a target alone while it does not answer.

    It counts rounds, not items: a round of eight that fails at once is one failure. After a pause it lets one item
    through. Each answer lets one more through, so rounds of 1, 2, 4, ... do not overload a target that has just come back.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest  # seconds between two tries while it is open
        self._failures = 0
        self._open_until: datetime | None = None
        self._ramp: int | None = None  # None: closed, no bound

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    def allows(self, now: datetime, most: int) -> int:
        """How many items may be tried now, at most `most`."""
        if self._open_until is not None:
            return 0 if now < self._open_until else 1
        return most if self._ramp is None else min(self._ramp, most)

    def answered(self, answers: int, most: int) -> None:
        """The target answered so many items of a round: close, and let more through than before."""
        self._failures = 0
        if self._open_until is not None:
            self._open_until, self._ramp = None, 1
        if self._ramp is not None:
            self._ramp = None if self._ramp + answers >= most else self._ramp + answers

    def failed(self, now: datetime, after: float | None = None) -> None:
        """The target answered no item of a round, or asked to be left alone for `after` seconds."""
        self._failures += 1
        self._ramp = None
        pause = min(self._longest, 2.0 ** min(self._failures, 20))
        self._open_until = now + timedelta(seconds=max(pause, after or 0.0))
