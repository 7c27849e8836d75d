"""Time intervals mean what Alertmanager's mean; what ends when is held to an oracle that only looks at the clock."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from app.policy.intervals import Interval, any_holds, end_of
from tests.sizes import seed, size

MINUTE = timedelta(minutes=1)
OFFICE = {"weekdays": ["monday:friday"], "times": [{"start_time": "09:00", "end_time": "17:00"}]}
NIGHT = [{"start_time": "22:00", "end_time": "24:00"}, {"start_time": "00:00", "end_time": "06:00"}]


def interval(**fields: Any) -> Interval:
    return Interval.model_validate(fields)


def at(text: str) -> datetime:
    """A time with its offset; UTC without one."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


# Days and times after the documentation of Alertmanager and the cases that its own tests name.
MEANINGS = [
    ("nothing is said: always", {}, ["2026-01-02T15:04", "2026-12-31T23:59"], []),
    ("office hours", OFFICE, ["2020-05-04T15:04", "2020-05-05T10:04", "2020-07-08T09:00", "2020-07-08T16:59"],
     ["2020-05-03T15:04", "2020-05-04T08:59", "2020-05-04T17:00", "2020-07-08T05:00"]),
    ("some days of one April", {"days_of_month": ["4:6"], "months": ["april"], "years": ["2020"]},
     ["2020-04-04T00:00", "2020-04-05T12:00", "2020-04-06T23:59"],
     ["2020-04-03T23:59", "2020-04-07T00:00", "2019-04-05T12:00", "2020-06-05T12:00"]),
    ("the last three days of a month", {"days_of_month": ["-3:-1"]},
     ["2020-01-29T00:00", "2020-01-31T23:59", "2020-06-28T00:00", "2020-02-27T00:00", "2021-02-26T00:00"],
     ["2020-01-28T23:59", "2020-03-01T00:00", "2020-02-26T23:59"]),
    ("from the fifth to the end", {"days_of_month": ["5:-1"]}, ["2021-02-28T12:00", "2021-02-05T00:00"],
     ["2021-02-04T23:59"]),
    ("days beyond a month's end are cut", {"months": ["june"], "days_of_month": ["-31:-1"]},
     ["2020-06-01T00:00", "2020-06-30T23:59"], ["2020-05-31T23:59", "2020-07-01T00:00"]),
    ("a day that the month does not have is not its last", {"months": ["february"], "days_of_month": ["30:31"]}, [],
     ["2021-02-28T13:00", "2020-02-29T13:00"]),
    ("all of it together", {"weekdays": ["monday:wednesday", "saturday", "sunday"], "months": ["january:march"],
     "times": [{"start_time": "13:00", "end_time": "15:00"}], "days_of_month": ["1", "10", "20:-1"],
     "years": ["2020:2023"]}, ["2021-01-10T13:00", "2021-01-30T14:24"],
     ["2021-01-09T13:00", "2021-01-20T12:59", "2021-02-02T13:00", "2024-01-01T13:00"]),
    ("the clock of Sydney", OFFICE | {"location": "Australia/Sydney"}, ["2021-04-06T13:00+10:00"], ["2021-04-06T13:00"]),
    ("the clock of Sydney in summer", OFFICE | {"months": ["november"], "location": "Australia/Sydney"},
     ["2021-11-01T09:00+11:00", "2021-10-31T22:00"], ["2021-10-31T21:00"]),
    ("numbers and any case", {"months": ["May:AUGUST", 12], "years": [2026]}, ["2026-12-01T00:00", "2026-05-01T00:00"],
     ["2026-04-30T23:59", "2027-05-01T00:00"]),
    ("a list without a range never holds", {"weekdays": []}, [], ["2026-01-01T00:00"]),
    ("a night is two ranges", {"times": NIGHT}, ["2026-01-01T22:00", "2026-01-01T23:59", "2026-01-01T05:59"],
     ["2026-01-01T06:00", "2026-01-01T21:59"]),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "holds", "not_"), [m[1:] for m in MEANINGS], ids=[m[0] for m in MEANINGS])
