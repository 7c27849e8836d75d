"""`time_intervals:` in Alertmanager's syntax and with its meaning, and when a set of them ends. Pure.

Source of the meaning: Alertmanager's documentation of `time_interval`. One interval holds when each of its fields holds,
and a field that is left out always holds. Ranges include both ends, except the end of a time. All fields are read on the
clock of `location` (UTC without one). Of several intervals, or several names, any one is enough.
"""

import calendar
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Annotated, Final, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer, model_validator

from app.kit.errors import unless_out_of_files
from app.policy.language.variables import Unexpanded
from app.policy.values import Frozen, Text

WEEKDAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS: Final = tuple(calendar.month_name[1:13])
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_DAY: Final = 24 * 60  # minutes
_MINUTE: Final = timedelta(minutes=1)
_STRIDE: Final = 400  # days that one look ahead covers at most
_LOOKS: Final = 5000  # looks ahead; each reaches at least the next edge
_HORIZON: Final = timedelta(days=60 * 366)


class Range(NamedTuple):
    """From `begin` to `end`, both included."""

    begin: int
    end: int


def _read_time(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # read already
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("must be a time of day such as '09:30', from '00:00' to '24:00'")
    return int(value[:2]) * 60 + int(value[3:])


def _start(value: object) -> object:
    return 0 if isinstance(value, Unexpanded) else _read_time(value)


def _end(value: object) -> object:
    return _DAY if isinstance(value, Unexpanded) else _read_time(value)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


_ClockText = PlainSerializer(_clock, return_type=str, when_used="json")


class TimeRange(Frozen):
    """Minutes of a day, without the last one. A range past midnight must be two ranges."""

    start_time: Annotated[int, BeforeValidator(_start), _ClockText]
    """From this minute on, such as `'09:30'`."""
    end_time: Annotated[int, BeforeValidator(_end), _ClockText]
    """Up to this minute, not included. The end of the day is `'24:00'`. Write a range past midnight as two."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start_time >= self.end_time:
            raise ValueError("start_time must be before end_time; write a range past midnight as two")
        return self


def _weekday(text: str) -> int:
    if text not in WEEKDAYS:
        raise ValueError(f"{text!r} is not a weekday, such as monday")
    return WEEKDAYS.index(text)


def _month(text: str) -> int:
    names = [name.lower() for name in MONTHS]
    if text in names:
        return names.index(text) + 1
    if not re.fullmatch(r"\+?0*([1-9]|1[0-2])", text):
        raise ValueError(f"{text!r} is not a month, such as may or 5")
    return int(text)


def _number(text: str) -> int:
    if not re.fullmatch(r"[-+]?[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _days_of_month(found: Range) -> Range:
    begin, end = found
    for day in found:
        if not 1 <= abs(day) <= 31:
            raise ValueError(f"{day} is not a day of a month: 1 to 31, or -1 to -31 from its end")
    if begin < 0 < end:
        raise ValueError("a range from a negative day must end at a negative day")
    shortest = 28  # days; a range that is out of order in the shortest month is refused for every month
    if (begin + shortest if begin < 0 else begin) > (end + shortest if end < 0 else end):
        raise ValueError(f"day {end} is always before day {begin}")
    return found


def _in_order(found: Range) -> Range:
    if found.begin > found.end:
        raise ValueError("the end of a range must not be before its beginning")
    return found


def _reader(member: Callable[[str], int], judge: Callable[[Range], Range], whole: Range) -> BeforeValidator:
    """Reads a range from its text; `whole` stands in for a ${VARIABLE} that `check` does not know."""

    def read(value: object) -> object:
        if isinstance(value, Range):
            return value
        if isinstance(value, Unexpanded):
            return whole
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError("must be one value, or two with : between them")
        parts = str(value).lower().split(":")
        if len(parts) > 2:
            raise ValueError("must be one value, or two with : between them")
        return judge(Range(member(parts[0]), member(parts[-1])))

    return BeforeValidator(read)


_RangeText = PlainSerializer(lambda found: f"{found.begin}:{found.end}", return_type=str, when_used="json")
_Loose = Field(strict=False)  # a list in the file becomes a tuple
Weekday = Annotated[InstanceOf[Range], _reader(_weekday, _in_order, Range(0, 6)), _RangeText]
DayOfMonth = Annotated[InstanceOf[Range], _reader(_number, _days_of_month, Range(1, 31)), _RangeText]
Month = Annotated[InstanceOf[Range], _reader(_month, _in_order, Range(1, 12)), _RangeText]
Year = Annotated[InstanceOf[Range], _reader(_number, _in_order, Range(1, 9999)), _RangeText]


def _read_location(value: object) -> object:
    if isinstance(value, ZoneInfo):
        return value
    if isinstance(value, Unexpanded):
        return ZoneInfo("UTC")
    try:
        if isinstance(value, str) and value:
            return ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        if isinstance(error, OSError):
            unless_out_of_files(error)
    raise ValueError(
        "must be a time zone such as Europe/Madrid; Local is not supported, because replicas may differ in it"
    )


_ZoneText = PlainSerializer(lambda zone: zone.key, return_type=str, when_used="json")
Location = Annotated[InstanceOf[ZoneInfo], BeforeValidator(_read_location), _ZoneText]


class Interval(Frozen):
    """A time in which every field holds. It begins and ends at whole minutes, and clocks change at whole minutes too."""

    times: Annotated[tuple[TimeRange, ...], _Loose] | None = None
    """Times of day."""
    weekdays: Annotated[tuple[Weekday, ...], _Loose] | None = None
    """Days of the week, or ranges such as `monday:friday`."""
    days_of_month: Annotated[tuple[DayOfMonth, ...], _Loose] | None = None
    """Days of the month, or ranges. `-1` is the last day."""
    months: Annotated[tuple[Month, ...], _Loose] | None = None
    """Months by name or number, or ranges."""
    years: Annotated[tuple[Year, ...], _Loose] | None = None
    """Years, or ranges such as `2026:2030`."""
    location: Location | None = None
    """The time zone. Without it UTC."""

    @property
    def zone(self) -> tzinfo:
        return self.location or UTC

    def contains(self, at: datetime) -> bool:
        """Whether the interval holds at this moment."""
        wall = at.astimezone(self.zone)
        return self._has_date(wall.date()) and self._end_minute(wall) is not None

    def holds_until(self, at: datetime) -> datetime | None:
        """A minute up to which it surely holds, for a whole minute `at` that it contains; None: it never ends."""
        wall = at.astimezone(self.zone).replace(tzinfo=None)
        end = self._end_minute(wall)
        if self.times is not None and end is not None and not self._all_day:
            return self._on_the_wall(at, wall, datetime.combine(wall.date(), time()) + end * _MINUTE)
        if all(field is None for field in (self.weekdays, self.days_of_month, self.months, self.years)):
            return None
        day = wall.date()
        for _ in range(_STRIDE):
            if day.year >= 9998:
                return None
            day += timedelta(days=1)
            if not self._has_date(day):
                break
        # If this midnight does not exist, this is the moment at which the clock jumps over it.
        return datetime.combine(day, time(), self.zone).astimezone(UTC)

    def _on_the_wall(self, at: datetime, wall: datetime, target: datetime) -> datetime:
        """When the clock shows `target`, less than a day ahead, or an earlier change of the clock."""
        low, high = 0, (target - wall) // _MINUTE
        if self._offset(at + high * _MINUTE - timedelta(seconds=1)) == self._offset(at):
            return at + high * _MINUTE
        while high - low > 1:
            middle = (low + high) // 2
            same = self._offset(at + middle * _MINUTE) == self._offset(at)
            low, high = (middle, high) if same else (low, middle)
        return at + high * _MINUTE

    def _offset(self, at: datetime) -> timedelta | None:
        return at.astimezone(self.zone).utcoffset()

    @property
    def _all_day(self) -> bool:
        return self.times is not None and any(t.start_time == 0 and t.end_time == _DAY for t in self.times)

    def _end_minute(self, wall: datetime) -> int | None:
        """The minute of the day at which the current time range ends; None: the clock is in no time range."""
        if self.times is None:
            return _DAY
        minute = wall.hour * 60 + wall.minute
        return max((t.end_time for t in self.times if t.start_time <= minute < t.end_time), default=None)

    def _has_date(self, day: date) -> bool:
        return (
            _among(day.year, self.years)
            and _among(day.month, self.months)
            and _among(day.isoweekday() % 7, self.weekdays)
            and self._has_day_of_month(day)
        )

    def _has_day_of_month(self, day: date) -> bool:
        if self.days_of_month is None:
            return True
        last = calendar.monthrange(day.year, day.month)[1]
        return any(_from_start(r.begin, last) <= day.day <= _from_start(r.end, last) for r in self.days_of_month)


class TimeInterval(Frozen):
    """Times, in Alertmanager's syntax and with its meaning. A key that is left out always holds."""

    name: Text
    """What `mute` of a route names."""
    time_intervals: Annotated[tuple[Interval, ...], Field(strict=False)]
    """It holds while one of these holds."""


def _among(value: int, ranges: Sequence[Range] | None) -> bool:
    return ranges is None or any(begin <= value <= end for begin, end in ranges)


def _from_start(day: int, last: int) -> int:
    return last + day + 1 if day < 0 else day


@lru_cache(256)
def _end_of(intervals: tuple[Interval, ...], minute: datetime) -> datetime | None:
    at = minute
    for _ in range(_LOOKS):
        ends = [interval.holds_until(at) for interval in intervals if interval.contains(at)]
        if not ends:
            return at
        if None in ends:
            return None
        at = max(end for end in ends if end is not None)
        if at - minute > _HORIZON:
            return None
    return None


def any_holds(intervals: Sequence[Interval], now: datetime) -> bool:
    """Whether one of the intervals holds now."""
    return any(interval.contains(now) for interval in intervals)


def end_of(intervals: tuple[Interval, ...], now: datetime) -> datetime | None:
    """The first moment from `now` on at which none of the intervals holds; None: no end was found.

    It is exact also on the days on which clocks change. The work is bounded: it looks sixty years ahead by days, and seven
    years ahead by pieces of half a day.
    """
    if not any_holds(intervals, now):
        return now
    # Everything begins and ends at whole minutes, so the answer for a minute holds for each moment in it.
    return _end_of(intervals, now.astimezone(UTC).replace(second=0, microsecond=0))
