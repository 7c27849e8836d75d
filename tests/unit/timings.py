"""What the model of Alertmanager's timing says, beside what the real one posted (see tests.e2e.timings)."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from app.replay.prometheus.notify import Pace, Span, notifications

FILE: Final = Path(__file__).parents[1] / "fixtures" / "alertmanager_timings.json"
START: Final = datetime(2026, 1, 1, tzinfo=UTC)

#: By (pace, group): the moments in seconds, each with the statuses of its alerts.
Story = dict[tuple[str, str], list[tuple[float, dict[str, str]]]]


def moment(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def real(recorded: Mapping[str, Any]) -> Story:
    """What the real Alertmanager posted."""
    found: Story = {}
    for posted in recorded["notifications"]:
        found.setdefault((posted["pace"], posted["group"]), []).append((posted["at"], posted["alerts"]))
    return found


def modelled(recorded: Mapping[str, Any]) -> Story:
    """What the model posts of the same alerts."""
    found: Story = {}
    for name, seconds in recorded["paces"].items():
        wait, interval, repeat = (timedelta(seconds=value) for value in seconds)
        pace = Pace(("group",), wait, interval, repeat)
        alerts = {
            frozenset({"pace": name, "group": alert["group"], "alertname": alert["name"]}.items()): [
                Span(*map(moment, span)) for span in alert["spans"]
            ]
            for alert in recorded["alerts"]
            if alert["pace"] == name
        }
        for posted in notifications(alerts, pace, moment(recorded["seconds"]), START):
            labels = [dict(alert.labels) for alert in posted.alerts]
            statuses = ["firing" if alert.firing else "resolved" for alert in posted.alerts]
            known = {alert["alertname"]: status for alert, status in zip(labels, statuses, strict=True)}
            at = (posted.at - START).total_seconds()
            found.setdefault((name, labels[0]["group"]), []).append((at, known))
    return found


def unlike(recorded: Mapping[str, Any], within: float) -> Iterable[str]:
    """Each notification that only one side has. The real one comes a little later: by `within` seconds at the most.

    A repeat_interval of three ticks is left out: whether the third tick or the fourth repeats is up to microseconds."""
    model, live = modelled(recorded), real(recorded)
    for key in sorted((model.keys() | live.keys()) - {("even", "repeats")}):
        ours, theirs = model.get(key, []), live.get(key, [])
        same = len(ours) == len(theirs) and all(
            statuses == posted and -0.05 <= late - at <= within
            for (at, statuses), (late, posted) in zip(ours, theirs, strict=True)
        )
        if not same:
            yield f"{key}: the model has {ours}, Alertmanager {theirs}"