def test_an_interval_holds_when_alertmanagers_does(fields: dict[str, Any], holds: list[str], not_: list[str]) -> None:
    built = interval(**fields)
    assert [text for text in holds if not built.contains(at(text))] == []
    assert [text for text in not_ if built.contains(at(text))] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"times": [{"start_time": "17:31", "end_time": "17:31"}]},
        {"times": [{"start_time": "12:30", "end_time": "24:01"}]},
        {"times": [{"start_time": "09:30", "end_time": "07:41"}]},
        {"times": [{"start_time": "24:00", "end_time": "17:41"}]},
        {"times": [{"start_time": "14:03"}]},
        {"times": [{"start_time": "01:99", "end_time": "23:59"}]},
        {"times": [{"start_time": "9:00", "end_time": "10:00"}]},
        {"weekdays": ["friday:monday"]},
        {"weekdays": ["blurgsday"]},
        {"weekdays": ["1:3"]},
        {"weekdays": ["monday:tuesday:friday"]},
        {"weekdays": [True]},
        {"days_of_month": ["0"]},
        {"days_of_month": ["-50:-20"]},
        {"days_of_month": ["1:50"]},
        {"days_of_month": ["-15:5"]},
        {"days_of_month": ["10:-25"]},
        {"months": ["martius:june"]},
        {"months": ["december:january"]},
        {"months": ["13"]},
        {"years": ["2022:2020"]},
        {"years": ["soon"]},
        {"location": "Mars/Olympus"},
        {"location": "Local"},
        {"location": "../etc/passwd"},
        {"location": ""},
    ],
    ids=str,
)
def test_what_alertmanager_refuses_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        interval(**fields)


# -- when it ends ------------------------------------------------------------------------------------------------------


def odd(start: str, end: str) -> dict[str, Any]:
    return {"times": [{"start_time": start, "end_time": end}]}


ZONES = ["Europe/Madrid", "America/New_York"]
SETS: list[list[dict[str, Any]]] = [
    [OFFICE],
    [{"times": NIGHT, "weekdays": ["monday:thursday", "sunday"]}],
    [{"weekdays": ["saturday", "sunday"]}, OFFICE | {"location": "UTC"}],
    [{"days_of_month": ["-2:-1", "1"]}, {"months": ["august"]}],
    [odd("00:00", "02:30"), odd("02:30", "03:30") | {"weekdays": ["sunday"]}, odd("23:30", "24:00")],
    [odd("00:00", "12:00"), odd("12:00", "24:00") | {"months": ["february:july"]}],
    [odd("02:00", "03:00") | {"days_of_month": ["-7:-1"]}],
]


def oracle(sets: Sequence[dict[str, Any]], zone: str, moment: datetime) -> bool:
    """Whether one of them holds, told from the clock alone and from the plain fields."""
    return any(_holds(fields, moment.astimezone(ZoneInfo(fields.get("location", zone)))) for fields in sets)


def _holds(fields: dict[str, Any], wall: datetime) -> bool:
    day, text = wall.strftime("%A").lower(), wall.strftime("%H:%M")
    days = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
    months = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ]
    tomorrow = (wall.replace(tzinfo=None) + timedelta(days=1)).date()
    from_end = -1
    while tomorrow.month == wall.month:
        tomorrow, from_end = tomorrow + timedelta(days=1), from_end - 1
    checks = [
        any(
            t["start_time"] <= text < t["end_time"] for t in fields.get("times", [{"start_time": "", "end_time": "3"}])
        ),
        _within(days.index(day), fields.get("weekdays"), days.index),
        _within(wall.month - 1, fields.get("months"), months.index),
        "days_of_month" not in fields or any(_day(r, wall.day, from_end) for r in fields["days_of_month"]),
    ]
    return all(checks)


def _within(value: int, ranges: list[str] | None, index: Any) -> bool:
    return ranges is None or any(index(r.split(":")[0]) <= value <= index(r.split(":")[-1]) for r in ranges)


