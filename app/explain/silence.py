"""What is told when nothing happened: what a route heard, what became of it, what blocks it now, what would fire. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.decide.muting import Mute
from app.decide.state import SHADOW
from app.explain import sentences
from app.kit.times import at

Row = dict[str, Any]

#: What became of an alert, by the reason of the decision that tells the most.
_BECAME = {
    "new_alert": "fired",
    "still_firing": "fired",
    "debouncing": "held",
    "joined": "held",
    "duplicate": "behind a trigger of before",
    "cooldown": "in cooldown",
    "in_flight": "beside a run under way",
    "limit": "over the limit",
    "muted": "muted",
    "unconfirmed": "not confirmed by Prometheus",
    "shadow": "would have fired",
    "resolved_while_held": "resolved while held",
    "by_request": "cancelled by a person",
    "resolved": "told only of their end",
    "no_route": "of a route that left the policy",
}
#: The same of a request and of a schedule.
_REFUSED = {
    "cooldown": "for the cooldown",
    "in_flight": "for a run under way",
    "limit": "for the limit",
    "muted": "while muted",
}


@dataclass(frozen=True, slots=True)
class Why:
    """Why a route, or some of its groups, started no DAG run between `since` and `until`.

    `alerts` were heard of in that time, each once, however often it was told; `decisions` say what became of them,
    `refused` which requests and schedules the policy said no to, `triggers` how many fired, by state. `trigger` is the
    newest that ever fired. `groups` are live states, those with a firing alert first, each with the decision of this
    moment (`now`) and what `would_fire`. `schedules` are those of the route or its groups, with `next_at`, the next one
    first. `near` is told only when no alert was heard of: the newest that came nearest,
    of this route before that time, of another route, or of none.
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
    """In sentences: what fired, what was heard, and what blocks at this moment."""
    heard = _heard(why) if why.alerts else _nothing_heard(why)
    return " ".join(filter(None, (_fired(why), heard, _refused(why), _at_this_moment(why), _muted(why, mute))))


def _fired(why: Why) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in why.group.items())
    who = f"the route {why.route}{f' for {labels}' if labels else ''}"
    number = sum(why.triggers.values())
    have = "would have" if why.trigger is not None and why.trigger["mode"] == SHADOW else "have"
    has = have if have == "would have" else "has"
    if why.trigger is None:
        return f"Nothing has fired on {who}."
    stands = f"{why.trigger['id']}, {sentences.of_trigger(why.trigger)}"
    if not number:
        text = f"Nothing has fired on {who} since {at(why.since)}. The newest trigger is {stands}"
    else:
        count = f"{number} triggers {have}" if number > 1 else f"One trigger {has}"
        text = f"{count} fired on {who} since {at(why.since)}; the newest is {stands}"
    if why.trigger["state"] == "succeeded":
        return text
    success = f"was at {at(why.last_success_at)}" if why.last_success_at else "is not in the history"
    return f"{text} The last success {success}."


def _heard(why: Why) -> str:
    counts: Counter[str] = Counter()
    for row in why.decisions:
        reason: str = row["reason"]
        counts[_BECAME.get(reason, reason)] += row["alerts"]
    told = ", ".join(f"{count} {became}" for became, count in counts.items())
    return f"{why.alerts} alert{'s were' if why.alerts > 1 else ' was'} heard of since {at(why.since)}: {told}."


def _nothing_heard(why: Why) -> str:
    text = f"No alert matched this route since {at(why.since)}"
    if why.near is None:
        return f"{text}, and the gateway has heard of no other: is your Alertmanager wired?"
    seen = f"{why.near['alert_id']}, at {at(why.near['last_seen_at'])}"
    if why.near["route"] == why.route:
        return f"{text}; the newest before was {seen}."
    if why.near["route"] is not None and not why.near["missed"]:
        return f"{text}; {seen}, satisfies its matchers and went to {why.near['route']}, an earlier route."
    if len(why.near["missed"]) == len(why.match):
        return f"{text}; the newest of others is {seen}: is your Alertmanager wired?"
    return f"{text}; what came nearest is {seen}, which does not satisfy {' and '.join(why.near['missed'])}."


def _refused(why: Why) -> str:
    told = [f"{row['count']} {_REFUSED.get(row['reason'], row['reason'])}" for row in why.refused]
    return f"Requests and schedules were refused: {', '.join(told)}." if told else ""


def _at_this_moment(why: Why) -> str:
    firing = [row for row in why.groups if row["now"] is not None]
    if not firing:
        return "No alert of it fires at this moment." if why.alerts else ""
    if len(firing) == 1:
        now = firing[0]["now"]
        return f"At this moment: {now['action']}, {now['reason']}: {now['detail']}."
    reasons = Counter(row["now"]["reason"] for row in firing)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return f"At this moment {len(firing)} groups have a firing alert: {told}."


def _muted(why: Why, mute: Mute | None) -> str:
    """An alert that is behind a trigger, or none at all, is not told of the mute."""
    told = any(row["now"] is not None and row["now"]["reason"] == "muted" for row in why.groups)
    return f"The route is {str(mute).rstrip('.')}." if mute is not None and not told else ""


def would_fire(why: Why, group_by: Sequence[str]) -> str:
    """What must happen for the next DAG run: of several groups the one that is due first."""
    firing = [row for row in why.groups if row["now"] is not None]
    if not firing:
        matchers = f"labels satisfy {' and '.join(why.match)}" if why.match else "status is firing"
        scheduled = "".join(f", the schedule {s['name']} at {at(s['next_at'])}" for s in why.schedules[:1])
        group = "".join(f" --group {label}={why.group.get(label, 'VALUE')}" for label in group_by)
        asked = f"trigger-gateway trigger {why.route}{group} --reason WHY"
        return f"An alert whose {matchers}{scheduled}, or a request: `{asked}`."
    first = min(firing, key=lambda row: (row["now"]["until"] is None, row["now"]["until"] or why.until))
    text: str = first["would_fire"]
    labels = ", ".join(f"{name}={value}" for name, value in first["group"].items())
    return f"{labels}: {text}" if len(firing) > 1 and labels else text


def next_step(why: Why) -> str:
    """What a person should do, if anything."""
    if why.trigger is not None and why.trigger["state"] not in ("succeeded", "cancelled"):
        of_it = [row for row in why.groups if row["group"] == why.trigger["group"]]
        return sentences.next_step(why.trigger, of_it[0] if of_it else None)
    if not why.alerts and (why.near is None or why.near["missed"]):
        return "Ask `trigger-gateway doctor --alertmanager URL` whether the alert of this route reaches the gateway."
    return "Nothing."


def nearest(alerts: list[Row], match: list[Any]) -> Row | None:
    """Of alerts, the newest first, the one that most of a route's matchers take; `missed` are the
    others."""
    best: Row | None = None
    for alert in alerts:
        labels: Mapping[str, str] = alert["labels"]
        missed = [str(matcher) for matcher in match if not matcher.matches(labels)]
        if best is None or len(missed) < len(best["missed"]):
            best = alert | {"missed": missed}
    return best
