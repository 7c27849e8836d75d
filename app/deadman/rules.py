"""The state of a switch, from its facts, what is expected of it, and `now`. Pure.

Deadlines are never stored: they follow from the facts and the policy in force, so a reload counts at once.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.policy.language.cron import Cron

#: How many open runs a switch keeps. The oldest is overdue first, so one more newer run changes nothing.
MOST_STARTS: Final = 100
#: A retrain is judged after a read of Airflow that was made after the deadline. This is how long the judgement waits for
#: such a read, beyond the time between two reads. It waits longer after our own outage: we do not know which runs ended
#: meanwhile, and Airflow may come up later than we do.
PATIENCE: Final = timedelta(seconds=30)
PATIENCE_AFTER_GAP: Final = timedelta(minutes=10)


class State(StrEnum):
    """Healthchecks' states. `new`: no good sign since it began to count. `grace`: due, and not yet down."""

    NEW = "new"
    UP = "up"
    GRACE = "grace"
    DOWN = "down"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Expectation:
    """How often a switch must get a good sign, and how long after that it goes down."""

    every: timedelta | Cron
    grace: timedelta


@dataclass(slots=True)
class Facts:
    """What is known of one switch.

    `counts_from`: when it was first loaded, or last resumed; earlier signs do not count. `last_at`: the newest good sign.
    `failed_at`: the first failure since. `starts`: when each open run began, by its run id ("" without one).
    `allowance`: our own outages since the last good sign.
    """

    counts_from: datetime
    last_at: datetime | None = None
    failed_at: datetime | None = None
    starts: dict[str, datetime] = field(default_factory=dict)
    allowance: timedelta = timedelta(0)
    paused: bool = False


def state_at(facts: Facts, expected: Expectation, now: datetime) -> State:
    """The state at `now`. At a deadline itself the later state holds: `grace` when due, `down` when the grace ends."""
    if facts.paused:
        return State.PAUSED
    if now >= down_at(facts, expected):
        return State.DOWN
    if now >= due_at(facts, expected):
        return State.GRACE
    return State.NEW if facts.last_at is None or facts.last_at < facts.counts_from else State.UP


def due_at(facts: Facts, expected: Expectation) -> datetime:
    """When the next good sign is due."""
    since, every = _counted_from(facts), expected.every
    return (every.after(since) if isinstance(every, Cron) else since + every) + facts.allowance


def down_at(facts: Facts, expected: Expectation) -> datetime:
    """When it goes down: at a failure, when an open run has lasted for the grace, or a grace after it was due.

    Without a grace a run has no limit of its own.
    """
    if facts.failed_at is not None:
        return facts.failed_at
    begun = list(facts.starts.values()) if expected.grace else []
    return min([due_at(facts, expected), *begun]) + expected.grace


def _counted_from(facts: Facts) -> datetime:
    return facts.counts_from if facts.last_at is None else max(facts.last_at, facts.counts_from)


def next_change(facts: Facts, expected: Expectation, now: datetime) -> datetime | None:
    """The next instant at which time alone changes the state; None: only a sign or a person changes it."""
    if facts.paused:
        return None
    coming = [at for at in (due_at(facts, expected), down_at(facts, expected)) if at > now]
    return min(coming) if coming else None


def succeed(facts: Facts, at: datetime, run: str | None = None) -> None:
    """A good sign. With a run id it ends that run; without one it ends all runs."""
    if facts.last_at is None or at > facts.last_at:
        facts.last_at, facts.allowance = at, timedelta(0)
    if facts.failed_at is not None and at >= facts.failed_at:
        facts.failed_at = None
    facts.starts = {key: began for key, began in facts.starts.items() if run is not None and key != run}


def start(facts: Facts, at: datetime, run: str | None = None) -> None:
    """A run began. A second start with the same id changes nothing."""
    key = run or ""
    if len(facts.starts) < MOST_STARTS:
        facts.starts.setdefault(key, at)


def fail(facts: Facts, at: datetime, run: str | None = None) -> None:
    """A failure was reported. The switch is down until the next good sign."""
    facts.failed_at = facts.failed_at or at
    facts.starts = {key: began for key, began in facts.starts.items() if run is not None and key != run}


def resume(facts: Facts, at: datetime) -> None:
    """The period starts again, as if the switch had just been loaded."""
    facts.counts_from, facts.paused, facts.failed_at = at, False, None
    facts.starts, facts.allowance = {}, timedelta(0)


def allow(facts: Facts, state: State, since: datetime, until: datetime) -> None:
    """Nobody watched from `since` to `until`, and no sign could arrive. So what was expected may come that much later.

    Call it once for each gap. A switch that was down stays down. A sign that is younger than `since` gets only the rest of
    the gap: it may have arrived just before our end.
    """
    if state in (State.DOWN, State.PAUSED):
        return
    facts.allowance += _rest(_counted_from(facts), since, until)
    facts.starts = {run: began + _rest(began, since, until) for run, began in facts.starts.items()}


def _rest(began: datetime, since: datetime, until: datetime) -> timedelta:
    return max(timedelta(0), until - max(since, began))


def may_judge(
    deadline: datetime, read_at: datetime | None, gap_until: datetime | None, now: datetime, interval: timedelta
) -> bool:
    """Whether a retrain that is overdue since `deadline` may go down.

    It may when Airflow, which is read every `interval`, was read after the deadline and after our newest outage. When
    Airflow does not answer for a while, the switch is judged without such a read.
    """
    after_gap = gap_until is not None and gap_until > deadline
    needed = gap_until if gap_until is not None and after_gap else deadline
    if read_at is not None and read_at >= needed:
        return True
    patience = interval + PATIENCE
    return now >= needed + (max(patience, PATIENCE_AFTER_GAP) if after_gap else patience)


def shown(before: str, after: State, *, judge: bool) -> State:
    """The state to show for the state `after` that follows from the facts.

    Without `judge` too little is known to let a switch go down: it stays in grace. A switch that is down already stays down.
    """
    return State.GRACE if after is State.DOWN and not judge and before != State.DOWN else after
