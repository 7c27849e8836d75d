"""Why a route started nothing, in sentences: what arrived, what was decided, what blocks it now, what would fire. Pure.

`answer` is what `app.explain.why` has found; `app.explain.why_api.WhyOut` says what each of its keys holds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
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
    "ineffective": "of a group that retraining does not help",
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
    "ineffective": "because retraining does not help",
    "limit": "for the limit",
    "muted": "while muted",
}


def summary(answer: Row, mute: Mute | None) -> str:
    """In sentences: what fired, what arrived, and what blocks at this moment."""
    arrived = _arrived(answer) if answer["alerts"] else _nothing_arrived(answer)
    parts = (_fired(answer), arrived, _refused(answer), _at_this_moment(answer), _muted(answer, mute))
    return " ".join(filter(None, parts))


def _fired(answer: Row) -> str:
    route, trigger, since = answer["route"], answer["trigger"], at(answer["since"])
    labels = ", ".join(f"{name}={value}" for name, value in answer["group"].items())
    scope = f" for {labels}" if labels else ""
    if trigger is None:
        return f"The route {route} has fired no trigger{scope}."
    newest = f"{trigger['id']}, now {sentences.of_trigger(trigger)}"
    number = sum(answer["triggers"].values())
    if not number:
        text = f"The route {route} has fired no trigger{scope} since {since}. The newest is {newest}"
    else:
        fired = "would have fired" if trigger["mode"] == SHADOW else "has fired"
        triggers = f"{number} triggers" if number > 1 else "one trigger"
        text = f"The route {route} {fired} {triggers}{scope} since {since}. The newest is {newest}"
    if trigger["state"] == "succeeded":
        return text
    success = f"was at {at(answer['last_success_at'])}" if answer["last_success_at"] else "is not in the history"
    return f"{text} The last success {success}."


def _arrived(answer: Row) -> str:
    counts: Counter[str] = Counter()
    for row in answer["decisions"]:
        reason: str = row["reason"]
        counts[_DECIDED.get(reason, reason)] += row["alerts"]
    counted = ", ".join(f"{count} {decided}" for decided, count in counts.items())
    alerts = answer["alerts"]
    return f"{alerts} alert{'s' if alerts > 1 else ''} arrived since {at(answer['since'])}: {counted}."


def _nothing_arrived(answer: Row) -> str:
    text = f"No alert matched this route since {at(answer['since'])}"
    near = answer["near"]
    if near is None:
        return f"{text}, and no other alert has arrived. Does your Alertmanager send to this gateway?"
    seen = f"{near['alert_id']}, at {at(near['last_seen_at'])}"
    if near["route"] == answer["route"]:
        return f"{text}. The newest before that was {seen}."
    if near["route"] is not None and not near["missed"]:
        return f"{text}. {seen}, satisfies its matchers but went to {near['route']}, an earlier route."
    if len(near["missed"]) == len(answer["match"]):
        return f"{text}. The newest other alert is {seen}. Does your Alertmanager send the alert of this route?"
    return f"{text}. The nearest alert is {seen}, which does not satisfy {' and '.join(near['missed'])}."


def _refused(answer: Row) -> str:
    counted = [f"{row['count']} {_REFUSED.get(row['reason'], row['reason'])}" for row in answer["refused"]]
    return f"Requests and schedules were refused: {', '.join(counted)}." if counted else ""


def _at_this_moment(answer: Row) -> str:
    firing = [row for row in answer["groups"] if row["now"] is not None]
    if not firing:
        return "These alerts do not fire at this moment." if answer["alerts"] else ""
    if len(firing) == 1:
        now = firing[0]["now"]
        return f"At this moment: {now['action']}, {now['reason']}: {now['detail']}."
    reasons = Counter(row["now"]["reason"] for row in firing)
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return f"At this moment {len(firing)} groups have a firing alert: {counted}."


def _muted(answer: Row, mute: Mute | None) -> str:
    """The mute of the route, when no decision of a group names it: there is no firing alert, or it has its trigger."""
    named = any(row["now"] is not None and row["now"]["reason"] == "muted" for row in answer["groups"])
    return f"The route is {str(mute).rstrip('.')}." if mute is not None and not named else ""


def would_fire(answer: Row, group_by: Sequence[str]) -> str:
    """What must happen for the next DAG run. With several firing groups: for the group that is due first."""
    firing = [row for row in answer["groups"] if row["now"] is not None]
    if not firing:
        matchers = f"labels satisfy {' and '.join(answer['match'])}" if answer["match"] else "status is firing"
        scheduled = "".join(f", the schedule {s['name']} at {at(s['next_at'])}" for s in answer["schedules"][:1])
        group = "".join(f" --group {label}={answer['group'].get(label, 'VALUE')}" for label in group_by)
        command = f"trigger-gateway trigger {answer['route']}{group} --reason WHY"
        return f"An alert whose {matchers}{scheduled}, or a request: `{command}`."
    first = min(firing, key=lambda row: (row["now"]["until"] is None, row["now"]["until"] or answer["until"]))
    text: str = first["would_fire"]
    labels = ", ".join(f"{name}={value}" for name, value in first["group"].items())
    return f"{labels}: {text}" if len(firing) > 1 and labels else text


def next_step(answer: Row) -> str:
    """What a person should do; it begins with `sentences.NOTHING` when there is nothing to do."""
    trigger, near = answer["trigger"], answer["near"]
    if trigger is not None and trigger["state"] not in ("succeeded", "cancelled"):
        group = next((row for row in answer["groups"] if row["group"] == trigger["group"]), None)
        return sentences.next_step(trigger, group)
    if not answer["alerts"] and (near is None or near["missed"]):
        return "Run `trigger-gateway doctor --alertmanager URL` to see whether the alert of this route reaches the gateway."
    return sentences.NOTHING


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
