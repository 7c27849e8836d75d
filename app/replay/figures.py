"""The figures of a replay: what was started, what was refused, and for how long nobody did anything. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from app.decide.drift import Firing, drifts
from app.decide.state import SUCCESS, Action, Episode, TriggerState
from app.replay.replay import Replay
from app.replay.runs import GroupId, Run, group_id

Span = tuple[datetime, datetime]
Key = tuple[str, datetime]  # of an episode: its fingerprint, and when it was first heard

#: The figures that are plain numbers, in the order in which a report shows them. `--fail-if` knows these names.
NUMBERS: Final = (
    "alerts",
    "episodes",
    "drift_episodes",
    "retrains",
    "run_hours",
    "run_hours_measured",
    "run_hours_estimated",
    "failed",
    "held",
    "called_off",
    "rehearsed",
    "missed_episodes",
    "undetected_hours",
    "longest_gap_hours",
    "not_evaluable",
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What counts: from `since` until `until`, and of these a route and labels of a group if they are named."""

    since: datetime
    until: datetime
    route: str | None = None
    group: Mapping[str, str] = field(default_factory=dict)

    def has(self, route: str | None, group: Mapping[str, str]) -> bool:
        """Whether a group counts."""
        if self.route is not None and route != self.route:
            return False
        return all(group.get(name) == value for name, value in self.group.items())


@dataclass(slots=True)
class Figures:
    """The figures of a route, or of all routes."""

    alerts: int = 0
    episodes: int = 0
    drift_episodes: int = 0
    retrains: int = 0
    run_hours_measured: float = 0.0
    run_hours_estimated: float = 0.0
    failed: int = 0
    held: int = 0
    called_off: int = 0
    rehearsed: int = 0
    missed_episodes: int = 0
    undetected_hours: float = 0.0
    longest_gap_hours: float = 0.0
    not_evaluable: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def run_hours(self) -> float:
        """Measured and estimated together."""
        return self.run_hours_measured + self.run_hours_estimated

    def as_json(self) -> dict[str, Any]:
        """By name, hours with three digits."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in numbers.items()}
        return {**shown, "refused": dict(sorted(self.refused.items()))}


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one episode: its route and group, from when to when it fired, the runs that it started, and the groups'
    runs that came while or after it."""

    key: Key
    name: str
    route: str | None
    group: Mapping[str, str]
    begin: datetime
    end: datetime
    is_over: bool
    fires: tuple[datetime, ...]
    reached: bool
    why: str

    @property
    def outcome(self) -> tuple[Any, ...]:
        """What makes two fates the same."""
        return self.fires if self.fires else (self.reached, self.route is None)


def fates(replay: Replay, scope: Scope) -> list[Fate]:
    """The fate of each episode that fired within the scope, oldest first."""
    behind: defaultdict[UUID, list[datetime]] = defaultdict(list)
    begun: dict[GroupId, datetime] = {}  # the newest run of a group
    for run in (run for run in replay.runs if not run.rehearsed):
        identity = group_id(run.route, run.group)
        begun[identity] = max(begun.get(identity, run.fired_at), run.fired_at)
        for episode_id in run.behind:
            behind[episode_id].append(run.fired_at)
    reasons = _last_reasons(replay)
    found = []
    for episode in replay.engine.episodes.values():
        begin, end = span_of(episode, replay, scope.until)
        if not _fired(episode) or end < scope.since or begin > scope.until:
            continue
        if not scope.has(episode.route, episode.group_labels or episode.labels):
            continue
        latest = begun.get(group_id(episode.route or "", episode.group_labels))
        found.append(
            Fate(
                key=(episode.fingerprint, episode.first_seen_at),
                name=episode.alert_id,
                route=episode.route,
                group=episode.group_labels,
                begin=begin,
                end=end,
                is_over=not episode.firing,
                fires=tuple(behind.get(episode.id, ())),
                reached=latest is not None and latest >= begin,
                why=reasons.get(episode.id, ""),
            )
        )
    return sorted(found, key=lambda fate: (fate.begin, fate.key))


