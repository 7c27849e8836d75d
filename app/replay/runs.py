"""How a DAG run of a replay goes on: as the live one did, or as is assumed. Pure.

A run that live started too has its own way and end. Any other run begins at once, takes the median of its route's
successes, and succeeds.
"""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Final
from uuid import UUID

from app.decide.state import DEAD, LIVE, SUCCESS
from app.replay.history import LiveRun, Reloaded, in_force

#: How long a run takes when nothing says it.
ASSUMED_LENGTH: Final = timedelta(minutes=30)

#: A live run is the same as a run of the replay when both began within this time. A replay has the moments of a live
#: gateway to about a second, and those of repeats to the minute.
RESOLUTION: Final = timedelta(minutes=1)

GroupId = tuple[str, frozenset[tuple[str, str]]]


def group_id(route: str, group: Mapping[str, str]) -> GroupId:
    """A group by what it is, whatever its mode."""
    return route, frozenset(group.items())


@dataclass(slots=True)
class Run:
    """One fire of a replay, and the DAG run that followed. `behind` are the episodes that fired it. `rehearsed`: in shadow
    mode, so that nothing started."""

    trigger: UUID
    route: str
    group: Mapping[str, str]
    reason: str
    fired_at: datetime
    behind: tuple[UUID, ...]
    airflow: str = ""
    timeout: timedelta = timedelta(0)
    live: LiveRun | None = None
    rehearsed: bool = False
    accepted_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    lost_at: datetime | None = None

    @property
    def measured(self) -> bool:
        """Its way is known from the run that live started too."""
        return self.live is not None


class Runs:
    """What is known of live runs. Each belongs to one run of the replay at most."""

    def __init__(self, live: Iterable[LiveRun], length: timedelta | None = None) -> None:
        self._length = length
        self._live: defaultdict[tuple[GroupId, str], list[LiveRun]] = defaultdict(list)
        lengths: defaultdict[str, list[float]] = defaultdict(list)
        for run in sorted(live, key=lambda run: run.fired_at):
            self._live[group_id(run.route, run.group), run.mode].append(run)
            if run.mode == LIVE and run.outcome == SUCCESS and run.accepted_at is not None and run.ended_at is not None:
                lengths[run.route].append((run.ended_at - run.accepted_at).total_seconds())
        self._median = {route: timedelta(seconds=median(known)) for route, known in lengths.items()}
        whole = [seconds for known in lengths.values() for seconds in known]
        self._overall = timedelta(seconds=median(whole)) if whole else ASSUMED_LENGTH

    def take(self, route: str, group: Mapping[str, str], fired_at: datetime, mode: str = LIVE) -> LiveRun | None:
        """The live run that is this fire; None: live started none then."""
        known = self._live.get((group_id(route, group), mode))
        if not known:
            return None
        first = bisect_left(known, fired_at - RESOLUTION, key=lambda run: run.fired_at)
        end = bisect_right(known, fired_at + RESOLUTION, key=lambda run: run.fired_at)
        place = min(range(first, end), key=lambda at: abs(known[at].fired_at - fired_at), default=None)
        return known.pop(place) if place is not None else None

    def length(self, route: str) -> timedelta:
        """How long a run of a route is taken to last, when live started none. At least a second: time must pass."""
        assumed = self._length or self._median.get(route, self._overall)
        return max(assumed, timedelta(seconds=1))

    @property
    def is_given(self) -> bool:
        """The length is what a person wrote."""
        return self._length is not None

    @property
    def is_known(self) -> bool:
        """There are live successes to take a median of."""
        return bool(self._median)


def without_waits(runs: Sequence[LiveRun], known: Sequence[Reloaded]) -> list[LiveRun]:
    """The live runs as if each had begun when it was fired, where live waited for a place in its Airflow (`max_parallel`).
    Another policy has places of its own. Any other wait stays: Airflow was away, say. `known`: the policies in force."""
    places = [_place(run, known) for run in runs]
    if all(cap is None for _, cap in places):
        return list(runs)
    began: defaultdict[str, list[datetime]] = defaultdict(list)
    ended: defaultdict[str, list[datetime]] = defaultdict(list)
    for run, (airflow, _) in zip(runs, places, strict=True):
        if run.accepted_at is not None:
            insort(began[airflow], run.accepted_at)
            if run.ended_at is not None:
                insort(ended[airflow], run.ended_at)
    return [
        _at_once(run) if cap is not None and _waited(run, cap, began[airflow], ended[airflow]) else run
        for run, (airflow, cap) in zip(runs, places, strict=True)
    ]


def _place(run: LiveRun, known: Sequence[Reloaded]) -> tuple[str, int | None]:
    """The Airflow of a live run, and how many runs it took at once. None: as many as came, or nobody knows."""
    policy = in_force(known, run.fired_at) if known else None
    route = policy.route(run.route) if policy is not None else None
    airflow = policy.airflow_named(route.dag.airflow) if policy is not None and route is not None else None
    return (airflow.name, airflow.max_parallel) if airflow is not None else ("", None)


def _waited(run: LiveRun, cap: int, began: list[datetime], ended: list[datetime]) -> bool:
    """Whether no place was free, but for a minute at a time, from the fire of a run until Airflow took it."""
    if run.accepted_at is None or run.accepted_at - run.fired_at <= RESOLUTION:
        return False
    freed = ended[bisect_right(ended, run.fired_at) : bisect_left(ended, run.accepted_at)]
    looks = [look for at in (run.fired_at, *freed) if (look := at + RESOLUTION) < run.accepted_at]
    return all(bisect_right(began, look) - bisect_right(ended, look) >= cap for look in looks)


def _at_once(run: LiveRun) -> LiveRun:
    assert run.accepted_at is not None
    wait = run.accepted_at - run.fired_at
    ends = {
        name: at - wait for name in ("accepted_at", "ended_at", "lost_at") if (at := getattr(run, name)) is not None
    }
    return replace(run, **ends)


def ready_at(run: Run) -> datetime | None:
    """When Airflow takes the run, if it has room. None: never, because its delivery is dead, or the history ends before."""
    if run.live is None:
        return run.fired_at
    if run.live.accepted_at is None:
        return None
    return max(run.fired_at, run.live.accepted_at)


def end_of(run: Run, length: timedelta) -> tuple[datetime, str] | None:
    """When and how a run ends that Airflow has taken; None: it is open when the history ends."""
    assert run.accepted_at is not None
    if run.live is None:
        return run.accepted_at + length, SUCCESS
    if run.live.ended_at is None or run.live.outcome is None or run.live.accepted_at is None:
        return None
    return run.accepted_at + max(run.live.ended_at - run.live.accepted_at, timedelta(0)), run.live.outcome


def death_of(run: Run) -> datetime | None:
    """When the delivery of a run died that Airflow never took."""
    live = run.live
    if live is None or live.outcome != DEAD or live.ended_at is None:
        return None
    return run.fired_at + max(live.ended_at - live.fired_at, timedelta(0))


def loss_of(run: Run) -> datetime:
    """When a run that is still open counts as lost. Live notices it a little after the deadline."""
    assert run.accepted_at is not None
    due = run.accepted_at + run.timeout
    if run.live is not None and run.live.lost_at is not None and run.live.accepted_at is not None:
        return max(due, run.accepted_at + (run.live.lost_at - run.live.accepted_at))
    return due
