"""Does this alert start a DAG run? Pure: facts, policy and one `now` in, an action with its reason out.

The reason is the first that holds of: no_route, resolved, duplicate, joined, in_flight, cooldown, limit, muted,
unconfirmed, shadow (design, 6.3). The first two need no group and are found by the ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.policy.durations import format_duration
from app.policy.schema import Route
from app.triggers.muting import Mute
from app.triggers.state import (
    DEAD,
    FAILED,
    GONE,
    LOST,
    SHADOW,
    SUCCESS,
    Action,
    Answer,
    Ask,
    Episode,
    Group,
    Reason,
    Verdict,
)

#: What Prometheus did not confirm is asked again after this, while the alert fires.
ASK_AGAIN = timedelta(minutes=5)

_FIRE, _HOLD, _SUPPRESS = Action.FIRE, Action.HOLD, Action.SUPPRESS


@dataclass(frozen=True, slots=True)
class Way:
    """What may stand in the way of a whole route: its newest fires, when it has a limit, what mutes it, and what Prometheus
    has answered, where it must be asked; None: it was not asked."""

    fires: Sequence[datetime] = ()
    mute: Mute | None = None
    answer: Answer | None = None


FREE = Way()


def decide(group: Group, alert: Episode, route: Route, now: datetime, way: Way = FREE) -> Verdict:
    """What to do about a firing alert. FIRE and HOLD without a trigger_id ask for a new trigger."""
    if alert.dismissed:
        detail = "a person cancelled what it was held for; it counts again when it fires anew"
        return Verdict(Action.CANCEL, Reason.BY_REQUEST, None, None, detail)
    if is_spent(alert, route):
        return Verdict(_SUPPRESS, Reason.DUPLICATE, None, alert.trigger_id, "it has had its retrain, and refire is off")
    held = group.held
    if held and now < (due := held_until(group, route)):
        if alert.trigger_id == group.open_trigger:
            return Verdict(_SUPPRESS, Reason.DUPLICATE, due, group.open_trigger, f"already held until {_at(due)}")
        return Verdict(_HOLD, Reason.JOINED, due, group.open_trigger, f"joins the group held until {_at(due)}")
    if group.open_trigger is not None and not held:
        if alert.trigger_id == group.open_trigger:
            return Verdict(_SUPPRESS, Reason.DUPLICATE, None, group.open_trigger, "its trigger is already under way")
        return Verdict(
            _SUPPRESS, Reason.IN_FLIGHT, None, group.open_trigger, "another trigger of this group is under way"
        )
    clear = clear_at(group, route)
    if clear is not None and now < clear:
        return _cooling(group, alert, clear)
    full = full_until(route, way.fires, now)
    if full is not None:
        return Verdict(_SUPPRESS, Reason.LIMIT, full, None, _limited(route, full))
    if way.mute is not None:
        return _muted(way.mute)
    if route.confirm is not None and (unconfirmed := _unconfirmed(group, way.answer, now)) is not None:
        return unconfirmed
    return _clear(group, alert, route, now, way.answer)


def _cooling(group: Group, alert: Episode, clear: datetime) -> Verdict:
    if backing_off(group):
        run = "trigger died" if group.outcome == DEAD else f"DAG run ended as {group.outcome}"
        detail = f"the {run}, failure {group.failures} in a row: next not before {_at(clear)}"
        return Verdict(_SUPPRESS, Reason.COOLDOWN, clear, group.last_trigger, detail)
    if alert.trigger_id is not None and alert.trigger_id == group.last_trigger:
        detail = f"its trigger {_has(group)} fired; the group cools down until {_at(clear)}"
        return Verdict(_SUPPRESS, Reason.DUPLICATE, clear, group.last_trigger, detail)
    detail = f"the group {_has(group)} fired and cools down until {_at(clear)}"
    return Verdict(_SUPPRESS, Reason.COOLDOWN, clear, group.last_trigger, detail)


def _has(group: Group) -> str:
    return "would have" if group.mode == SHADOW else "has"


def _unconfirmed(group: Group, answer: Answer | None, now: datetime) -> Verdict | None:
    if answer is not None:
        if answer.confirmed:
            return None
        return Verdict(_SUPPRESS, Reason.UNCONFIRMED, now + ASK_AGAIN, None, answer.detail)
    again = group.unconfirmed_at + ASK_AGAIN if group.unconfirmed_at is not None else None
    if again is None or now >= again:
        return None
    return Verdict(
        _SUPPRESS, Reason.UNCONFIRMED, again, None, f"not confirmed by Prometheus; asked again at {_at(again)}"
    )


def _asking(group: Group, alert: Episode, now: datetime) -> Verdict:
    """Nothing but Prometheus' word is missing: held, and due, until it has been asked in the wake."""
    if not group.held:
        return Verdict(_HOLD, Reason.DEBOUNCING, now, None, "held until Prometheus has been asked")
    if alert.trigger_id == group.open_trigger:
        return Verdict(
            _SUPPRESS, Reason.DUPLICATE, now, group.open_trigger, "already held until Prometheus has been asked"
        )
    return Verdict(
        _HOLD, Reason.JOINED, now, group.open_trigger, "joins the group held until Prometheus has been asked"
    )


