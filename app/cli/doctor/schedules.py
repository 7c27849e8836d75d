"""Schedules that would seldom start anything, because their own route refuses most occurrences."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from app.cli.doctor.finding import Finding, good, warn
from app.decide.rules import mute_of
from app.kit.times import at
from app.policy.schedules import Schedule
from app.policy.schema import Policy, Route

_LOOKED_AT = 8  # future occurrences


def examine_schedules(policy: Policy, now: datetime) -> Iterator[Finding]:
    """One finding per schedule: when it is due, or what will refuse it."""
    for schedule in policy.schedules:
        route = policy.route(schedule.route)
        if route is not None:
            yield _examine(policy, schedule, route, now)


def _examine(policy: Policy, schedule: Schedule, route: Route, now: datetime) -> Finding:
    check = f"schedule {schedule.name}"
    due = list(islice(schedule.times.occurrences(now), _LOOKED_AT))
    if all(mute_of(policy, route, {}, at) is not None for at in due):
        cause = f"its next {len(due)} occurrences are all muted on the route {route.name}"
        return warn(
            check, cause, f"Schedule it outside of {', '.join(route.mute)}, or remove the interval from the route."
        )
    refused = schedule.refused_by(route.cooldown, now)
    if refused is not None:
        return warn(check, refused, f"Schedule it less often, or shorten the cooldown of the route {route.name}.")
    return good(check, f"due next at {at(due[0])}")
