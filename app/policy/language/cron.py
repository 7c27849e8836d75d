"""Cron expressions: five fields, read in a time zone as Debian's cron reads them, exact over daylight saving time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

# Any instant does to find out whether an expression has occurrences: cronsim looks 50 years ahead.
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)
# To walk through a year of an expression that is due each minute would take seconds; its newest is found much closer.
_LOOK_BACK = (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=366))


@dataclass(frozen=True, slots=True)
class Cron:
    """When something is due. Raises ValueError, with a sentence for the operator, for what cannot be read or never comes.

    A local time that does not exist (spring) is due at the end of the gap, one that exists twice (autumn) is due at its
    first time only; an expression whose minutes or hours begin with a star keeps its pace through both. (Where a clock
    moves by half an hour, on Lord Howe Island, cronsim leaves one of the latter out on that day.)
    """

    expression: str
    timezone: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.expression.split()) != 5:
            raise ValueError(f"{self.expression[:80]!r} is no cron expression: it has five fields, such as 0 3 * * 1")
        object.__setattr__(self, "_zone", read_zone(self.timezone))
        try:
            self.after(_SOME_TIME)
        except CronSimError as error:
            raise ValueError(f"{self.expression[:80]!r} is no cron expression: {str(error).lower()}") from None
        except StopIteration:
            raise ValueError(f"{self.expression[:80]!r} never comes") from None

    def after(self, instant: datetime) -> datetime:
        """The first occurrence later than `instant`; UTC."""
        return next(self.occurrences(instant))

    def newest(self, after: datetime, until: datetime) -> datetime | None:
        """The last occurrence later than `after` and not later than `until`; None when there is none."""
        for back in (*_LOOK_BACK, None):
            start = after if back is None else max(after, until - back)
            found = None
            for occurrence in self.occurrences(start):
                if occurrence > until:
                    break
                found = occurrence
            if found is not None or start == after:
                return found
        return None

    def occurrences(self, after: datetime) -> Iterator[datetime]:
        """Every occurrence later than `after`, without an end; UTC."""
        last = after
        for local in CronSim(self.expression, after.astimezone(self._zone)):
            occurrence = local.astimezone(UTC)
            # In autumn's second hour cronsim still finds what was due in the first, and several times of spring's gap are
            # due at its end.
            if occurrence > last:
                last = occurrence
                yield occurrence

    def __str__(self) -> str:
        return f"{self.expression} ({self.timezone})"


def read_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name[:80]!r}; write one such as Europe/Madrid") from None
