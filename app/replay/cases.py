"""A file of policy tests: what arrives over time, and what must come of it. `app.replay.play_case` plays them. Pure.

Times are durations since the `start` of a test. Errors have their line and column, as those of a policy file.
"""

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, ValidationError

from app.decide.alert import Labels
from app.decide.rules import EVERY_ROUTE
from app.decide.state import Action, Reason
from app.policy.file.document import Document, read_document
from app.policy.file.entries import problems_of
from app.policy.file.problems import Path, Problem
from app.policy.language.durations import parse_duration
from app.policy.language.variables import Unexpanded
from app.policy.schema import Policy
from app.policy.values import Duration, Frozen, PositiveDuration, Text

#: A Monday.
START: Final = datetime(2026, 1, 5, tzinfo=UTC)
LONGEST: Final = timedelta(days=400)
#: Notifications of a test, with repeats.
MOST_NOTIFICATIONS: Final = 100_000
#: The sections of a policy that decide. A variable in them must be known, except in a login.
_DECIDING: Final = ("routes", "defaults", "time_intervals", "schedules")
_LOGIN: Final = {"auth", "headers", "ca_file"}


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which an alert fires. `end` None: to the end of the test."""

    begin: timedelta
    end: timedelta | None


def _span(text: Any) -> Span:
    if isinstance(text, Span):
        return text
    begin, to, end = str(text).partition(" to ")
    span = Span(parse_duration(begin.strip()), parse_duration(end.strip()) if to else None)
    if span.end is not None and span.end <= span.begin:
        raise ValueError(f"{text!r} ends before it begins")
    return span


def _spans(value: Any) -> Any:
    listed = [value] if isinstance(value, str | int) else value
    if not isinstance(listed, list) or not listed:
        raise ValueError("must be a time such as 0m, 0m to 3h, or a list of them")
    spans = tuple(_span(text) for text in listed)
    for earlier, later in itertools.pairwise(spans):
        if earlier.end is None or later.begin < earlier.end:
            raise ValueError("a time must end before the next begins")
    return spans


def _start(value: Any) -> Any:
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not 1971 <= at.year < 2190:
        raise ValueError("must be a time such as 2026-01-05T00:00:00Z")
    return at.astimezone(UTC)


def _among(known: type[Action] | type[Reason]) -> AfterValidator:
    def judge(value: str) -> str:
        if value not in set(known):
            raise ValueError(f"must be {', '.join(known)}")
        return value

    return AfterValidator(judge)


ActionWord = Annotated[str, _among(Action)]
ReasonWord = Annotated[str, _among(Reason)]
Group = dict[Text, str]


class AlertCase(Frozen):
    """An alert over time. It arrives when it begins, at each repeat, and when it ends."""

    labels: Labels
    firing: Annotated[InstanceOf[tuple], BeforeValidator(_spans)]  # type: ignore[type-arg]
    repeat: PositiveDuration = timedelta(hours=4)  # Alertmanager's repeat_interval

    @property
    def spans(self) -> tuple[Span, ...]:
        return self.firing


class RunCase(Frozen):
    """How a DAG run goes on. Each run takes the next entry that fits it; the last that fits stays."""

    route: Text | None = None
    group: Group | None = None
    takes: PositiveDuration = timedelta(minutes=30)
    outcome: Literal["success", "failed", "dead", "endless"] = "success"


class AnswerCase(Frozen):
    """What Prometheus answers to `confirm` from a time on."""

    at: Duration
    confirms: bool
    route: Text | None = None
    group: Group | None = None


class PauseCase(Frozen):
    """A person pauses a route, or every route."""

    at: Duration
    until: Duration | None = None
    route: Text = EVERY_ROUTE


class Expected(Frozen):
    """What a decision must be. What is left out may be anything."""

    action: ActionWord | None = None
    reason: ReasonWord | None = None
    until: Duration | None = None


class RequestCase(Expected):
    """A person asks for a DAG run, and what the answer must be."""

    at: Duration
    route: Text
    group: Group = Field(default_factory=dict)
    force: bool = False


class DecisionCase(Expected):
    """The newest decision on an alert at a time. `alert` has labels of it, as many as tell it from the others."""

    at: Duration
    alert: Group = Field(default_factory=dict)


class FireCase(Frozen):
    """A DAG run that starts."""

    at: Duration
    route: Text | None = None
    group: Group | None = None
    reason: ReasonWord | None = None


def _many(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Case(Frozen):
    """One test. `fires` None: any number may fire. `rehearsals`: what routes in shadow mode would start."""

    name: Text
    start: Annotated[InstanceOf[datetime], BeforeValidator(_start)] = START
    end: PositiveDuration | None = None
    alerts: Annotated[tuple[AlertCase, ...], BeforeValidator(_many)] = ()
    runs: Annotated[tuple[RunCase, ...], BeforeValidator(_many)] = ()
    prometheus: Annotated[tuple[AnswerCase, ...], BeforeValidator(_many)] = ()
    pauses: Annotated[tuple[PauseCase, ...], BeforeValidator(_many)] = ()
    requests: Annotated[tuple[RequestCase, ...], BeforeValidator(_many)] = ()
    decisions: Annotated[tuple[DecisionCase, ...], BeforeValidator(_many)] = ()
    fires: Annotated[tuple[FireCase, ...], BeforeValidator(_many)] | None = None
    rehearsals: Annotated[tuple[FireCase, ...], BeforeValidator(_many)] | None = None

    @property
    def length(self) -> timedelta:
        """`end`, or the last time that the test names."""
        if self.end is not None:
            return self.end
        named = [entry.at for entry in self.prometheus]
        named += [pause.at for pause in self.pauses]
        named += [request.at for request in self.requests]
        named += [check.at for check in self.decisions]
        named += [fire.at for fire in (*(self.fires or ()), *(self.rehearsals or ()))]
        named += [time for alert in self.alerts for span in alert.spans for time in (span.begin, span.end) if time]
        return max(named, default=timedelta(0))


class CaseFile(Frozen):
    """`policy` is a path from the file on. `env` has the values of `${NAME}` in it."""

    policy: Text
    env: dict[Text, str] = Field(default_factory=dict)
    tests: Annotated[tuple[Case, ...], BeforeValidator(_many), Field(min_length=1)]


_LISTS: Final[Mapping[str, type[Frozen]]] = {
    "tests": Case,
    "alerts": AlertCase,
    "runs": RunCase,
    "prometheus": AnswerCase,
    "pauses": PauseCase,
    "requests": RequestCase,
    "decisions": DecisionCase,
    "fires": FireCase,
    "rehearsals": FireCase,
}


def read_cases(text: str, file: str) -> tuple[Document, CaseFile | None, list[Problem]]:
    """The tests of a file; None when there is a problem. Raises PolicyError for a file that is no YAML."""
    document = read_document(text, file, {}, require_env=True)
    problems = list(document.problems)
    try:
        cases = CaseFile.model_validate(document.value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        unknown = [_unknown_key(each["loc"], document) for each in found if each["type"] == "extra_forbidden"]
        others = [each for each in found if each["type"] != "extra_forbidden"]
        return document, None, [*problems, *unknown, *problems_of(others, document, ())]
    problems += [p for index, case in enumerate(cases.tests) for p in _problems_in(case, ("tests", index), document)]
    return document, None if problems else cases, problems


def unknown_variables(document: Document) -> Iterator[Problem]:
    """The variables of a policy whose values decide something and that nobody has given."""
    value = document.value if isinstance(document.value, dict) else {}
    for section in _DECIDING:
        for path, text in _texts(value.get(section), (section,)):
            if isinstance(text, Unexpanded) and not _LOGIN & set(path):
                sentence = f"a test needs the value of {text!r}: give it under `env` of the file of tests"
                yield document.problem(path, sentence)


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _texts(inner, (*path, key))


def _problems_in(case: Case, path: Path, document: Document) -> Iterator[Problem]:
    if case.length > LONGEST:
        yield document.problem((*path, "end"), "a test may last 400 days at most")
    notifications = sum(_times(span, alert.repeat, case.length) for alert in case.alerts for span in alert.spans)
    if notifications > MOST_NOTIFICATIONS:
        yield document.problem((*path, "alerts"), f"{notifications} notifications are too many: repeat them less often")
    for index, alert in enumerate(case.alerts):
        if any(alert.labels == other.labels for other in case.alerts[:index]):
            sentence = "another alert has the same labels; give that one several times in `firing`"
            yield document.problem((*path, "alerts", index, "labels"), sentence)
    for index, check in enumerate(case.decisions):
        found = len(fitting(case, check.alert))
        if found != 1:
            sentence = f"{found} alerts of the test have these labels; name the labels of exactly one"
            yield document.problem((*path, "decisions", index), sentence)
        if check.action is None and check.reason is None and check.until is None:
            yield document.problem((*path, "decisions", index), "expects nothing: give action, reason or until")


def problems_with(case: Case, path: Path, document: Document, policy: Policy) -> Iterator[Problem]:
    """What a test names and its policy lacks: routes, and labels of their groups."""
    named: dict[str, Sequence[RunCase | AnswerCase | RequestCase | PauseCase | FireCase]] = {
        "runs": case.runs,
        "prometheus": case.prometheus,
        "requests": case.requests,
        "pauses": case.pauses,
        "fires": case.fires or (),
        "rehearsals": case.rehearsals or (),
    }
    for key, entries in named.items():
        without = (None, EVERY_ROUTE) if key == "pauses" else (None,)
        for index, entry in enumerate(entries):
            at = (*path, key, index)
            route = policy.route(entry.route) if entry.route else None
            if entry.route not in without and route is None:
                there = ", ".join(route.name for route in policy.routes) or "none"
                yield document.problem((*at, "route"), f"the policy has no route {entry.route!r}; there is {there}")
            group: Mapping[str, str] | None = getattr(entry, "group", None)
            if route is not None and group is not None and set(group) != set(route.group_by):
                wanted = ", ".join(route.group_by) or "none: leave it out"
                yield document.problem(
                    (*at, "group"), f"must have exactly the labels of the route's group_by: {wanted}"
                )


def fitting(case: Case, labels: Mapping[str, str]) -> list[AlertCase]:
    """The alerts of a test that have all these labels."""
    return [alert for alert in case.alerts if labels.items() <= alert.labels.items()]


def _times(span: Span, repeat: timedelta, length: timedelta) -> int:
    end = length if span.end is None else min(span.end, length)
    return max((end - span.begin) // repeat, 0) + 2


def _unknown_key(path: Path, document: Document) -> Problem:
    lists = [part for part in path[:-1] if isinstance(part, str)]
    known = list((_LISTS[lists[-1]] if lists else CaseFile).model_fields)
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the keys here are {', '.join(known)}"
    return document.problem(path, f"unknown key; {hint}", key=True)