def span_of(episode: Episode, replay: Replay, until: datetime) -> Span:
    """From when to when an episode fired, as the gateway heard it. Without an end it fires until it is stale."""
    if episode.closed_at is not None:
        return episode.first_seen_at, episode.closed_at
    route = replay.engine.policy.route(episode.route) if episode.route else None
    end = until if route is None else min(until, episode.last_seen_at + route.stale_after)
    return episode.first_seen_at, max(end, episode.first_seen_at)


class Sheet:
    """Figures by route, and of all under ""."""

    def __init__(self, routes: Iterable[str]) -> None:
        self.figures = {name: Figures() for name in ("", *routes)}

    def of(self, route: str | None) -> list[Figures]:
        """The figures that a fact of this route changes."""
        named = [self.figures.setdefault(route, Figures())] if route else []
        return [self.figures[""], *named]

    def add(self, route: str | None, name: str, by: float = 1) -> None:
        """Count a fact of a route."""
        for figures in self.of(route):
            setattr(figures, name, getattr(figures, name) + by)


def count(replay: Replay, scope: Scope, known: Sequence[Fate], missed: Mapping[Key, str | None]) -> dict[str, Figures]:
    """The figures of each route, and of all under "". `missed`: the episodes that count as missed, each with its route."""
    sheet = Sheet(route.name for route in replay.engine.policy.routes if scope.route in (None, route.name))
    _count_episodes(replay, scope, sheet)
    _count_drift(replay, scope, sheet)
    _count_runs(replay, scope, sheet)
    _count_refusals(replay, scope, sheet)
    for route in missed.values():
        sheet.add(route, "missed_episodes")
    for identity, hours in undetected(replay, scope, known).items():
        sheet.add(identity[0], "undetected_hours", hours)
    for identity, gap in gaps(replay, scope, known).items():
        for figures in sheet.of(identity[0]):
            figures.longest_gap_hours = max(figures.longest_gap_hours, gap)
    for unknown in replay.not_evaluable:
        if scope.since <= unknown.at <= scope.until and scope.has(unknown.route, unknown.group):
            sheet.add(unknown.route, "not_evaluable")
    return sheet.figures


def undetected(replay: Replay, scope: Scope, known: Sequence[Fate]) -> dict[GroupId, float]:
    """Hours by group in which one of its episodes fires, and no run of it is open or has begun since the episode began. An
    episode without a route is a group of its own."""
    runs: defaultdict[GroupId, list[Run]] = defaultdict(list)
    for run in replay.runs:
        if not run.rehearsed:
            runs[group_id(run.route, run.group)].append(run)
    spans: defaultdict[GroupId, list[Span]] = defaultdict(list)
    for fate in known:
        identity = group_id(fate.route or "", fate.group if fate.route else {"fingerprint": fate.key[0]})
        spans[identity] += _unseen(fate, runs.get(identity, []), scope)
    return {identity: _hours(_union(found)) for identity, found in spans.items()}


def _unseen(fate: Fate, runs: Sequence[Run], scope: Scope) -> list[Span]:
    """The parts of an episode in which nobody has done anything."""
    begin = fate.begin
    for run in runs:
        if run.fired_at < fate.begin:
            over = run.ended_at or scope.until
            if over > begin:
                begin = over  # A run was under way already when the episode began.
    answered = next((run.fired_at for run in runs if run.fired_at >= fate.begin), None)
    end = fate.end if answered is None else min(fate.end, answered)
    begin, end = max(begin, scope.since), min(end, scope.until)
    return [(begin, end)] if end > begin else []


def gaps(replay: Replay, scope: Scope, known: Sequence[Fate]) -> dict[GroupId, float]:
    """The longest time in hours, by group, in which no run of it began."""
    begun: defaultdict[GroupId, list[datetime]] = defaultdict(list)
    for fate in known:
        if fate.route is not None:
            begun[group_id(fate.route, fate.group)]
    for run in replay.runs:
        if not run.rehearsed and scope.has(run.route, run.group) and scope.since <= run.fired_at <= scope.until:
            begun[group_id(run.route, run.group)].append(run.fired_at)
    edges = {identity: [scope.since, *times, scope.until] for identity, times in begun.items()}
    return {name: max(_in_hours(later - earlier) for earlier, later in pairwise(at)) for name, at in edges.items()}


