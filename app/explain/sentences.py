"""What `explain` tells a person at three in the morning: where it stands, what would start a run, what to do. Pure text."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.decide import facts
from app.decide.state import SHADOW, Action, Decision, Episode, Group, Reason
from app.kit.times import at
from app.policy.language.durations import format_duration
from app.policy.schema import Route

Row = Mapping[str, Any]

_ACTIONS = {
    Action.FIRE: "fired",
    Action.HOLD: "held",
    Action.SUPPRESS: "suppressed",
    Action.CANCEL: "cancelled",
    Action.IGNORE: "ignored",
}
#: What to do about a pending trigger, by what blocks it.
UNBLOCK = {
    "dag_paused": "Unpause the DAG {dag_id} in Airflow; the run then starts by itself.",
    "dag_missing": "Deploy the DAG {dag_id} to the Airflow {airflow}, or correct `dag.id` of the route {route}.",
    "dag_broken": "Repair the import error of the DAG {dag_id}; the run then starts by itself.",
    "token_rejected": "Correct `auth` of the airflow {airflow} in the policy; the run then starts by itself.",
    "token_file": "Make the token file of the airflow {airflow} readable; the run then starts by itself.",
    "forbidden": "Give the gateway's user in Airflow {airflow} a role that may read and trigger the DAG {dag_id}.",
    "not_airflow": "Check `url` of the airflow {airflow} in the policy, and what stands in between.",
    "bad_url": "Correct `url` of the airflow {airflow} in the policy.",
    "no_airflow": "Name the airflow {airflow} in the policy again.",
}


def of_alert(alert: Row, trigger: Row | None) -> str:
    """How often it was heard, what it started, and the newest decision."""
    heard = f"once, at {at(alert['first_seen_at'])}"
    if alert["count"] > 1:
        heard = f"{alert['count']} times, first at {at(alert['first_seen_at'])}, last at {at(alert['last_seen_at'])}"
    text = f"Heard {heard}; {'still firing' if alert['status'] == 'firing' else 'resolved'}."
    fired = any(d["action"] == Action.FIRE for d in alert["decisions"])
    if trigger is None:
        text += " It has started nothing."
    else:
        text += f" It {'fired' if fired else 'is behind'} the trigger {trigger['id']}, {of_trigger(trigger)}"
    last = alert["decisions"][-1]
    return f"{text} Newest decision: {_ACTIONS[Action(last['action'])]} ({last['reason']}): {last['detail']}."


def of_trigger(trigger: Row) -> str:
    """Where it stands, since when."""
    return f"{trigger['state']}: {trigger['detail']} (since {at(_since(trigger))})."


def _since(trigger: Row) -> datetime:
    moments = ("ended_at", "started_at", "accepted_at", "fired_at", "created_at")
    since: datetime = next(trigger[name] for name in moments if trigger[name] is not None)
    return since


def next_step(trigger: Row, group: Row | None) -> str:
    """What a person should do about a trigger, if anything. `group` is the live state of its group."""
    again = group["cooldown_until"] if group else None
    after = f" What still fires may start another run at {at(again)}." if again else ""
    match trigger["state"]:
        case "held":
            until = group["held_until"] if group else None
            when = f"at {at(until)}" if until else "when its debounce ends"
            return f"Nothing: it fires {when} if an alert of the group still fires. `cancel` of the trigger stops it."
        case "pending" | "submitted" | "running" if trigger["blocked"] in UNBLOCK:
            return UNBLOCK[trigger["blocked"]].format(**trigger)
        case "pending" if trigger["blocked"] is not None:
            return f"Bring the Airflow {trigger['airflow']} back; the trigger waits and is delivered when it answers."
        case "submitted" | "running" if trigger["blocked"] is not None:
            return f"Bring the Airflow {trigger['airflow']} back; the trigger is followed again when it answers."
        case "submitted" | "running" if trigger["lost_at"] is not None:
            run = f"{trigger['dag_run_id']} of the DAG {trigger['dag_id']}"
            return f"End the run {run} in Airflow: until it has ended its group starts no other."
        case "failed":
            return f"Look at the log of the run {trigger['dag_run_id']} in Airflow.{after}"
        case "dead":
            return f"Put right what is told above, then `redrive` the trigger.{after}"
    return "Nothing."


def would_fire(decision: Decision, group: Group, episode: Episode, route: Route) -> str:
    """What must happen for this alert to start a DAG run."""
    text = _would_fire(decision, group, episode, route)
    return (
        text if route.mode != SHADOW else f"`mode: live` in the route {route.name}, which starts nothing. Then: {text}"
    )


def _would_fire(decision: Decision, group: Group, episode: Episode, route: Route) -> str:
    until = at(decision.until) if decision.until is not None else None
    held = group.held
    match decision.reason:
        case Reason.RESOLVED if episode.firing:
            heard = f"it was last heard of at {at(episode.last_seen_at)}, and stale_after is"
            return f"A new notification of it: {heard} {format_duration(route.stale_after)}."
        case Reason.RESOLVED:
            return "A new firing of it."
        case Reason.DUPLICATE if until is None and group.open_trigger is None:
            return "Only a new episode of it: refire is off, and this one has had its retrain."
        case Reason.DUPLICATE | Reason.COOLDOWN if until is not None and not held:
            cooling = f"the cooldown of {format_duration(route.cooldown)}"
            pause = "the pause after the failure" if facts.backing_off(group) else cooling
            return f"To fire still at {until}, when {pause} ends; nobody has to do anything. Sooner: `reset` the group."
        case Reason.DUPLICATE | Reason.JOINED | Reason.DEBOUNCING if until is not None:
            end = f"To fire still at {until}, when the debounce of {format_duration(route.debounce)} ends"
            return f"{end}, and Prometheus to confirm it then." if route.confirm else f"{end}."
        case Reason.LIMIT if until is not None and route.limit is not None:
            most = f"{route.limit.triggers} in {format_duration(route.limit.per)}"
            return f"To fire still at {until}, when the route's limit ({most}) lets the next one through."
        case Reason.UNCONFIRMED:
            return f"Prometheus to confirm it: it is asked at {until}, and every 5m after that while the alert fires."
        case Reason.MUTED:
            end = f"To fire still at {until}, when nothing mutes its route."
            return end if until else "What mutes its route to end: that is not known, or for a person to say."
        case Reason.BY_REQUEST:
            return "Only a new episode of it: a person cancelled what this one was held for."
        case Reason.DUPLICATE | Reason.IN_FLIGHT:
            run = f"the open DAG run of the trigger {group.open_trigger}"
            return f"To fire still when {run} has ended and the pause after it is over."
    if group.wake_at is None:
        return "A new notification of it or of its group: nothing stands in its way, but no wake is booked."
    return f"Nothing stands in its way: it fires at the next notification, or at {at(group.wake_at)}."
