"""`backtest --check`: the policies that were in force, replayed over what was recorded, fire exactly as live did. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from app.decide.state import LIVE, SHADOW
from app.kit.errors import UsageError
from app.kit.times import at
from app.kit.visible import visible
from app.replay.backtest import Progress, Question, play
from app.replay.figures import Scope
from app.replay.history import Asked, History, LiveRun, group_name
from app.replay.runs import RESOLUTION, Run, group_id


@dataclass(frozen=True, slots=True)
class Fire:
    """One fire, of live or of the replay."""

    at: datetime
    route: str
    mode: str
    group: Mapping[str, str]
    reason: str

    def __str__(self) -> str:
        shadow = " (shadow)" if self.mode == SHADOW else ""
        return f"{self.route} {group_name(self.group, self.route)}{shadow} {at(self.at)}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A fire of live and the same one of the replay. None: the other side did not fire then."""

    live: Fire | None
    replayed: Fire | None

    @property
    def is_alike(self) -> bool:
        """Both fired, for the same reason."""
        return self.live is not None and self.replayed is not None and self.live.reason == self.replayed.reason

    def __str__(self) -> str:
        if self.live is None:
            assert self.replayed is not None
            return f"{self.replayed}: only the replay fires ({self.replayed.reason})"
        if self.replayed is None:
            return f"{self.live}: only live fired ({self.live.reason})"
        return f"{self.live}: live fired with {self.live.reason}, the replay with {self.replayed.reason}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check."""

    since: datetime
    until: datetime
    pairs: list[Pair]

    @property
    def differences(self) -> list[Pair]:
        """The fires that are not alike."""
        return [pair for pair in self.pairs if not pair.is_alike]

    def as_text(self) -> str:
        """For people: one line, and one for each difference."""
        lines = [f"{len(self.pairs) - len(self.differences)} of {len(self.pairs)} alike"]
        lines += [f"  - {visible(str(pair))}" for pair in self.differences]
        return "\n".join([*lines, f"from {at(self.since)} to {at(self.until)}, to the minute"]) + "\n"

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "since": self.since,
            "until": self.until,
            "fires": len(self.pairs),
            "alike": len(self.pairs) - len(self.differences),
            "differences": [
                {"live": _shown(pair.live), "replayed": _shown(pair.replayed)} for pair in self.differences
            ],
        }


def check(
    history: History,
    since: datetime | None,
    until: datetime | None,
    reorder: timedelta,
    progress: Progress = lambda *_: None,
) -> Checked:
    """Replay what was recorded, and compare the fires from `since` to `until`. Raises UsageError when no policy is known."""
    if not history.policies:
        raise UsageError(
            "the history names no policy that was in force: --check needs the history of a gateway, from "
            "`trigger-gateway export`"
        )
    first = history.policies[0]
    if until is None:
        until = max([*(event.at for event in history.events), *(run.fired_at for run in history.runs)])
    known = _with_what_came_before(history, first.at)
    question = Question(first.policy, since=first.at, until=until, reorder=reorder)
    scope = Scope(first.at, until)
    replay = play(known, first.policy, question, scope, live=True, progress=lambda a, b: progress("replay", a, b))
    since = max(first.at, since or first.at)
    live = [_live(run) for run in history.runs]
    replayed = [_replayed(run) for run in replay.runs]
    return Checked(since, until, [pair for pair in _pairs(live, replayed) if since <= _time_of(pair) <= until])


def _with_what_came_before(history: History, begin: datetime) -> History:
    """A run from before the first known policy still cools its group down. Nobody knows why it fired: it is taken as asked
    for."""
    earlier = [
        Asked(run.fired_at, run.route, run.group, "live", "fired before the first known policy", force=True)
        for run in history.runs
        if run.fired_at < begin
    ]
    known = replace(history, events=[*earlier, *history.events])
    known.in_order()
    return known


def _pairs(live: list[Fire], replayed: list[Fire]) -> list[Pair]:
    """Each fire with the nearest of its group on the other side, within the resolution."""
    waiting: defaultdict[tuple[Any, str], list[Fire]] = defaultdict(list)
    for fire in replayed:
        waiting[group_id(fire.route, fire.group), fire.mode].append(fire)
    found = []
    for fire in live:
        others = waiting[group_id(fire.route, fire.group), fire.mode]
        near = [other for other in others if abs(other.at - fire.at) <= RESOLUTION]
        nearest = min(near, key=lambda other: abs(other.at - fire.at), default=None)
        if nearest is not None:
            others.remove(nearest)
        found.append(Pair(fire, nearest))
    found += [Pair(None, fire) for others in waiting.values() for fire in others]
    return sorted(found, key=_time_of)


def _time_of(pair: Pair) -> datetime:
    fire = pair.live or pair.replayed
    assert fire is not None
    return fire.at


def _live(run: LiveRun) -> Fire:
    return Fire(run.fired_at, run.route, run.mode, run.group, run.reason)


def _replayed(run: Run) -> Fire:
    return Fire(run.fired_at, run.route, SHADOW if run.rehearsed else LIVE, run.group, run.reason)


def _shown(fire: Fire | None) -> dict[str, Any] | None:
    if fire is None:
        return None
    names = ("at", "route", "mode", "group", "reason")
    return {name: getattr(fire, name) for name in names}
