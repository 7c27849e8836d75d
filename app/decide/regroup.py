"""What a group takes over from the groups that its route had under another `group_by`. Pure.

When `group_by` gets finer or coarser, or two replicas run different files, the alerts of one model are in groups of
another shape. A group that has not fired yet takes over what those groups have fired. So nobody gets around a cooldown by
a change of the file.
"""

from collections.abc import Iterable

from app.decide.state import Group


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
