"""The sentences of `explain`, for a person at three in the morning: what happened, what would start a run, what to do.

Pure text. The rows are those of `app.explain.history`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from app.decide import facts
from app.decide.state import SHADOW, Action, Decision, Episode, Group, Reason
from app.kit.times import at
from app.policy.language.durations import format_duration
from app.policy.schema import Route

Row = Mapping[str, Any]

#: The beginning of a next step when a person need not do anything.
NOTHING: Final = "Nothing."

_ACTIONS = {
    Action.FIRE: "fired",
    Action.HOLD: "held",
    Action.SUPPRESS: "suppressed",
    Action.CANCEL: "cancelled",
    Action.IGNORE: "ignored",
}
#: By the state of a probation.
_STANDINGS: Final = {
    "watching": "under way",
    "passed": "over, and it passed",
    "failed": "over, and it failed",
    "rolled_back": "over, and the alias went back",
    "over": "over without a verdict",
}
#: What an alert lacked for a run, by the reason of the decision. The end that it names has a time where one was known.
_MISSING: Final = {
    Reason.DEBOUNCING: "the end of the debounce",
    Reason.JOINED: "the end of the debounce",
    Reason.DUPLICATE: "the end of its trigger and of the cooldown after it",
    Reason.COOLDOWN: "the end of the cooldown",
    Reason.INEFFECTIVE: "an end of its alerts and a new beginning after a while, or a `reset` of the group",
    Reason.LIMIT: "room below the limit of the route",
    Reason.MUTED: "the end of the mute",
    Reason.UNCONFIRMED: "the confirmation of Prometheus",
    Reason.SHADOW: "`mode: live` in its route",
    Reason.IN_FLIGHT: "the end of the run under way",
    Reason.RESOLVED_WHILE_HELD: "an alert that fires until the debounce ends",
    Reason.BY_REQUEST: "a new episode of the alert, because its trigger was cancelled",
    Reason.NO_ROUTE: "a route that takes its labels",
    Reason.RESOLVED: "an alert that fires",
    Reason.INVALID: "an alert that can be stored",
}
#: What to do about a pending trigger, by what blocks it.
UNBLOCK = {
    "dag_paused": "Unpause the DAG {dag_id} in Airflow; the run then starts by itself.",
    "dag_missing": "Deploy the DAG {dag_id} to the Airflow {airflow}, or correct `dag.id` of the route {route}.",
    "dag_broken": "Repair the import error of the DAG {dag_id}; the run then starts by itself.",
    "token_rejected": "Correct `auth` of the airflow {airflow} in the policy; the run then starts by itself.",
    "token_file": "Make the token file of the airflow {airflow} readable; the run then starts by itself.",
    "ca_file": "Correct `ca_file` of the airflow {airflow} in the policy, or the file; the run then starts by itself.",
    "forbidden": "Give the gateway's user in Airflow {airflow} a role that may read and trigger the DAG {dag_id}.",
    "not_airflow": "Check `url` of the airflow {airflow} in the policy, and every proxy between it and the gateway.",
    "out_of_files": "Raise the limit of open files of the gateway (ulimit -n); it tries again by itself.",
    "bad_url": "Correct `url` of the airflow {airflow} in the policy.",
    "server_error": "Look into the log of the API server of the Airflow {airflow}: it fails on the DAG {dag_id}, or on all. "
    "The gateway tries again by itself.",
    "error": "Report this error of the gateway with its log. The gateway tries again by itself.",
    "no_airflow": "Add the airflow {airflow} to the policy again.",
}


def of_alert(alert: Row, trigger: Row | None) -> str:
    """How often the alert arrived, which trigger it has, and the newest decision on it."""
    arrived = f"once, at {at(alert['first_seen_at'])}"
    if alert["count"] > 1:
        arrived = f"{alert['count']} times, first at {at(alert['first_seen_at'])}, last at {at(alert['last_seen_at'])}"
    text = f"The alert arrived {arrived}. Its status is {alert['status']}."
    fired = any(d["action"] == Action.FIRE for d in alert["decisions"])
    if trigger is None:
        text += " It started nothing."
    else:
        text += f" It {'fired' if fired else 'belongs to'} the trigger {trigger['id']}, now {of_trigger(trigger)}"
    last = alert["decisions"][-1]
    return f"{text} Newest decision: {_ACTIONS[Action(last['action'])]} ({last['reason']}): {last['detail']}."


def of_trigger(trigger: Row) -> str:
    """The state of the trigger, why, and since when."""
    return f"{trigger['state']}: {trigger['detail']} (since {at(_since(trigger))})."


def of_probation(promotion: Row) -> str:
    """What became of the probation of a version, and why."""
    probation = promotion["probation"]
    version = f"version {promotion['version']} of {promotion['model']} as {promotion['mark']}"
    return f"The probation of {version} is {_STANDINGS[probation['state']]}: {probation['detail']}."


def _since(trigger: Row) -> datetime:
    moments = ("ended_at", "started_at", "accepted_at", "fired_at", "created_at")
    since: datetime = next(trigger[name] for name in moments if trigger[name] is not None)
    return since


def next_step(trigger: Row, group: Row | None) -> str:
    """What a person should do about the trigger; it begins with NOTHING when that is nothing. `group`: its live state."""
    again = group["cooldown_until"] if group else None
    after = f" An alert that still fires may start another run at {at(again)}." if again else ""
    match trigger["state"]:
        case "held":
            until = group["held_until"] if group else None
            when = f"at {at(until)}" if until else "when its debounce ends"
            return f"{NOTHING} It fires {when} if an alert of its group still fires then. To stop it, `cancel` the trigger."
        case "pending" | "submitted" | "running" if trigger["blocked"] in UNBLOCK:
            return UNBLOCK[trigger["blocked"]].format(**trigger)
        case "pending" if trigger["blocked"] is not None:
            return (
                f"Bring the Airflow {trigger['airflow']} back. The gateway delivers the trigger when Airflow answers."
            )
        case "submitted" | "running" if trigger["blocked"] is not None:
            return (
                f"Bring the Airflow {trigger['airflow']} back. The gateway follows the run again when Airflow answers."
            )
        case "submitted" | "running" if trigger["lost_at"] is not None:
            run = f"{trigger['dag_run_id']} of the DAG {trigger['dag_id']}"
            return f"End the run {run} in Airflow. Until it has ended, its group starts no other run."
        case "failed":
            return f"Look at the log of the run {trigger['dag_run_id']} in Airflow.{after}"
        case "dead":
            return f"Correct the error that the summary names, then `redrive` the trigger.{after}"
    return NOTHING


def needs_person(state: str, blocked: str | None, *, lost: bool) -> bool:
    """Whether a person should do something about a trigger: its `next_step` then says what. A fleet asks it of thousands."""
    if state in ("failed", "dead"):
        return True
    return (state in ("pending", "submitted", "running") and blocked is not None) or (
        state in ("submitted", "running") and lost
    )


def missing(decision: Row) -> str:
    """What was missing for a run when this was decided; empty when it started one."""
    text = _MISSING.get(decision["reason"], "")
    until = decision["until"]
    return f"{text}, at {at(until)}" if text and until is not None else text


def would_fire(decision: Decision, group: Group, episode: Episode, route: Route) -> str:
    """What must happen for this alert to start a DAG run."""
    text = _would_fire(decision, group, episode, route)
    if route.mode == SHADOW:
        return f"Set `mode: live` in the route {route.name}: in shadow mode it starts nothing. Then: {text}"
    return text


def _would_fire(decision: Decision, group: Group, episode: Episode, route: Route) -> str:
    until = at(decision.until) if decision.until is not None else None
    held = group.held
    match decision.reason:
        case Reason.RESOLVED if episode.firing:
            limit = f"longer ago than `stale_after` ({format_duration(route.stale_after)})"
            return f"A new notification of the alert. The last one arrived at {at(episode.last_seen_at)}, {limit}."
        case Reason.RESOLVED:
            return "The alert must fire again."
        case Reason.DUPLICATE if until is None and group.open_trigger is None:
            return "Only a new episode of the alert: `refire` is off, and this episode has had its trigger."
        case Reason.DUPLICATE | Reason.COOLDOWN if until is not None and not held:
            cooling = f"the cooldown of {format_duration(route.cooldown)}"
            pause = "the backoff after the failure" if facts.backing_off(group) else cooling
            return f"The alert must still fire at {until}, when {pause} ends. To start a run sooner, `reset` the group."
        case Reason.DUPLICATE | Reason.JOINED | Reason.DEBOUNCING if until is not None:
            end = f"The alert must still fire at {until}, when the debounce of {format_duration(route.debounce)} ends"
            return f"{end}, and Prometheus must confirm it then." if route.confirm else f"{end}."
        case Reason.INEFFECTIVE:
            quiet = f"stay away for {format_duration(route.effect.watch)} and begin again"
            return (
                f"Its alerts must end, {quiet}; or a person must `reset` the group, or change the route {route.name}."
            )
        case Reason.LIMIT if until is not None and route.limit is not None:
            most = f"{route.limit.triggers} in {format_duration(route.limit.per)}"
            return (
                f"The alert must still fire at {until}, when the route's limit ({most}) lets the next trigger through."
            )
        case Reason.UNCONFIRMED:
            return f"Prometheus must confirm the alert. The gateway asks it at {until}, then every 5m while the alert fires."
        case Reason.MUTED:
            if until is None:
                return "The mute of its route must end: a person has to lift a pause, or the interval has no known end."
            return f"The alert must still fire at {until}, when nothing mutes its route."
        case Reason.BY_REQUEST:
            return "Only a new episode of the alert: a person cancelled the trigger that held this one."
        case Reason.DUPLICATE | Reason.IN_FLIGHT:
            run = f"the open DAG run of the trigger {group.open_trigger}"
            return f"The alert must still fire when {run} has ended and the cooldown or backoff after it is over."
    if group.wake_at is None:
        return "A new notification of the alert or its group. Nothing blocks it, but its group has no `wake_at`."
    return f"Nothing blocks it: it fires at the next notification, or at {at(group.wake_at)}."
