"""The facts of a group: until when they hold it or cool it down, and how a fire, an end and a reset change them. Pure.

The facts are in the row of the group. Every deadline is computed from them with the policy in force.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from app.decide.state import DEAD, FAILED, GONE, LOST, SUCCESS, Episode, Group
from app.policy.schema import Route


def held_until(group: Group, route: Route) -> datetime:
    """When the debounce of a held group ends: from the group's first alert, with the policy in force."""
    if group.held_since is None:
        raise ValueError(f"group {group.key} is not held")
    return group.held_since + route.debounce


def clear_at(group: Group, route: Route) -> datetime | None:
    """When the cooldown or the backoff of the group ends; None: it has none.

    It does not look at the open trigger of the group: its callers do that first.
    """
    releases = (group.on_failure or route.on_failure) == "release"  # `on_failure`, as it was when the trigger fired
    if backing_off(group) and (group.outcome == DEAD or releases):
        return _unless_reset(group, group.ended_at, backoff(group.failures, route))
    starts = [t for t in (group.fired_at, group.accepted_at) if t is not None]
    return _unless_reset(group, max(starts), route.cooldown) if starts else None


def backing_off(group: Group) -> bool:
    """True when the newest trigger did not bring a retrain."""
    return group.outcome in (FAILED, LOST, GONE, DEAD)


def backoff(failures: int, route: Route) -> timedelta:
    """The pause after so many failures in a row: doubled each time, at most the cooldown, so that a broken DAG is not
    started again and again at the same pace."""
    if not route.failure_backoff:
        return timedelta(0)
    longest = max(route.cooldown, route.failure_backoff)
    doublings = min(max(failures, 1) - 1, 40)  # beyond every cooldown, and short of what a timedelta can hold
    return longest if longest / route.failure_backoff <= 2**doublings else route.failure_backoff * 2**doublings


def wake_at(group: Group, route: Route) -> datetime | None:
    """When the group must be looked at without a new notification; None: the end of its run looks at it, or there is
    nothing to wait for."""
    if group.held:
        return held_until(group, route)
    if group.open_trigger is not None:
        return None  # The follower or the relay sets it when the run ends.
    return clear_at(group, route)


def record_end(group: Group, outcome: str, route: Route | None, now: datetime, *, counted: bool = False) -> None:
    """Write the end of the newest trigger into the facts of its group, and when the group is looked at next.

    A lost trigger ends twice: first as lost, while its run is still open, and again when its run is over. The second time
    `counted` says that `failures` has this failure already.
    """
    group.outcome, group.ended_at = outcome, now
    if outcome == SUCCESS:
        group.failures = 0
    elif not counted:
        group.failures += 1
    if group.open_trigger is not None:
        return
    clear = wake_at(group, route) if route else None
    # Without a cooldown to wait for, what was suppressed meanwhile is decided at once. An earlier wake stays: an alert that
    # its resolved overtook may reopen then.
    due = max(clear or now, now)
    group.wake_at = due if group.wake_at is None else min(group.wake_at, due)


def accept(group: Group, now: datetime) -> None:
    """Airflow has the DAG run. The cooldown counts again from here: time spent waiting for Airflow must not use it up."""
    group.accepted_at = now


def end(group: Group, trigger_id: UUID, outcome: str, route: Route | None, now: datetime, *, counted: bool) -> bool:
    """The trigger is over, and its group is free. False: the group has another open trigger, or none."""
    if group.open_trigger != trigger_id:
        return False
    group.open_trigger = group.held_since = None
    record_end(group, outcome, route, now, counted=counted)
    return True


def lose(group: Group, trigger_id: UUID, route: Route | None, now: datetime) -> bool:
    """The DAG run is open past its run_timeout: it counts as failed, and its group stays in flight. False: the group has
    another open trigger, or none."""
    if group.open_trigger != trigger_id:
        return False
    record_end(group, LOST, route, now)
    return True


def fire(group: Group, trigger_id: UUID, on_failure: str, now: datetime) -> None:
    """The trigger is on its way, fired or redriven: it is the group's open one, and the cooldown counts from here."""
    group.open_trigger = group.last_trigger = trigger_id
    group.fired_at, group.on_failure = now, on_failure
    # A reset frees one fire. If it stayed, it would also end the cooldown of a fire in the same instant.
    group.accepted_at = group.ended_at = group.outcome = group.reset_at = None
    group.held_since = group.wake_at = group.unconfirmed_at = None


