"""A history out of Prometheus, before anything is installed: the series ALERTS, turned into what Alertmanager would have
posted.

Prometheus writes `ALERTS{alertstate="firing"}` at each evaluation of a rule. Where it has values, the alert fired. Where it
has `up` and no ALERTS, nothing fired. Where it has not even `up`, nobody knows: that is a hole.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from app.decide.alert import Alert
from app.kit.errors import UsageError
from app.kit.times import at
from app.policy.language.durations import format_duration
from app.replay.history import Assumed, Heard, History
from app.replay.prometheus.api import PrometheusApi, Window
from app.replay.prometheus.notify import NEVER, Labels, Notification, Pace, Span, notifications

FIRING: Final = 'ALERTS{alertstate="firing"}'
ALIVE: Final = "count(up)"
MOST_SPANS: Final = 500_000
MOST_NOTIFICATIONS: Final = 2_000_000

_OWN_LABELS: Final = frozenset({"__name__", "alertstate"})

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How an alert gets to the gateway: a route of Alertmanager, by its place in the file, and its pace."""

    name: str
    pace: Pace


@dataclass(frozen=True, slots=True)
class Routing:
    """Which ways an alert takes, and the sentence that says so."""

    ways: Callable[[Mapping[str, str]], Sequence[Way]]
    text: str


@dataclass(slots=True)
class Spans:
    """When each alert fired. Samples come in the order of time, chunk by chunk."""

    window: Window
    found: dict[Labels, list[list[float]]] = field(default_factory=dict)
    number: int = 0

    def add(self, times: Sequence[float], named: Mapping[str, str] = MappingProxyType({})) -> None:
        """Samples no more than a step apart are of one span. Raises UsageError when there are too many spans."""
        step = self.window.step.total_seconds() * 1.5  # Prometheus rounds times to the millisecond.
        labels = frozenset((name, value) for name, value in named.items() if name not in _OWN_LABELS)
        spans = self.found.setdefault(labels, [])
        for time in times:
            if spans and time - spans[-1][1] <= step:
                spans[-1][1] = max(time, spans[-1][1])
            else:
                spans.append([time, time])
                self.number += 1
        if self.number > MOST_SPANS:
            raise UsageError(f"Prometheus has more than {MOST_SPANS} alerts in this time: choose a later --since")

    def spans(self) -> dict[Labels, list[Span]]:
        """Each alert from its first sample until a step after its last. What still fires at the end has no end."""
        return {labels: [self._span(*span) for span in spans] for labels, spans in self.found.items()}

    def _span(self, first: float, last: float) -> Span:
        end = _time(last) + self.window.step
        return Span(_time(first), end if end <= self.window.until else None)


def read_history(
    api: PrometheusApi,
    window: Window,
    routing: Routing,
    wanted: Callable[[Mapping[str, str]], bool],
    progress: Progress = lambda *_: None,
    most: int = MOST_NOTIFICATIONS,
) -> History:
    """What Alertmanager would have posted to the gateway. Alerts that are not `wanted` are left out, and counted in a note.

    Raises UsageError when Prometheus has nothing of this time or when there are more than `most` notifications, and what
    `PrometheusApi.series` raises."""
    alive = Spans(window)
    for samples in api.series(ALIVE, window, lambda *done: progress("asking when Prometheus ran", *done)):
        alive.add(samples.times)
    external, notes = _external(api)
    firing = Spans(window)
    for samples in api.series(FIRING, window, lambda *done: progress("asking for alerts", *done)):
        firing.add(samples.times, external | samples.labels)
    fired = firing.spans()
    known = [span for spans in alive.spans().values() for span in spans]
    if not known and not fired:
        raise UsageError(
            f"Prometheus at {api.url} has nothing from {at(window.since)} to {at(window.until)}: choose a later --since, or "
            "another --until"
        )
    ours = {labels: spans for labels, spans in fired.items() if wanted(dict(labels))}
    if not ours:
        raise UsageError(
            f"the history is empty: Prometheus at {api.url} has no alert from {at(window.since)} to {at(window.until)} that "
            f"a route takes ({len(fired)} that no route takes)"
        )
    if len(ours) < len(fired):
        notes.append(f"{len(fired) - len(ours)} series of ALERTS are left out: no route takes them.")
    if not known:
        notes.append("Prometheus has no series up. A hole is where no alert fires, and one fires before and after it.")
    history = History(resolution=f"{format_duration(window.step)}, the step of the queries")
    history.covers = _covers(known or [span for spans in fired.values() for span in spans], window)
    history.holes = _holes(known) if known else _silences(fired)
    history.events += _heard(fired, ours, routing, window.until, most)
    history.in_order()
    history.lines = len(history.events)
    history.notes = [*notes, *(f"Prometheus warns: {words}" for words in api.warnings)]
    history.assumed = _assumed(ours, history.holes, window, routing)
    return history


