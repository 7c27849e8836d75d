"""Why a route started nothing, in sentences: what arrived, what was decided, what blocks it now, what would fire. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.decide.rules import Mute
from app.decide.state import SHADOW
from app.explain import sentences
from app.kit.times import at

Row = dict[str, Any]

#: What the gateway did with an alert, by the reason of the decision that stands for it (app.explain.why).
_DECIDED = {
    "new_alert": "fired",
    "still_firing": "fired",
    "debouncing": "held",
    "joined": "held",
    "duplicate": "covered by an earlier trigger",
    "cooldown": "in cooldown",
    "in_flight": "while a run was in flight",
    "limit": "over the limit",
    "muted": "muted",
    "unconfirmed": "not confirmed by Prometheus",
    "shadow": "would have fired",
    "resolved_while_held": "resolved while held",
    "by_request": "cancelled by a person",
    "resolved": "that only resolved",
    "no_route": "on a route that left the policy",
}
#: The same for requests and schedules.
_REFUSED = {
    "cooldown": "for the cooldown",
    "in_flight": "for a run in flight",
    "limit": "for the limit",
    "muted": "while muted",
}


@dataclass(frozen=True, slots=True)
class Why:
    """Why a route, or some of its groups, started no DAG run between `since` and `until`.

    `alerts` is how many alerts arrived in that time; an alert counts once, however often it was repeated. `decisions`
    counts them by what was decided on them. `refused` counts the requests and schedules that the policy refused.
    `triggers` counts by state the triggers that fired in that time. `trigger` is the newest that ever fired.

    `groups` are live states, those with a firing alert first. Each has the decision at this moment (`now`) and what
    `would_fire`. `schedules` are those of the route or its groups with their `next_at`, the next one first.

    `near` is there only when no alert arrived: the alert that came nearest to the route. It can be an earlier alert of
    this route, an alert of another route, or an alert that no route took.
    """

    route: str
    group: dict[str, str]
    since: datetime
    until: datetime
    alerts: int
    decisions: list[Row]
    refused: list[Row]
    triggers: dict[str, int]
    trigger: Row | None
    last_success_at: datetime | None
    groups: list[Row]
    schedules: list[Row]
    near: Row | None
    match: list[str]
    summary: str = ""
    would_fire: str = ""
    next_step: str = ""


def summary(why: Why, mute: Mute | None) -> str:
    """In sentences: what fired, what arrived, and what blocks at this moment."""
    arrived = _arrived(why) if why.alerts else _nothing_arrived(why)
    return " ".join(filter(None, (_fired(why), arrived, _refused(why), _at_this_moment(why), _muted(why, mute))))


def _fired(why: Why) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in why.group.items())
    scope = f" for {labels}" if labels else ""
    if why.trigger is None:
        return f"The route {why.route} has fired no trigger{scope}."
    newest = f"{why.trigger['id']}, now {sentences.of_trigger(why.trigger)}"
    number = sum(why.triggers.values())
    if not number:
        text = f"The route {why.route} has fired no trigger{scope} since {at(why.since)}. The newest is {newest}"
    else:
        fired = "would have fired" if why.trigger["mode"] == SHADOW else "has fired"
        triggers = f"{number} triggers" if number > 1 else "one trigger"
        text = f"The route {why.route} {fired} {triggers}{scope} since {at(why.since)}. The newest is {newest}"
    if why.trigger["state"] == "succeeded":
        return text
    success = f"was at {at(why.last_success_at)}" if why.last_success_at else "is not in the history"
    return f"{text} The last success {success}."


def _arrived(why: Why) -> str:
    counts: Counter[str] = Counter()
    for row in why.decisions:
        reason: str = row["reason"]
        counts[_DECIDED.get(reason, reason)] += row["alerts"]
    counted = ", ".join(f"{count} {decided}" for decided, count in counts.items())
    return f"{why.alerts} alert{'s' if why.alerts > 1 else ''} arrived since {at(why.since)}: {counted}."


def _nothing_arrived(why: Why) -> str:
    text = f"No alert matched this route since {at(why.since)}"
    if why.near is None:
        return f"{text}, and no other alert has arrived. Does your Alertmanager send to this gateway?"
    seen = f"{why.near['alert_id']}, at {at(why.near['last_seen_at'])}"
    if why.near["route"] == why.route:
        return f"{text}. The newest before that was {seen}."
    if why.near["route"] is not None and not why.near["missed"]:
        return f"{text}. {seen}, satisfies its matchers but went to {why.near['route']}, an earlier route."
    if len(why.near["missed"]) == len(why.match):
        return f"{text}. The newest other alert is {seen}. Does your Alertmanager send the alert of this route?"
    return f"{text}. The nearest alert is {seen}, which does not satisfy {' and '.join(why.near['missed'])}."


def _refused(why: Why) -> str:
    counted = [f"{row['count']} {_REFUSED.get(row['reason'], row['reason'])}" for row in why.refused]
    return f"Requests and schedules were refused: {', '.join(counted)}." if counted else ""


def _at_this_moment(why: Why) -> str:
    firing = [row for row in why.groups if row["now"] is not None]
    if not firing:
        return "These alerts do not fire at this moment." if why.alerts else ""
    if len(firing) == 1:
        now = firing[0]["now"]
        return f"At this moment: {now['action']}, {now['reason']}: {now['detail']}."
    reasons = Counter(row["now"]["reason"] for row in firing)
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return f"At this moment {len(firing)} groups have a firing alert: {counted}."


def _muted(why: Why, mute: Mute | None) -> str:
    """The mute of the route, when no decision of a group names it: there is no firing alert, or it has its trigger."""
    named = any(row["now"] is not None and row["now"]["reason"] == "muted" for row in why.groups)
    return f"The route is {str(mute).rstrip('.')}." if mute is not None and not named else ""


def would_fire(why: Why, group_by: Sequence[str]) -> str:
    """What must happen for the next DAG run. With several firing groups: for the group that is due first."""
    firing = [row for row in why.groups if row["now"] is not None]
    if not firing:
        matchers = f"labels satisfy {' and '.join(why.match)}" if why.match else "status is firing"
        scheduled = "".join(f", the schedule {s['name']} at {at(s['next_at'])}" for s in why.schedules[:1])
        group = "".join(f" --group {label}={why.group.get(label, 'VALUE')}" for label in group_by)
        command = f"trigger-gateway trigger {why.route}{group} --reason WHY"
        return f"An alert whose {matchers}{scheduled}, or a request: `{command}`."
    first = min(firing, key=lambda row: (row["now"]["until"] is None, row["now"]["until"] or why.until))
    text: str = first["would_fire"]
    labels = ", ".join(f"{name}={value}" for name, value in first["group"].items())
    return f"{labels}: {text}" if len(firing) > 1 and labels else text


def next_step(why: Why) -> str:
    """What a person should do; "Nothing." when there is nothing to do."""
    if why.trigger is not None and why.trigger["state"] not in ("succeeded", "cancelled"):
        group = next((row for row in why.groups if row["group"] == why.trigger["group"]), None)
        return sentences.next_step(why.trigger, group)
    if not why.alerts and (why.near is None or why.near["missed"]):
        return "Run `trigger-gateway doctor --alertmanager URL` to see whether the alert of this route reaches the gateway."
    return "Nothing."


def nearest(alerts: list[Row], match: list[Any]) -> Row | None:
    """The alert that satisfies the most of a route's matchers; the first of equals. `missed` are the matchers that it
    does not satisfy."""
    best: Row | None = None
    for alert in alerts:
        labels: Mapping[str, str] = alert["labels"]
        missed = [str(matcher) for matcher in match if not matcher.matches(labels)]
        if best is None or len(missed) < len(best["missed"]):
            best = alert | {"missed": missed}
    return best
