"""Plays a policy test: the pure replay over what it lists, and the differences from what it expects. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from app.decide.alert import Alert, fingerprint_of
from app.decide.rules import Pause
from app.decide.state import DEAD, FAILED, LIVE, SUCCESS, Confirmation, DecisionRow, Group, Reason, RunRequest
from app.policy.file.problems import Path
from app.policy.language.durations import format_duration
from app.policy.language.grammar import quote
from app.policy.schema import Policy
from app.replay.cases import AlertCase, AnswerCase, Case, DecisionCase, Expected, FireCase, RunCase, fitting
from app.replay.history import LiveRun
from app.replay.replay import Replay, Terms
from app.replay.runs import Run, Runs

#: Lines of a timeline that are shown: what matters is most often near the end.
MOST_LINES: Final = 60
_OUTCOMES: Final[Mapping[str, str | None]] = {"success": SUCCESS, "failed": FAILED, "dead": DEAD, "endless": None}


@dataclass(frozen=True)
class Played:
    """The result of a test: each difference with its place below the test, and what happened, line by line."""

    differences: Sequence[tuple[Path, str]]
    timeline: Sequence[str]


class ScriptedRuns(Runs):
    """DAG runs that go on as a test says."""

    def __init__(self, entries: Sequence[RunCase]) -> None:
        super().__init__(())
        self._entries = list(entries)

    def take(self, route: str, group: Mapping[str, str], fired_at: datetime, mode: str = LIVE) -> LiveRun | None:
        fit = [entry for entry in self._entries if _fits(entry.route, entry.group, route, group)]
        if not fit or mode != LIVE:
            return None
        if len(fit) > 1:
            self._entries.remove(fit[0])
        outcome = _OUTCOMES[fit[0].outcome]
        accepted = None if outcome == DEAD else fired_at
        ended = None if outcome is None else fired_at + fit[0].takes
        return LiveRun(route, group, fired_at, accepted, ended, outcome)


class ScriptedReplay(Replay):
    """A replay in which Prometheus answers as a test says. Without a word of the test it confirms."""

    def __init__(self, policy: Policy, case: Case) -> None:
        super().__init__(policy, case.start, Terms(runs=ScriptedRuns(case.runs)))
        self._script = sorted(case.prometheus, key=lambda entry: entry.at)

    def answer(self, group: Group) -> Confirmation:
        newest: AnswerCase | None = None
        for entry in self._script:
            if self.start + entry.at <= self.now and _fits(entry.route, entry.group, group.route, group.labels):
                newest = entry
        confirmed = newest is None or newest.confirms
        return Confirmation(
            confirmed, f"Prometheus {'confirms it' if confirmed else 'does not confirm it'}, by the test"
        )


def play(case: Case, policy: Policy) -> Played:
    """Play a test against a policy."""
    replay = ScriptedReplay(policy, case)
    differences: list[tuple[Path, str]] = []
    steps = [*_notifications(case, replay), *_pauses(case, replay), *_requests(case, replay, differences)]
    steps += _checks(case, replay, differences)
    for at, _, step in sorted(steps, key=lambda each: each[:2]):
        if at <= case.length:
            replay.run_to(case.start + at)
            step()
    replay.run_to(case.start + case.length)
    differences += _wrong_fires("fires", case, case.fires, [run for run in replay.runs if not run.rehearsed])
    differences += _wrong_fires("rehearsals", case, case.rehearsals, [run for run in replay.runs if run.rehearsed])
    return Played(differences, _timeline(case, replay))


#: What happens at a time, in the order in which things of one moment happen.
Step = tuple[timedelta, int, Callable[[], object]]
_FIRST, _THEN, _LAST = range(3)


def _notifications(case: Case, replay: Replay) -> Iterator[Step]:
    arriving: dict[timedelta, list[Alert]] = {}
    for alert in case.alerts:
        for span in alert.spans:
            at, end = span.begin, case.length if span.end is None else span.end
            while at < end or at == span.begin:
                arriving.setdefault(at, []).append(_alert(case, alert, span.begin, None))
                at += alert.repeat
            if span.end is not None:
                arriving.setdefault(span.end, []).append(_alert(case, alert, span.begin, span.end))
    for at, alerts in arriving.items():
        yield at, _THEN, partial(replay.take, alerts, case.start + at)


def _alert(case: Case, alert: AlertCase, begin: timedelta, end: timedelta | None) -> Alert:
    name, labels = alert.labels.get("alertname", ""), alert.labels
    return Alert(
        alert_id=name,
        fingerprint=fingerprint_of(name, labels),
        firing=end is None,
        severity=labels.get("severity", ""),
        starts_at=case.start + begin,
        ends_at=None if end is None else case.start + end,
        labels=labels,
        annotations={},
        source="alertmanager",
    )


def _pauses(case: Case, replay: Replay) -> Iterator[Step]:
    for entry in case.pauses:
        at = case.start + entry.at
        until = None if entry.until is None else case.start + entry.until
        pause = Pause(entry.route, until, "by the test", "the test", at)
        yield entry.at, _FIRST, partial(replay.pause, pause, at)


def _requests(case: Case, replay: Replay, differences: list[tuple[Path, str]]) -> Iterator[Step]:
    def ask(index: int) -> None:
        entry, policy = case.requests[index], replay.engine.policy
        route = policy.route(entry.route)
        if route is None:
            return
        group = {label: entry.group[label] for label in route.group_by}
        request = RunRequest(
            Reason.FORCED if entry.force else Reason.MANUAL, "the test", "by the test", {}, entry.force
        )
        decision = replay.request(route, group, request, case.start + entry.at)
        until = None if decision.until is None else decision.until - case.start
        wrong = _wrong(entry, str(decision.action), str(decision.reason), until)
        if wrong is not None:
            differences.append((("requests", index), f"{wrong} at {format_duration(entry.at)}"))

    for index, entry in enumerate(case.requests):
        yield entry.at, _THEN, partial(ask, index)


def _checks(case: Case, replay: Replay, differences: list[tuple[Path, str]]) -> Iterator[Step]:
    def compare(index: int) -> None:
        differences.extend(_wrong_decision(case, replay, index, case.decisions[index]))

    for index, check in enumerate(case.decisions):
        yield check.at, _LAST, partial(compare, index)


# -- what was expected ------------------------------------------------------------------------------------------------


def _wrong_decision(case: Case, replay: Replay, index: int, check: DecisionCase) -> Iterator[tuple[Path, str]]:
    [alert] = fitting(case, check.alert)
    fingerprint = fingerprint_of(alert.labels.get("alertname", ""), alert.labels)
    engine = replay.engine
    newest = next(
        (
            row
            for row in reversed(engine.decisions)
            if row.alert is not None and engine.episodes[row.alert].fingerprint == fingerprint
        ),
        None,
    )
    at = format_duration(check.at)
    if newest is None:
        yield ("decisions", index), f"expected {_expected(check)}, but nothing was decided about the alert up to {at}"
        return
    until = None if newest.until is None else newest.until - case.start
    wrong = _wrong(check, newest.action, newest.reason, until)
    if wrong is not None:
        yield ("decisions", index), f"{wrong} at {at}"


def _wrong(expected: Expected, action: str, reason: str, until: timedelta | None) -> str | None:
    """How a decision differs from what was expected; None: it does not."""
    wanted = ((expected.action, action), (expected.reason, reason), (expected.until, until))
    if all(want in (None, found) for want, found in wanted):
        return None
    return f"expected {_expected(expected)}, but it was {_decision(action, reason, until)}"


def _expected(expected: Expected) -> str:
    return _decision(expected.action or "", expected.reason or "", expected.until)


def _decision(action: str, reason: str, until: timedelta | None) -> str:
    words = " ".join(word for word in (action, reason) if word)
    return f"{words} until {format_duration(until)}".strip() if until is not None else words


def _wrong_fires(
    key: str, case: Case, expected: Sequence[FireCase] | None, fired: Sequence[Run]
) -> Iterator[tuple[Path, str]]:
    if expected is None:
        return
    left = list(fired)
    for index, want in enumerate(expected):
        found = next((run for run in left if _is_fire(want, run, case)), None)
        if found is None:
            more = (
                " for this route, group and reason"
                if any(run.fired_at == case.start + want.at for run in fired)
                else ""
            )
            yield (key, index), f"nothing {_FIRED[key]} at {format_duration(want.at)}{more}"
        else:
            left.remove(found)
    for run in left:
        at = format_duration(run.fired_at - case.start)
        yield (key,), f"{_run(run)} {_FIRED[key]} at {at} ({run.reason}), which is not expected"


_FIRED: Final[Mapping[str, str]] = {"fires": "fired", "rehearsals": "would have fired"}


def _is_fire(want: FireCase, run: Run, case: Case) -> bool:
    alike = run.fired_at == case.start + want.at and want.reason in (None, run.reason)
    return alike and _fits(want.route, want.group, run.route, run.group)


def _fits(
    wanted_route: str | None, wanted_group: Mapping[str, str] | None, route: str, group: Mapping[str, str]
) -> bool:
    return wanted_route in (None, route) and wanted_group in (None, dict(group))


# -- what happened ----------------------------------------------------------------------------------------------------


def _timeline(case: Case, replay: Replay) -> list[str]:
    """Everything that was decided and started, in the order of time."""
    entries = [(row.at, 0, _row(row, case, replay)) for row in replay.engine.decisions]
    for run in replay.runs:
        if run.rehearsed:
            entries.append((run.fired_at, 1, f"{_run(run)} would fire ({run.reason})"))
            continue
        entries.append((run.fired_at, 1, f"{_run(run)} fires ({run.reason})"))
        if run.lost_at is not None:
            entries.append((run.lost_at, 2, f"the run of {_run(run)} counts as lost"))
        if run.ended_at is not None:
            entries.append((run.ended_at, 2, f"the run of {_run(run)} ends: {run.outcome}"))
    ordered = sorted(entries, key=lambda each: each[:2])
    lines = [f"{format_duration(at - case.start):>10}  {text}" for at, _, text in ordered]
    return lines if len(lines) <= MOST_LINES else [f"({len(lines) - MOST_LINES} lines before)", *lines[-MOST_LINES:]]


def _row(row: DecisionRow, case: Case, replay: Replay) -> str:
    until = None if row.until is None else row.until - case.start
    subject = row.route or ""
    if row.alert is not None:
        subject = _name(replay.engine.episodes[row.alert].labels)
    return f"{subject}: {_decision(row.action, row.reason, until)} ({row.detail})"


def _name(labels: Mapping[str, str]) -> str:
    shown = ", ".join(f"{n}={quote(value)}" for n, value in labels.items() if n not in ("alertname", "severity"))
    return f"{labels.get('alertname', '')}{{{shown}}}" if shown else labels.get("alertname", "an alert")


def _run(run: Run) -> str:
    return f"{run.route} {{{', '.join(f'{name}={quote(value)}' for name, value in run.group.items())}}}"