def _count_episodes(replay: Replay, scope: Scope, sheet: Sheet) -> None:
    for episode in replay.engine.episodes.values():
        begin, end = span_of(episode, replay, scope.until)
        counts = scope.has(episode.route, episode.group_labels or episode.labels)
        if counts and end >= scope.since and begin <= scope.until:
            sheet.add(episode.route, "alerts", episode.count)
            sheet.add(episode.route, "episodes", int(_fired(episode)))


def _count_drift(replay: Replay, scope: Scope, sheet: Sheet) -> None:
    """Alerts of a group that overlap, or follow within `watch`, are one drift episode."""
    groups: defaultdict[tuple[str, str], list[Firing]] = defaultdict(list)
    for episode in replay.engine.episodes.values():
        if episode.route and _fired(episode) and scope.has(episode.route, episode.group_labels):
            groups[episode.route, episode.group_key or ""].append(_firing(episode))
    for (name, _), firings in groups.items():
        route = replay.engine.policy.route(name)
        if route is not None:
            found = drifts(firings, route.effect.watch, route.stale_after, scope.until)
            within = [d for d in found if d.begin <= scope.until and (d.end is None or d.end >= scope.since)]
            sheet.add(name, "drift_episodes", len(within))


def _firing(episode: Episode) -> Firing:
    end = episode.closed_at if episode.resolved_at is not None else None
    times = (episode.first_seen_at, end, episode.last_seen_at, episode.closed_at)
    return Firing(episode.alert_id, *times, id=str(episode.id))


def _count_runs(replay: Replay, scope: Scope, sheet: Sheet) -> None:
    for run in replay.runs:
        if run.fired_at < scope.since or not scope.has(run.route, run.group):
            continue
        if run.rehearsed:
            sheet.add(run.route, "rehearsed")
            continue
        sheet.add(run.route, "retrains")
        sheet.add(run.route, "failed", int(run.outcome not in (None, SUCCESS) or run.lost_at is not None))
        if run.accepted_at is not None:
            length = replay.terms.runs.length(run.route)
            end = run.ended_at or (scope.until if run.measured else run.accepted_at + length)
            name = "run_hours_measured" if run.measured else "run_hours_estimated"
            sheet.add(run.route, name, _in_hours(max(end - run.accepted_at, timedelta(0))))


def _count_refusals(replay: Replay, scope: Scope, sheet: Sheet) -> None:
    groups = replay.engine.groups
    for row in replay.engine.decisions:
        group = groups.get(row.group_key or "")
        counts = row.at >= scope.since and scope.has(row.route, group.labels if group else {})
        if counts and row.action == Action.SUPPRESS:
            for figures in sheet.of(row.route):
                figures.refused[row.reason] += 1
    for trigger in replay.engine.triggers.values():
        if not scope.has(trigger.route, trigger.group) or trigger.created_at < scope.since:
            continue
        called_off = trigger.state is TriggerState.CANCELLED and trigger.fired_at is None
        held = called_off or trigger.state is TriggerState.HELD or _was_held(trigger.created_at, trigger.fired_at)
        sheet.add(trigger.route, "held", int(held))
        sheet.add(trigger.route, "called_off", int(called_off))


def _was_held(created_at: datetime, fired_at: datetime | None) -> bool:
    return fired_at is not None and fired_at > created_at


def _last_reasons(replay: Replay) -> dict[UUID, str]:
    """Why an episode started nothing, by its newest decision that says it."""
    found = {}
    for row in replay.engine.decisions:
        if row.alert is not None and row.action in (Action.SUPPRESS, Action.CANCEL, Action.IGNORE):
            ended = row.action == Action.IGNORE and row.reason == "resolved"
            if not ended and row.reason != "duplicate":
                found[row.alert] = row.reason
    return found


def _fired(episode: Episode) -> bool:
    """Whether the gateway heard that it fires: an episode may begin with its end."""
    return episode.closed_at is None or episode.closed_at > episode.first_seen_at


def _union(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


def _hours(spans: Sequence[Span]) -> float:
    return sum(_in_hours(end - begin) for begin, end in spans)


def _in_hours(duration: timedelta) -> float:
    return duration / timedelta(hours=1)
