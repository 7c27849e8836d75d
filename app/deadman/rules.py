"""Is somebody overdue? Pure: the facts of one switch, what is expected of it and one `now` in, its state out.

Deadlines are never stored: they follow from the facts by the policy in force, so that a reload counts at once.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.policy.language.cron import Cron

#: Open runs of a switch that are kept. The oldest is overdue first, so that a newer one more changes nothing.
MOST_STARTS: Final = 100
#: How long beyond the time between two looks at Airflow the judgement of a retrain waits for one made after its deadline.
#: Longer after an outage of our own: then nothing is known of what ended meanwhile, and what is down with us may come up
#: later than we do.
PATIENCE: Final = timedelta(seconds=30)
PATIENCE_AFTER_GAP: Final = timedelta(minutes=10)


class State(StrEnum):
    """`new`: nothing heard since it counts. `grace`: due, and not yet given up. Times in Healthchecks' words."""

    NEW = "new"
    UP = "up"
    GRACE = "grace"
    DOWN = "down"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Expectation:
    """How often a switch must be heard of, and how long after that it is given up."""

    every: timedelta | Cron
    grace: timedelta


@dataclass(slots=True)
class Facts:
    """What is known of one switch.

    `counts_from`: when it was first loaded, or last resumed: what was heard before counts for nothing. `last_at`: the
    newest good sign. `failed_at`: a failure said since. `starts`: runs under way by their run id ("" without one).
    `allowance`: our own outages since the last good sign.
    """

    counts_from: datetime
    last_at: datetime | None = None
    failed_at: datetime | None = None
    starts: dict[str, datetime] = field(default_factory=dict)
    allowance: timedelta = timedelta(0)
    paused: bool = False


def state_at(facts: Facts, expected: Expectation, now: datetime) -> State:
    """The state at `now`. A deadline belongs to what comes after it: due at its instant, down at the end of the grace."""
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
    """When it is given up: at a failure, when a run that began has not ended within the grace, else a grace after it was
    due. Without a grace a run has no limit of its own."""
    if facts.failed_at is not None:
        return facts.failed_at
    begun = list(facts.starts.values()) if expected.grace else []
    return min([due_at(facts, expected), *begun]) + expected.grace


def _counted_from(facts: Facts) -> datetime:
    return facts.counts_from if facts.last_at is None else max(facts.last_at, facts.counts_from)


def next_change(facts: Facts, expected: Expectation, now: datetime) -> datetime | None:
    """The next instant at which time alone changes the state; None: only a sign or a person does."""
    if facts.paused:
        return None
    coming = [at for at in (due_at(facts, expected), down_at(facts, expected)) if at > now]
    return min(coming) if coming else None


def succeed(facts: Facts, at: datetime, run: str | None = None) -> None:
    """A good sign. With a run id it ends that run, without one all of them."""
    if facts.last_at is None or at > facts.last_at:
        facts.last_at, facts.allowance = at, timedelta(0)
    if facts.failed_at is not None and at >= facts.failed_at:
        facts.failed_at = None
    facts.starts = {key: began for key, began in facts.starts.items() if run is not None and key != run}


def start(facts: Facts, at: datetime, run: str | None = None) -> None:
    """A run began. The same id again is the same run."""
    key = run or ""
    if len(facts.starts) < MOST_STARTS:
        facts.starts.setdefault(key, at)


def fail(facts: Facts, at: datetime, run: str | None = None) -> None:
    """A failure was said. It is down until the next good sign."""
    facts.failed_at = facts.failed_at or at
    facts.starts = {key: began for key, began in facts.starts.items() if run is not None and key != run}


def resume(facts: Facts, at: datetime) -> None:
    """It counts anew, like one just loaded."""
    facts.counts_from, facts.paused, facts.failed_at = at, False, None
    facts.starts, facts.allowance = {}, timedelta(0)


def allow(facts: Facts, state: State, since: datetime, until: datetime) -> None:
    """Nobody watched from `since` to `until`, and nothing could be heard: what was awaited then may come later by that.
    Called once a gap. What was down stays down. What was heard of in between gets the rest of the gap: we may have heard it
    just before our end."""
    if state in (State.DOWN, State.PAUSED):
        return
    facts.allowance += _rest(_counted_from(facts), since, until)
    facts.starts = {run: began + _rest(began, since, until) for run, began in facts.starts.items()}


def _rest(heard: datetime, since: datetime, until: datetime) -> timedelta:
    return max(timedelta(0), until - max(since, heard))


def may_judge(
    deadline: datetime, read_at: datetime | None, gap_until: datetime | None, now: datetime, interval: timedelta
) -> bool:
    """Whether a retrain that is overdue since `deadline` may be given up: Airflow, which is read every `interval`, was read
    after the deadline, and after the end of our newest outage. When it does not answer, what is known has to do after a
    while."""
    after_gap = gap_until is not None and gap_until > deadline
    needed = gap_until if gap_until is not None and after_gap else deadline
    if read_at is not None and read_at >= needed:
        return True
    patience = interval + PATIENCE
    return now >= needed + (max(patience, PATIENCE_AFTER_GAP) if after_gap else patience)


def shown(before: str, after: State, *, judge: bool) -> State:
    """The state that is made known of one that follows from the facts. Without `judge` too little is known to give a switch
    up: it is in grace still. One that is down already stays down, until it is heard of."""
    return State.GRACE if after is State.DOWN and not judge and before != State.DOWN else after
