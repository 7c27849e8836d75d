"""Cron expressions: five fields in a time zone, read as Debian's cron reads them. Exact over daylight saving time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from app.kit.errors import unless_out_of_files

# The search for the first occurrence may start at any instant: cronsim looks 50 years ahead.
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)
# An expression that is due each minute has its newest occurrence close by. A walk through a whole year would take seconds.
_LOOK_BACK = (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=366))


@dataclass(frozen=True, slots=True)
class Cron:
    """When something is due. Raises ValueError, with a sentence for the operator, for an expression that cannot be read or
    never occurs.

    A local time that does not exist (in spring) is due at the end of the gap. A local time that exists twice (in autumn) is
    due the first time only. An expression whose minutes or hours begin with a star keeps its pace through both. (On Lord
    Howe Island, where clocks move by half an hour, cronsim leaves out one occurrence of such an expression on that day.)
    """

    expression: str
    timezone: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.expression.split()) != 5:
            raise ValueError(
                f"{self.expression[:80]!r} is not a cron expression: it needs five fields, such as 0 3 * * 1"
            )
        object.__setattr__(self, "_zone", read_zone(self.timezone))
        try:
            self.after(_SOME_TIME)
        except CronSimError as error:
            raise ValueError(f"{self.expression[:80]!r} is not a cron expression: {str(error).lower()}") from None
        except StopIteration:
            raise ValueError(f"{self.expression[:80]!r} never occurs") from None

    def after(self, instant: datetime) -> datetime:
        """The first occurrence after `instant`, in UTC."""
        return next(self.occurrences(instant))

    def newest(self, after: datetime, until: datetime) -> datetime | None:
        """The last occurrence after `after` and up to `until`; None when there is none."""
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
        """Every occurrence after `after`, in UTC, without an end."""
        last = after
        for local in CronSim(self.expression, after.astimezone(self._zone)):
            occurrence = local.astimezone(UTC)
            # In autumn cronsim finds the occurrences of the repeated hour twice. In spring all occurrences in the gap are
            # due at its end. Each instant counts once.
            if occurrence > last:
                last = occurrence
                yield occurrence

    def __str__(self) -> str:
        return f"{self.expression} ({self.timezone})"


def read_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        if isinstance(error, OSError):
            unless_out_of_files(error)
        raise ValueError(f"there is no time zone {name[:80]!r}; write one such as Europe/Madrid") from None