def rehearse(group: Group, trigger_id: UUID, route: Route, now: datetime) -> None:
    """`fire` in shadow mode: nothing is under way, and it counts as a run that succeeded at once. Without a cooldown only
    the next notification looks at the group again, or it would fire without end."""
    fire(group, trigger_id, route.on_failure, now)
    group.open_trigger, group.failures = None, 0
    clear = clear_at(group, route)
    group.wake_at = clear if clear is not None and clear > now else None


def redrive_at(group: Group, trigger_id: UUID, route: Route, now: datetime) -> datetime | None:
    """When a dead trigger may be redriven; None: now. The cooldown of a newer trigger stops it, the backoff of its own death
    does not."""
    clear = clear_at(group, route) if group.last_trigger != trigger_id else None
    return clear if clear is not None and now < clear else None


def reset(group: Group, now: datetime) -> None:
    """Clear cooldown and backoff, and forget what did not help. Without an open trigger the group is decided again at
    once."""
    group.reset_at, group.failures = now, 0
    release(group, now)
    if group.open_trigger is None:
        group.wake_at = now


def is_ineffective(group: Group, route: Route) -> bool:
    """Whether the group fires no more, because its newest retrains did not help. Another entry of the policy begins anew."""
    rule = route.on_no_effect
    if group.ineffective < rule.after or rule.then != "hold":
        return False
    return group.ineffective_under == route.digest


def release(group: Group, now: datetime) -> None:
    """Forget what did not help: only retrains that fire from now on count."""
    group.ineffective, group.ineffective_since, group.released_at = 0, None, now


def may_act(group: Group, route: Route | None, now: datetime) -> bool:
    """True when an alert can make the group fire or cancel, so that all alerts of the group must be known: it is held, or
    clear."""
    if group.held:
        return True
    clear = clear_at(group, route) if route else None
    return group.open_trigger is None and (clear is None or clear <= now)


def is_spent(episode: Episode, route: Route) -> bool:
    """True when a trigger of the alert has succeeded and the route gives each episode only one."""
    return episode.spent and not route.refire


def may_fire(episode: Episode, route: Route, now: datetime) -> bool:
    """True when the alert may start a DAG run: it fires and is not stale, spent or cancelled by a person."""
    return episode.firing and not (is_stale(episode, route, now) or is_spent(episode, route) or episode.dismissed)


def is_stale(episode: Episode, route: Route, now: datetime) -> bool:
    """True when no notification of the alert came for `stale_after`: it no longer counts as firing."""
    return now - episode.last_seen_at > route.stale_after


def _unless_reset(group: Group, start: datetime | None, pause: timedelta) -> datetime | None:
    if start is None or (group.reset_at is not None and group.reset_at >= start):
        return None
    return start + pause


# -- after a change of group_by -----------------------------------------------------------------------------------------

# When `group_by` gets finer or coarser, or two replicas run different files, the alerts of one model are in groups of
# another shape. A group that has not fired yet takes over what those groups have fired. So a change of the file does not
# end a cooldown.


def inherit(group: Group, others: Iterable[Group]) -> bool:
    """Give a group that has not fired the facts of the newest trigger among `others`, the groups of its route. A trigger
    under way comes before all others. True when that changed the group."""
    if group.last_trigger is not None:
        return False
    kin = [other for other in others if other.last_trigger is not None and _agree(group, other)]
    if not kin:
        return False
    _take(group, max(kin, key=_rank))
    return True


def _agree(group: Group, other: Group) -> bool:
    """Whether two groups of a route are not the same, and have the same value of every label that both have."""
    if group.key == other.key or (group.route, group.mode) != (other.route, other.mode):
        return False
    return all(group.labels[name] == other.labels[name] for name in group.labels.keys() & other.labels.keys())


def _under_way(group: Group) -> bool:
    return group.open_trigger is not None and not group.held


def _rank(group: Group) -> tuple[bool, float, str]:
    return _under_way(group), group.fired_at.timestamp() if group.fired_at else 0.0, group.key


def _take(group: Group, source: Group) -> None:
    """The end of a run under way is written only into the group that fired it. Here the whole cooldown of that run counts,
    whatever its outcome will be."""
    group.fired_at, group.accepted_at = source.fired_at, source.accepted_at
    group.last_trigger, group.on_failure, group.failures = source.last_trigger, source.on_failure, source.failures
    if not _under_way(source):
        group.outcome, group.ended_at = source.outcome, source.ended_at
    resets = [time for time in (group.reset_at, source.reset_at) if time is not None]
    group.reset_at = max(resets, default=None)  # A person may have reset this group before it was looked at.
