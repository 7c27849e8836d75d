"""When a cron expression comes due, over a whole year and both switches of the clock, against a walk over its minutes."""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest

from app.policy.language.cron import Cron

YEAR = 2026
BEGIN, END = datetime(YEAR, 1, 1, tzinfo=UTC), datetime(YEAR + 1, 1, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
ZONES = ["Europe/Madrid", "America/New_York", "Asia/Kolkata", "UTC"]


@cache
def walk(zone: str) -> list[tuple[datetime, datetime, list[datetime]]]:
    """Each quarter of an hour of the year: the moment, the wall clock, and the wall clock's times that were jumped over
    just before."""
    quarters = []
    moment, expected = BEGIN, BEGIN.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    while moment < END:
        local = moment.astimezone(ZoneInfo(zone))
        wall = local.replace(tzinfo=None, fold=local.fold)
        skipped = []
        while expected < wall.replace(fold=0):
            skipped.append(expected)
            expected += QUARTER
        quarters.append((moment, wall, skipped))
        expected = wall.replace(fold=0) + QUARTER
        moment += QUARTER
    return quarters


def due(expression: str, zone: str) -> list[datetime]:
    """What the rule says: a job at a fixed time runs once a day, right after a jump that leaves it out, and the first of
    two times; any other runs whenever the wall clock shows its time."""
    minutes, hours, days, months, weekdays = expression.split()
    fixed = zone != "UTC" and not minutes.startswith("*") and not hours.startswith("*")

    def shows(wall: datetime) -> bool:
        return (
            matches(minutes, wall.minute)
            and matches(hours, wall.hour)
            and matches(days, wall.day)
            and matches(months, wall.month)
            and matches(weekdays, wall.isoweekday() % 7)
        )

    found = []
    for moment, wall, skipped in walk(zone):
        again = fixed and wall.fold == 1
        if (shows(wall) and not again) or (fixed and any(map(shows, skipped))):
            found.append(moment)
    return found


def matches(field: str, value: int) -> bool:
    """A field of the expressions below: *, */n, and lists."""
    if field.startswith("*"):
        return value % int(field.partition("/")[2] or 1) == 0
    return value in [int(part) for part in field.split(",")]


EXPRESSIONS = [
    "0 3 * * 1",
    "30 2 * * *",
    "30 1 * * *",
    "0,30 2,3 * * *",
    "15,45 1,2 * * 0",
    "*/30 * * * *",
    "15 * * * *",
    "0 */6 * * *",
    "*/15 2 * * *",
    "0 0 1 * *",
    "45 23 * 3,10,11 *",
    "0 12 29 2 *",
]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_over_a_year_each_occurrence_comes_once_and_in_order(expression: str, zone: str) -> None:
    times = Cron(expression, zone)
    found = list(takewhile(lambda t: t < END, times.occurrences(BEGIN - timedelta(microseconds=1))))
    assert found == due(expression, zone)
    for asked in found[:: len(found) // 20 + 1]:
        assert times.after(asked - timedelta(seconds=1)) == asked


@pytest.mark.parametrize("zone", ["Europe/Madrid", "America/New_York"])
@pytest.mark.parametrize("expression", ["30 2 * * *", "30 1 * * *", "0 */6 * * *", "0 0 1 * *"])
def test_looking_back_finds_the_newest_from_wherever_one_stands(expression: str, zone: str) -> None:
    times, expected = Cron(expression, zone), due(expression, zone)
    taken = []
    last = moment = BEGIN - timedelta(microseconds=1)
    while moment < END:
        moment += timedelta(hours=3, minutes=17, seconds=11)
        if (newest := times.newest(last, min(moment, END - QUARTER))) is not None:
            taken.append(last := newest)
    assert taken == expected
    assert times.newest(BEGIN - timedelta(seconds=1), END - QUARTER) == expected[-1], "after a year away"
    assert times.newest(expected[-1], END - QUARTER) is None


def test_in_the_hour_that_comes_twice_a_schedule_that_is_new_waits_for_tomorrow() -> None:
    second = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)  # 02:15 for the second time, in Madrid
    times = Cron("30 2 * * *", "Europe/Madrid")
    assert times.after(second) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert times.newest(second, second + timedelta(hours=1)) is None


def test_the_day_fields_are_both_or_either_as_in_cron() -> None:
    either = Cron("0 0 13 * 5")
    both = Cron("0 0 1-7 * 1#1")
    assert either.after(datetime(2026, 11, 1, tzinfo=UTC)) == datetime(2026, 11, 6, tzinfo=UTC)
    assert both.after(datetime(2026, 11, 10, tzinfo=UTC)) == datetime(2026, 12, 1, tzinfo=UTC)