def _clear(group: Group, alert: Episode, route: Route, now: datetime, answer: Answer | None) -> Verdict:
    """Nothing stands in the way: fire, or wait for calm first."""
    due = alert.firing_since + route.debounce
    if not group.held and now < due:
        return debouncing(due)
    if route.confirm is not None and answer is None:
        return _asking(group, alert, now)
    return calm(group, alert)


def calm(group: Group, alert: Episode) -> Verdict:
    """Fire: the debounce is over, by this alert or by another one of its group."""
    # Then it has been held since, to be confirmed.
    fired_before = group.fired_at is not None and alert.firing_since <= group.fired_at
    if alert.trigger_id is not None and (alert.trigger_id != group.open_trigger or fired_before):
        detail = "the alert still fires after its cooldown"
        return Verdict(_FIRE, Reason.STILL_FIRING, None, group.open_trigger, detail)
    return Verdict(_FIRE, Reason.NEW_ALERT, None, group.open_trigger, "a new alert fires")


def full_until(route: Route, fires: Sequence[datetime], now: datetime) -> datetime | None:
    """When the route's limit lets the next trigger through, if not now: as its oldest counted fire leaves the time."""
    if route.limit is None or len(fires) < route.limit.triggers:
        return None
    leaves = fires[route.limit.triggers - 1] + route.limit.per
    return leaves if now < leaves else None


def _limited(route: Route, until: datetime) -> str:
    if route.limit is None:
        return ""
    per = format_duration(route.limit.per)
    return f"the route has fired {route.limit.triggers} times in {per}, its limit: next not before {_at(until)}"


def _muted(mute: Mute) -> Verdict:
    return Verdict(_SUPPRESS, Reason.MUTED, mute.until, None, str(mute))


def decide_request(group: Group, route: Route, ask: Ask, now: datetime, way: Way = FREE) -> Verdict:
    """What to do about a request: it needs no calm and no alert, obeys cooldown, limit and a run in flight, and takes a
    held group over. Forced, it overrides cooldown and limit, never a run in flight. A person may ask while the route is
    muted; a schedule may not."""
    if group.open_trigger is not None and not group.held:
        return Verdict(
            _SUPPRESS, Reason.IN_FLIGHT, None, group.open_trigger, "another trigger of this group is under way"
        )
    clear = clear_at(group, route)
    if clear is not None and now < clear and not ask.force:
        detail = f"the group {_has(group)} fired and cools down until {_at(clear)}"
        if backing_off(group):
            detail = f"failure {group.failures} in a row: next not before {_at(clear)}"
        return Verdict(_SUPPRESS, Reason.COOLDOWN, clear, group.last_trigger, detail)
    full = full_until(route, way.fires, now)
    if full is not None and not ask.force:
        return Verdict(_SUPPRESS, Reason.LIMIT, full, None, _limited(route, full))
    if way.mute is not None and ask.reason is Reason.SCHEDULED:
        return _muted(way.mute)
    return Verdict(_FIRE, ask.reason, None, group.open_trigger, f"asked for by {ask.by}: {ask.why}")


def debouncing(due: datetime) -> Verdict:
    """Hold until `due`, in a new trigger."""
    return Verdict(_HOLD, Reason.DEBOUNCING, due, None, f"held until {_at(due)} to see whether it lasts")


def held_until(group: Group, route: Route) -> datetime:
    """When the debounce of a held group ends: from the group's first alert, with the policy in force."""
    if group.held_since is None:
        raise ValueError(f"group {group.key} is not held")
    return group.held_since + route.debounce


def clear_at(group: Group, route: Route) -> datetime | None:
    """Before this no new trigger of the group, unless one is open; None when nothing cools."""
    releases = (group.on_failure or route.on_failure) == "release"  # as it was when the trigger fired
    if backing_off(group) and (group.outcome == DEAD or releases):
        return _unless_reset(group, group.ended_at, backoff(group.failures, route))
    starts = [t for t in (group.fired_at, group.accepted_at) if t is not None]
    return _unless_reset(group, max(starts), route.cooldown) if starts else None