def _day(text: str, day: int, from_end: int) -> bool:
    first, last = int(text.split(":")[0]), int(text.split(":")[-1])
    return (first <= day or first < 0) and (first > 0 or first <= from_end) and (
        day <= last if last > 0 else from_end <= last
    )  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("sets", SETS, ids=range(len(SETS)))
def test_over_a_year_every_end_is_the_one_that_the_clock_shows(sets: list[dict[str, Any]], zone: str) -> None:
    chance = random.Random(seed())
    intervals = tuple(interval(**{"location": zone} | fields) for fields in sets)
    pace = size(30, 1) * MINUTE  # every edge above is at half an hour, and so is every switch of a clock
    moments = [at("2026-01-01") + n * pace for n in range(int(timedelta(days=366) / pace))]
    holds = [oracle(sets, zone, moment) for moment in moments]
    end: datetime | None = None
    for place in range(len(moments) - 1, -1, -1):
        moment, before = moments[place], holds[place - 1] if place else False
        end = (end if place + 1 < len(moments) and holds[place + 1] else moment + pace) if holds[place] else None
        if end is None or (not before and place):
            assert any_holds(intervals, moment) == holds[place], moment
        if end is not None and end < moments[-1] and (not before or chance.random() < 0.01):
            assert end_of(intervals, moment + timedelta(seconds=chance.randrange(60))) == end, moment
        if end is None and chance.random() < 0.01:
            assert end_of(intervals, moment) == moment


@pytest.mark.parametrize(
    ("fields", "now", "end"),
    [
        # Madrid puts the clock forward on 29 March 2026 at 02:00 (01:00 UTC), and back on 25 October at 03:00 (01:00 UTC).
        (odd("01:30", "02:30"), "2026-03-29T00:45", "2026-03-29T01:00"),
        (odd("01:30", "03:30"), "2026-03-29T00:45", "2026-03-29T01:30"),
        (odd("02:30", "03:30"), "2026-10-25T00:40", "2026-10-25T01:00"),
        (odd("02:30", "03:30"), "2026-10-25T01:40", "2026-10-25T02:30"),
        (odd("02:00", "03:00"), "2026-10-25T00:10", "2026-10-25T02:00"),
        ({"weekdays": ["sunday"]}, "2026-10-25T12:00", "2026-10-25T23:00"),
        ({"weekdays": ["sunday"]}, "2026-03-29T12:00", "2026-03-29T22:00"),
    ],
)
def test_on_the_days_of_the_switch(fields: dict[str, Any], now: str, end: str) -> None:
    assert end_of((interval(location="Europe/Madrid", **fields),), at(now)) == at(end)


def test_where_midnight_is_skipped_the_day_ends_at_the_switch() -> None:
    # Beirut puts the clock from 00:00 to 01:00 on 29 March 2026.
    thursday_to_saturday = interval(weekdays=["thursday:saturday"], location="Asia/Beirut")
    assert end_of((thursday_to_saturday,), at("2026-03-28T12:00")) == at("2026-03-28T22:00")


@pytest.mark.parametrize(
    ("sets", "end"),
    [
        ([{}], None),
        ([{"weekdays": ["monday:friday"]}, {"weekdays": ["saturday", "sunday"]}], None),
        ([odd("00:00", "12:00"), odd("12:00", "24:00")], None),
        ([odd("00:00", "24:00")], None),
        ([{"years": ["2026:9999"]}], None),
        ([{"years": ["2026:2050"]}], "2051-01-01"),
        ([odd("00:00", "12:00") | {"years": [2026]}, odd("12:00", "24:00")], "2027-01-01"),
        ([{"years": [2026], "location": "Pacific/Auckland"}, {"years": [2026]}], "2027-01-01"),
    ],
    ids=str,
)
def test_what_never_ends_is_told_and_what_ends_late_is_found(sets: list[dict[str, Any]], end: str | None) -> None:
    intervals = tuple(interval(**fields) for fields in sets)
    assert end_of(intervals, at("2026-11-23T13:00")) == (at(end) if end else None)
