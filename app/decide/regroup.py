"""What a group counts of groups that a route had under another `group_by`. Pure.

After `group_by` was refined or coarsened, or where two replicas run different files, the alerts of one model stand in
groups of another shape. A group that has not fired yet takes over what the others have fired, as if it had been its own:
a change of the file is no way around a cooldown.
"""

from collections.abc import Iterable

from app.decide.state import Group


def inherit(group: Group, others: Iterable[Group]) -> bool:
    """Give a group that has not fired the facts of the newest trigger among `others`, its route's groups that have fired.
    A trigger under way comes before all others. True when that changed the group."""
    if group.last_trigger is not None:
        return False
    kin = [other for other in others if other.last_trigger is not None and _agree(group, other)]
    if not kin:
        return False
    _take(group, max(kin, key=_rank))
    return True


def _agree(one: Group, other: Group) -> bool:
    """Whether they have the same value of every label that both have, and are not the same group."""
    if one.key == other.key or (one.route, one.mode) != (other.route, other.mode):
        return False
    return all(one.labels[name] == other.labels[name] for name in one.labels.keys() & other.labels.keys())


def _under_way(group: Group) -> bool:
    return group.open_trigger is not None and not group.held


def _rank(group: Group) -> tuple[bool, float, str]:
    return _under_way(group), group.fired_at.timestamp() if group.fired_at else 0.0, group.key


def _take(group: Group, source: Group) -> None:
    """The end of a run under way will be written into the group that fired it alone: here its cooldown stands in for it,
    whole, whatever the outcome."""
    group.fired_at, group.accepted_at = source.fired_at, source.accepted_at
    group.last_trigger, group.on_failure, group.failures = source.last_trigger, source.on_failure, source.failures
    if not _under_way(source):
        group.outcome, group.ended_at = source.outcome, source.ended_at
    resets = [time for time in (group.reset_at, source.reset_at) if time is not None]
    group.reset_at = max(resets, default=None)  # A person may have reset this group before it was looked at.