def backing_off(group: Group) -> bool:
    """True when the newest trigger did not bring a retrain."""
    return group.outcome in (FAILED, LOST, GONE, DEAD)


def backoff(failures: int, route: Route) -> timedelta:
    """The pause after n failures in a row: doubled each time, at most the cooldown, so that a broken DAG is not
    retried for ever at the same pace."""
    if not route.failure_backoff:
        return timedelta(0)
    longest = max(route.cooldown, route.failure_backoff)
    doublings = min(max(failures, 1) - 1, 40)  # beyond every cooldown, and short of what a timedelta can hold
    return longest if longest / route.failure_backoff <= 2**doublings else route.failure_backoff * 2**doublings


def wake_at(group: Group, route: Route) -> datetime | None:
    """When the group must be looked at without a new notification; None: something else will touch it, or nothing can."""
    if group.held:
        return held_until(group, route)
    if group.open_trigger is not None:
        return None  # The follower or the relay sets it when the run ends.
    return clear_at(group, route)


def book(group: Group, outcome: str, route: Route | None, now: datetime, *, counted: bool = False) -> None:
    """Write the end of the newest trigger into its group's facts, and when the group is looked at next.

    A lost trigger ends twice: when it is told as lost, still open, and when its run is known to be over; then `counted`
    says that the failure stands in `failures` already.
    """
    group.outcome, group.ended_at = outcome, now
    if outcome == SUCCESS:
        group.failures = 0
    elif not counted:
        group.failures += 1
    wake = wake_at(group, route) if route else None
    # Without a cooldown to wait for, what was suppressed meanwhile is decided at once.
    group.wake_at = None if group.open_trigger is not None else max(wake or now, now)


def fire(group: Group, trigger_id: UUID, on_failure: str, now: datetime) -> None:
    """The trigger is on its way, fired or redriven: it is the group's open one, and the cooldown counts from here."""
    group.open_trigger = group.last_trigger = trigger_id
    group.fired_at, group.on_failure = now, on_failure
    # A reset frees one fire. Left standing it would free this one's cooldown as well, were both of the same instant.
    group.accepted_at = group.ended_at = group.outcome = group.reset_at = None
    group.held_since = group.wake_at = group.unconfirmed_at = None


def rehearse(group: Group, trigger_id: UUID, route: Route, now: datetime) -> None:
    """As `fire` in shadow mode: nothing is under way, and it counts as a run that succeeded at once. Without a cooldown
    only the next notification looks at the group again: it would fire for ever."""
    fire(group, trigger_id, route.on_failure, now)
    group.open_trigger, group.failures = None, 0
    clear = clear_at(group, route)
    group.wake_at = clear if clear is not None and clear > now else None


def shadowed(verdict: Verdict, trigger_id: UUID | None = None) -> Verdict:
    """What is said of a fire in shadow mode."""
    return Verdict(_SUPPRESS, Reason.SHADOW, None, trigger_id, f"in shadow mode; live it would fire: {verdict.detail}")


def redrive_at(group: Group, trigger_id: UUID, route: Route, now: datetime) -> datetime | None:
    """When a dead trigger may be redriven, if not now. It passes its group like a fire: a newer trigger's cooldown stands
    in its way, the backoff of its own death does not."""
    clear = clear_at(group, route) if group.last_trigger != trigger_id else None
    return clear if clear is not None and now < clear else None


def reset(group: Group, now: datetime) -> None:
    """Clear cooldown and backoff. Without an open trigger the group is decided again at once."""
    group.reset_at, group.failures = now, 0
    if group.open_trigger is None:
        group.wake_at = now


def is_spent(alert: Episode, route: Route) -> bool:
    """True when a trigger of the alert has succeeded and the route gives each episode only one."""
    return alert.spent and not route.refire


def may_fire(alert: Episode, route: Route, now: datetime) -> bool:
    """True when the alert still fires, was heard of lately, and nobody and nothing has settled it already."""
    return alert.firing and not (is_stale(alert, route, now) or is_spent(alert, route) or alert.dismissed)


def is_stale(alert: Episode, route: Route, now: datetime) -> bool:
    """True when the alert has not been heard of for so long that it no longer counts as firing."""
    return now - alert.last_seen_at > route.stale_after


def _unless_reset(group: Group, start: datetime | None, pause: timedelta) -> datetime | None:
    if start is None or (group.reset_at is not None and group.reset_at >= start):
        return None
    return start + pause


def _at(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
