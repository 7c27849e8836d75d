"""`schedules:`, DAG runs by the clock."""

import hashlib
import json
from datetime import datetime, timedelta
from functools import cached_property
from itertools import islice, pairwise
from typing import Annotated, Final, Literal

from pydantic import Field

from app.policy.language.cron import Cron, read_zone
from app.policy.language.durations import format_duration
from app.policy.values import Frozen, Name, Text, choice, when_known

_LOOKED_AT: Final = 8  # occurrences


def _read_zone(value: str) -> str:
    return read_zone(value).key


def _read_cron(value: str) -> str:
    return Cron(value).expression


class Schedule(Frozen):
    """DAG runs by the clock. They skip the debounce. They obey the cooldown and the limit, and they start a
    cooldown."""

    name: Name
    """Lower-case letters, digits, `_` and `-`, at most 63."""
    cron: Annotated[Text, when_known(_read_cron)]
    """Minute, hour, day of the month, month, day of the week. When both days are given, either is enough."""
    timezone: Annotated[Text, when_known(_read_zone)] = "UTC"
    """The time zone in which the cron expression is read."""
    route: Text
    """The route whose DAG starts."""
    group: dict[str, Text] = Field(default_factory=dict)
    """A value for each label of the route's `group_by`."""
    catch_up: Annotated[Literal["one", "none"], choice("one", "none")] = "one"
    """What happens to times that passed while no gateway ran: `one` starts a run for the newest one, `none` starts none."""

    @cached_property
    def times(self) -> Cron:
        """When it is due."""
        return Cron(self.cron, self.timezone)

    @cached_property
    def definition(self) -> str:
        """A hash of what makes it another schedule. A schedule that changed counts from the change on."""
        meaning = [self.cron.split(), self.timezone, self.route, sorted(self.group.items())]
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:16]

    def refused_by(self, cooldown: timedelta, after: datetime) -> str | None:
        """A sentence when one of the next times after `after` falls into the cooldown of the time before it; else None.

        A cooldown counts from the moment when Airflow accepts the run, a little later than the time itself.
        """
        due = islice(self.times.occurrences(after), _LOOKED_AT)
        gap = min(later - earlier for earlier, later in pairwise(due))
        if gap > cooldown:
            return None
        often, cooling = format_duration(gap), format_duration(cooldown)
        return (
            f"two of its times are {often} apart, within the route's cooldown of {cooling}: the second one is refused"
        )
