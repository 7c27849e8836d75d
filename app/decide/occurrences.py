"""What a schedule asks for when it comes due. Pure."""

from datetime import datetime, timedelta
from typing import Final

from app.decide.state import Reason, RunRequest
from app.kit.times import at
from app.policy.language.durations import format_duration
from app.policy.schedules import Schedule
from app.policy.schema import Route

#: An occurrence is missed when it is seen so late. Cron has no finer step.
MISSED_AFTER: Final = timedelta(minutes=1)


def passed_over(schedule: Schedule, occurrence: datetime, now: datetime) -> str | None:
    """Why an occurrence is not decided; None: it is."""
    late = now - occurrence
    if schedule.catch_up == "one" or late <= MISSED_AFTER:
        return None
    return f"passed over: seen {format_duration(late)} late, and catch_up is none"


def request_of(schedule: Schedule, occurrence: datetime) -> RunRequest:
    """The request of one occurrence."""
    why = f"due at {at(occurrence)}"
    return RunRequest(Reason.SCHEDULED, f"the schedule {schedule.name}", why, {})


def group_of(schedule: Schedule, route: Route) -> dict[str, str]:
    """The labels of the group that a schedule starts, in the order of the route."""
    return {label: schedule.group[label] for label in route.group_by}