def _external(api: PrometheusApi) -> tuple[dict[str, str], list[str]]:
    """The labels that Prometheus adds to an alert when it sends it, and what is to say about labels."""
    config = api.config()
    if config is None:
        return {}, ["Prometheus does not show its configuration: external_labels are not known."]
    top, alerting = config.get("global"), config.get("alerting")
    found = top.get("external_labels") if isinstance(top, dict) else None
    changes = isinstance(alerting, dict) and alerting.get("alert_relabel_configs")
    notes = ["alert_relabel_configs are left out: labels are those of ALERTS."] if changes else []
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}, notes


def _heard(
    fired: Mapping[Labels, Sequence[Span]], ours: Mapping[Labels, object], routing: Routing, until: datetime, most: int
) -> Iterable[Heard]:
    """Every notification with the alerts of it that count. Other alerts count for the ticks of their group."""
    by_way: defaultdict[str, dict[Labels, Sequence[Span]]] = defaultdict(dict)
    paces: dict[str, Pace] = {}
    for labels, spans in fired.items():
        for way in routing.ways(dict(labels)):
            by_way[way.name][labels], paces[way.name] = spans, way.pace
    names = {labels: dict(labels) for labels in ours}
    prints = {labels: fingerprint(names[labels]) for labels in ours}
    posted = 0
    for way_name, alerts in by_way.items():
        for notification in notifications(alerts, paces[way_name], until):
            posted += 1
            if posted > most:
                raise UsageError(
                    f"Alertmanager would have posted more than {most} times: choose a later --since, or a "
                    "longer --repeat-interval"
                )
            if heard := _alerts(notification, names, prints):
                yield Heard(notification.at, heard)


def _alerts(
    notification: Notification, names: Mapping[Labels, dict[str, str]], prints: Mapping[Labels, str]
) -> tuple[Alert, ...]:
    return tuple(
        Alert(
            alert_id=names[posted.labels].get("alertname", ""),
            fingerprint=prints[posted.labels],
            firing=posted.firing,
            severity=names[posted.labels].get("severity", ""),
            starts_at=posted.span.begin,
            ends_at=None if posted.firing else posted.span.end,
            labels=names[posted.labels],
            annotations={},
            source="alertmanager",
        )
        for posted in notification.alerts
        if posted.labels in names
    )


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's own: FNV-1a, 64 bits, over the sorted labels, a byte 255 after each name and each value."""
    value = 0xCBF29CE484222325
    for byte in b"".join(
        part.encode(errors="surrogatepass") + b"\xff" for pair in sorted(labels.items()) for part in pair
    ):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def _covers(known: Sequence[Span], window: Window) -> tuple[datetime, datetime]:
    return min(span.begin for span in known), max(span.end or window.until for span in known)


def _holes(known: Sequence[Span]) -> list[tuple[datetime, datetime]]:
    """Where Prometheus has nothing, between the first and the last moment that it knows."""
    ends = [span.end for span in known[:-1]]
    return [(end, later.begin) for end, later in zip(ends, known[1:], strict=True) if end is not None]


def _silences(fired: Mapping[Labels, Sequence[Span]]) -> list[tuple[datetime, datetime]]:
    """Where no alert fires, although the same one fires right before and right after: the best guess without `up`."""
    found, end = [], None
    again = {(a.end, b.begin) for spans in fired.values() for a, b in pairwise(spans)}
    for span in sorted((span for spans in fired.values() for span in spans), key=lambda span: span.begin):
        if end is not None and (end, span.begin) in again and span.begin > end:
            found.append((end, span.begin))
        end = max(end or span.begin, span.end or NEVER)
    return list(dict.fromkeys(found))


def _assumed(
    ours: Mapping[Labels, Sequence[Span]],
    holes: Sequence[tuple[datetime, datetime]],
    window: Window,
    routing: Routing,
) -> list[Assumed]:
    spans = [(fingerprint(dict(labels)), span) for labels, known in ours.items() for span in known]
    before = frozenset((mark, span.begin) for mark, span in spans if span.begin <= window.since)
    torn = frozenset(
        (mark, span.begin)
        for mark, span in spans
        if any(begin - window.step <= (span.end or window.until) <= end or span.begin == end for begin, end in holes)
    )
    step = format_duration(window.step)
    return [
        Assumed("alertmanager", routing.text),
        Assumed("silences", "No silence and no inhibition of Alertmanager kept an alert back: Prometheus knows none."),
        Assumed(
            "resolution", f"An alert begins and ends up to {step} later than it did; what is shorter may be unseen."
        ),
        Assumed("fires_before", "An alert that fires when the window begins, began then.", before),
        Assumed("hole", "An alert that fires when a hole begins, ends there, and what fires after it is new.", torn),
    ]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def window_of(since: datetime, until: datetime, step: timedelta) -> Window:
    """The moments to ask for, at multiples of the step, so that equal questions have equal answers. Raises UsageError."""
    seconds = step.total_seconds()
    if seconds < 1:
        raise UsageError(f"--step {format_duration(step)}: it must be a second at least")
    begin, end = (_time(moment.timestamp() // seconds * seconds) for moment in (since, until))
    if begin >= end:
        raise UsageError(f"the window is empty: it begins at {at(since)} and ends at {at(until)}")
    return Window(begin, end, step)
