"""Cron expressions: five fields, read in a time zone as Debian's cron reads them, exact over daylight saving time."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

# Any instant does to find out whether an expression has occurrences: cronsim looks 50 years ahead.
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cron:
    """When something is due. Raises ValueError, with a sentence for the operator, for what cannot be read or never comes.

    A local time that does not exist (spring) is due at the end of the gap, one that exists twice (autumn) is due at its
    first time only; an expression whose minutes or hours begin with a star keeps its pace through both.
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
        ticks = CronSim(self.expression, instant.astimezone(self._zone))
        found = next(ticks).astimezone(UTC)
        while found <= instant:  # In autumn's second hour cronsim still finds what was due in the first.
            found = next(ticks).astimezone(UTC)
        return found

    def __str__(self) -> str:
        return f"{self.expression} ({self.timezone})"


def read_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name[:80]!r}; write one such as Europe/Madrid") from None
