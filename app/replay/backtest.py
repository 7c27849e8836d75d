"""A backtest: one history under two policies, and what differs. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from app.kit.errors import UsageError
from app.kit.garbage import uncollected
from app.kit.times import at
from app.policy.language.durations import format_duration
from app.policy.schema import Policy
from app.replay.asked import Naming, as_option
from app.replay.changed import Changed, changed
from app.replay.differences import Difference, between, differences
from app.replay.figures import Fate, Figures, Key, Scope, count, fates
from app.replay.history import Assumed, Event, History, LiveAnswer, Reloaded
from app.replay.replay import REORDER, Replay, Terms
from app.replay.runs import Run, Runs, group_id, without_waits

#: A silence this long, while an alert fires, is a hole: a monitor repeats what fires.
HOLE = timedelta(hours=6)

#: Shows how far a replay is: its name, and how many events of how many are done.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Question:
    """What a backtest is asked. `now`: what the candidate is compared with; None: with nothing. `live`: `now` is only the
    beginning, and policies of the history come into force over it. `naming`: how whoever asks names a parameter."""

    proposed: Policy
    now: Policy | None = None
    live: bool = False
    since: datetime | None = None
    until: datetime | None = None
    route: str | None = None
    group: Mapping[str, str] = field(default_factory=dict)
    length: timedelta | None = None
    reorder: timedelta = REORDER
    naming: Naming = as_option


@dataclass(frozen=True, slots=True)
class Assumption:
    """What the report takes for granted, and how many triggers of the candidate hang on it."""

    name: str
    text: str
    triggers: int


@dataclass(frozen=True, slots=True)
class Report:
    """The answer. Figures are by route; "" is all of them."""

    question: Question
    scope: Scope
    history: History
    now: dict[str, Figures] | None
    proposed: dict[str, Figures]
    assumptions: list[Assumption]
    differences: list[Difference]
    changed: list[Changed]
    holes: list[tuple[datetime, datetime]]
    replays: tuple[Replay | None, Replay]

    @property
    def routes(self) -> list[str]:
        """The routes of both policies."""
        return [name for name in {**(self.now or {}), **self.proposed} if name]

    @property
    def hole_sentences(self) -> list[str]:
        """Each hole in one sentence."""
        what, while_ = ("was heard", ", while an alert fired") if self.history.holes is None else ("is known", "")
        return [f"Nothing {what} from {at(begin)} to {at(end)}{while_}." for begin, end in self.holes]

    def as_json(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "coverage": self.coverage(),
            "assumptions": [{"name": a.name, "text": a.text, "triggers": a.triggers} for a in self.assumptions],
            "now": self.now[""].as_json() if self.now else None,
            "proposed": self.proposed[""].as_json(),
            "routes": {
                name: {"now": _of(self.now, name), "proposed": _of(self.proposed, name)} for name in self.routes
            },
            "changed": [each.as_json() for each in self.changed],
        }

    def coverage(self) -> dict[str, Any]:
        """What was looked at, and how well it is known."""
        history, asked = self.history, self.question
        return {
            "from": at(self.scope.since),
            "to": at(self.scope.until),
            "resolution": history.resolution,
            "lines": history.lines,
            "events": len(history.events),
            "live_runs": len(history.runs),
            "broken_lines": history.broken_count,
            "broken": [{"line": broken.line, "error": broken.error} for broken in history.broken],
            "holes": [{"from": at(begin), "to": at(end)} for begin, end in self.holes],
            "notes": list(history.notes),
            "policies": {"now": asked.now.hash if asked.now else None, "proposed": asked.proposed.hash},
            "differences": [difference.name for difference in self.differences],
        }


def backtest(history: History, question: Question, progress: Progress = lambda *_: None) -> Report:
    """Replay the history under both policies. Raises UsageError when there is nothing to replay."""
    scope = scope_of(history, question)

    def replay(policy: Policy, name: str, *, live: bool = False) -> Replay:
        return play(history, policy, question, scope, live=live, progress=lambda *done: progress(name, *done))

    proposed = replay(question.proposed, "proposed")
    now = replay(question.now, "now", live=question.live) if question.now is not None else None
    after = {fate.key: fate for fate in fates(proposed, scope)}
    before = {fate.key: fate for fate in fates(now, scope)} if now is not None else None
    differing = differences(question.now, question.proposed) if question.now is not None else []

    def trial(chosen: Sequence[Difference]) -> dict[Key, Fate]:
        assert question.now is not None
        tried = replay(between(question.now, question.proposed, chosen), ", ".join(key.name for key in chosen))
        return {fate.key: fate for fate in fates(tried, scope)}

    routed = {fate.key for known in (before or {}, after) for fate in known.values() if fate.route}
    after_known = [fate for fate in after.values() if fate.key in routed]
    before_known = [fate for fate in (before or {}).values() if fate.key in routed]
    reached = _reached(history, before)
    return Report(
        question=question,
        scope=scope,
        history=history,
        now=count(now, scope, before_known, _missed(before_known, reached)) if now is not None else None,
        proposed=count(proposed, scope, after_known, _missed(after_known, reached)),
        assumptions=_assumptions(history, proposed, scope, question.naming("run")),
        differences=differing,
        changed=changed(before, after, differing, trial) if before is not None else [],
        holes=_holes(history, proposed, scope),
        replays=(now, proposed),
    )


def play(
    history: History,
    policy: Policy,
    question: Question,
    scope: Scope,
    *,
    live: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Replay:
    """One policy over the history, from its beginning: what came before the window decides what cools down in it."""
    first = history.first_at
    assert first is not None
    runs = history.runs if live else without_waits(history.runs, history.policies)
    answers = history.answers if live else history.answers_to(policy)
    terms = Terms(question.reorder, Runs(runs, question.length), answers, history.ask)
    replay = Replay(policy, first, terms)
    events: Sequence[Event | LiveAnswer] = history.events
    if live:
        events = sorted([*history.events, *history.answers], key=lambda event: event.at)
    with uncollected():
        for number, event in enumerate(events):
            if event.at > scope.until:
                break
            replay.play(event, follow_policies=live)
            if number % 2000 == 0:
                progress(number, len(events))
        replay.run_to(scope.until)
        if question.until is None:
            replay.end_holds()
    progress(len(events), len(events))
    return replay


def scope_of(history: History, question: Question) -> Scope:
    """The window of a question, within what the history has. Raises UsageError when there is nothing in it."""
    events = [event for event in history.events if not isinstance(event, Reloaded)]
    if not events:
        raise UsageError(
            f"the history is empty: there is nothing to replay ({history.broken_count} things in it could not be read)"
        )
    first, last = history.covers or (events[0].at, events[-1].at)
    since, until = question.since or first, question.until or max(last, question.since or last)
    if since >= until and (question.since or question.until):
        raise UsageError(f"the window is empty: it begins at {at(since)} and ends at {at(until)}")
    if until < first or since > last:
        raise UsageError(
            f"the window from {at(since)} to {at(until)} lies outside of the history, which goes from {at(first)} to "
            f"{at(last)}: choose another {question.naming('since')} or {question.naming('until')}"
        )
    return Scope(max(since, first), until, question.route, question.group)


def _reached(history: History, before: Mapping[Key, Fate] | None) -> Callable[[Fate], bool]:
    """Whether a run came while or after an episode, live or by the policy that is compared with. Without either, every
    episode should have had one."""
    if before is not None:
        return lambda fate: fate.key in before and before[fate.key].reached
    if history.runs:
        latest = {group_id(run.route, run.group): run.fired_at for run in history.runs}
        return lambda fate: latest.get(group_id(fate.route or "", fate.group), fate.begin) > fate.begin
    return lambda _: True


def _missed(known: Sequence[Fate], reached: Callable[[Fate], bool]) -> dict[Key, str | None]:
    return {fate.key: fate.route for fate in known if not fate.reached and reached(fate)}


def _of(figures: dict[str, Figures] | None, name: str) -> dict[str, Any] | None:
    return figures[name].as_json() if figures and name in figures else None


def _assumptions(history: History, replay: Replay, scope: Scope, run: str) -> list[Assumption]:
    started = [run for run in replay.runs if not run.rehearsed]
    estimated = [run for run in started if not run.measured]
    runs = replay.terms.runs
    lengths = ", ".join(
        f"{name}: {format_duration(runs.length(name))}" for name in dict.fromkeys(r.route for r in estimated)
    )
    how = f"as {run} says" if runs.is_given else "the median of live successes"
    if not runs.is_given and not runs.is_known:
        how = f"nothing says how long they take: see {run}"
    after_end = sum(1 for run in started if run.fired_at > scope.until)
    unknown = [each for each in replay.not_evaluable if each.why == "confirm"]
    requests = len(replay.not_evaluable) - len(unknown)
    routes = [route for run in started if (route := replay.engine.policy.route(run.route)) is not None]
    asked = sum(1 for route in routes if route.confirm is not None and history.ask is not None)
    holding = sum(1 for route in routes if route.on_no_effect.then == "hold")
    found = [
        Assumption(
            "run_measured", "A run that live started too has its length and its end.", len(started) - len(estimated)
        ),
        Assumption(
            "run_estimated",
            f"Any other run begins at once and succeeds, after {lengths or '-'} ({how}).",
            len(estimated),
        ),
        Assumption("alerts_end", "An alert ends when it ended, whatever a run would have changed.", len(started)),
        Assumption("still_held", "What is held when the history ends fires on until its debounce is over.", after_end),
        Assumption(
            "confirm", "Nobody knows what Prometheus would have answered: `on_error` of the route counts.", len(unknown)
        ),
        Assumption(
            "confirm_then", "Prometheus answers `confirm` as of then with what it has now.", asked - len(unknown)
        ),
        Assumption(
            "no_effect", "Nobody knows whether a run helps: `on_no_effect: {then: hold}` holds no group.", holding
        ),
        Assumption("requests", "A person asked for something that this policy does not have.", requests),
    ]
    found += [Assumption(each.name, each.text, _hanging(each, started, replay)) for each in history.assumed]
    return [each for each in found if each.triggers or each.name in ("run_measured", "run_estimated", "alerts_end")]


def _hanging(assumed: Assumed, started: Sequence[Run], replay: Replay) -> int:
    """How many triggers have an alert behind them that hangs on this."""
    episodes = replay.engine.episodes
    behind = [[(episodes[id].fingerprint, episodes[id].starts_at) for id in run.behind] for run in started]
    return sum(1 for known in behind if known and (assumed.episodes is None or not assumed.episodes.isdisjoint(known)))


def _holes(history: History, replay: Replay, scope: Scope) -> list[tuple[datetime, datetime]]:
    """The stretches in which nothing was heard for long, although an alert fired; or those that the source knows."""
    if history.holes is not None:
        return [(a, b) for a, b in history.holes if b > scope.since and a < scope.until]
    times = [event.at for event in history.events if not isinstance(event, Reloaded)]
    silences = [
        (earlier, later)
        for earlier, later in pairwise(times)
        if later - earlier > HOLE and later > scope.since and earlier < scope.until
    ]
    if not silences:
        return []
    firing = [(e.first_seen_at, e.closed_at or scope.until) for e in replay.engine.episodes.values()]
    return [(a, b) for a, b in silences if any(begin <= a and end >= b for begin, end in firing)]
