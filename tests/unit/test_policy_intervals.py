"""`time_intervals` and `mute` in a policy file: what is wrong is told at its place, and what is right reaches the route."""

from datetime import UTC, datetime

import pytest

from app.policy.file.load import parse_policy
from tests.unit.test_policy_errors import HEAD, errors_of

BEFORE = HEAD + "routes: []\ntime_intervals:\n- name: freeze\n  time_intervals:\n  - "  # line 7 is next, from column 5

MISTAKES = [
    ("{times: [{start_time: '9:00', end_time: '17:00'}]}",
     ["8:27: time_intervals.0.time_intervals.0.times.0.start_time: must be a time of day such as '09:30',"
      " from '00:00' to '24:00'"]),
    ("{times: [{start_time: '09:00', end_time: '24:01'}]}",
     ["8:46: time_intervals.0.time_intervals.0.times.0.end_time: must be a time of day such as '09:30',"
      " from '00:00' to '24:00'"]),
    ("{times: [{start_time: '22:00', end_time: '06:00'}]}",
     ["8:14: time_intervals.0.time_intervals.0.times.0: start_time must be before end_time;"
      " write a range past midnight as two"]),
    ("{times: [{start_time: '22:00'}]}", ["8:14: time_intervals.0.time_intervals.0.times.0.end_time: required"]),
    ("{times: [{start: '22:00', end_time: '23:00'}]}",
     ["8:14: time_intervals.0.time_intervals.0.times.0.start_time: required",
      "8:15: time_intervals.0.time_intervals.0.times.0.start: unknown key; did you mean start_time?"]),
    ("{weekdays: [monday, 'tuesday:funday']}",
     ["8:25: time_intervals.0.time_intervals.0.weekdays.1: 'funday' is not a weekday, such as monday"]),
    ("{weekdays: ['friday:monday']}",
     ["8:17: time_intervals.0.time_intervals.0.weekdays.0: the end of a range must not be before its beginning"]),
    ("{days_of_month: ['-1:3', 0]}",
     ["8:22: time_intervals.0.time_intervals.0.days_of_month.0: a range from a negative day must end at a negative day",
      "8:30: time_intervals.0.time_intervals.0.days_of_month.1: 0 is not a day of a month: 1 to 31,"
      " or -1 to -31 from its end"]),
    ("{months: [13]}", ["8:15: time_intervals.0.time_intervals.0.months.0: '13' is not a month, such as may or 5"]),
    ("{years: [1.5]}",
     ["8:14: time_intervals.0.time_intervals.0.years.0: must be one value, or two with : between them"]),
    ("{location: Spain}",
     ["8:16: time_intervals.0.time_intervals.0.location: must be a time zone such as Europe/Madrid; Local is not supported,"
      " because replicas may differ in it"]),
    ("{weekday: [monday]}",
     ["8:6: time_intervals.0.time_intervals.0.weekday: unknown key; did you mean weekdays?"]),
    ("monday", ["8:5: time_intervals.0.time_intervals.0: must be a mapping"]),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "expected"), MISTAKES)
def test_mistakes_in_an_interval_are_told_at_their_place(entry: str, expected: list[str]) -> None:
    assert errors_of(BEFORE + entry) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("routes: []\ntime_intervals: {}", ["6:17: time_intervals: must be a list"]),
        ("routes: []\ntime_intervals: [{}]",
         ["6:18: time_intervals.0.name: required", "6:18: time_intervals.0.time_intervals: required"]),
        ("routes: []\ntime_intervals: [{name: a, time_intervals: []}, {name: a, time_intervals: []}]",
         ["6:56: time_intervals.1.name: another time interval is called 'a' already"]),
        ("time_intervals: [{name: freeze, time_intervals: []}]\nroutes: [{match: [], dag: {id: x}, mute: [freze]}]",
         ["6:43: routes.0.mute.0: no time interval is called 'freze'; did you mean 'freeze'?"]),
        ("routes: []\ndefaults: {mute: [freeze]}",
         ["6:19: defaults.mute.0: no time interval is called 'freeze'; there is none"]),
    ],
)  # fmt: skip
def test_mistakes_in_names_are_told(text: str, expected: list[str]) -> None:
    assert errors_of("version: 1\n\n" + HEAD.removeprefix("version: 1\n") + text) == expected


def test_a_name_stands_for_all_its_intervals_and_a_default_for_every_route() -> None:
    text = (
        HEAD
        + """
time_intervals:
- {name: freeze, time_intervals: [{months: [december]}, {months: [january], days_of_month: ['1:6']}]}
- {name: nights, time_intervals: [{times: [{start_time: '22:00', end_time: '24:00'}]}]}
defaults: {mute: [freeze]}
routes:
- {name: one, match: ['a="1"'], dag: {id: x}, mute: [freeze, nights]}
- {name: two, match: ['a="2"'], dag: {id: x}}
- {name: three, match: ['a="3"'], dag: {id: x}, mute: []}
"""
    )
    policy = parse_policy(text, "policy.yaml", {})
    assert [[name for name, _ in policy.mutes(route)] for route in policy.routes] == [
        ["freeze", "freeze", "nights"],
        ["freeze", "freeze"],
        [],
    ]
    first = policy.mutes(policy.routes[0])
    now = datetime(2026, 1, 6, 23, 59, tzinfo=UTC)
    assert [interval.contains(now) for _, interval in first] == [False, True, True]


def test_check_reads_intervals_without_their_variables() -> None:
    text = BEFORE + "{years: ['${YEAR}'], location: '${ZONE}', times: [{start_time: '${FROM}', end_time: '${TO}'}]}"
    policy = parse_policy(text, "policy.yaml", {}, require_env=False)
    assert [interval.name for interval in policy.time_intervals] == ["freeze"]
