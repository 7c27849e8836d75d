"""Mistakes in `schedules:`, each told at its line and column."""

import pytest

from app.policy.file.load import Policy
from tests.unit.test_policy_errors import HEAD, NAME_RULE, errors_of, parse, route

SCHEDULES = [
    ("5", ["7:12: schedules: must be a list"]),
    ("[5]", ["7:13: schedules.0: must be a mapping"]),
    (
        "[{}]",
        ["7:13: schedules.0.cron: required", "7:13: schedules.0.name: required", "7:13: schedules.0.route: required"],
    ),
    (
        "[{name: Weekly, cron: '0 3 * * 1', route: retrain}]",
        [f"7:20: schedules.0.name: {NAME_RULE}"],
    ),
    (
        "[{name: w, cron: '0 3 * *', route: retrain}]",
        [
            "7:29: schedules.0.cron: '0 3 * *' is not a cron expression: it needs five fields, such as 0 3 * * 1",
        ],
    ),
    (
        "[{name: w, cron: '0 25 * * *', route: retrain}]",
        ["7:29: schedules.0.cron: '0 25 * * *' is not a cron expression: bad hour"],
    ),
    (
        "[{name: w, cron: '@weekly', route: retrain}]",
        ["7:29: schedules.0.cron: '@weekly' is not a cron expression: it needs five fields, such as 0 3 * * 1"],
    ),
    (
        "[{name: w, cron: '0 0 30 2 *', route: retrain}]",
        ["7:29: schedules.0.cron: '0 0 30 2 *' is not a cron expression: bad day-of-month"],
    ),
    (
        "[{name: w, cron: '0 0 * 2 1#6', route: retrain}]",
        ["7:29: schedules.0.cron: '0 0 * 2 1#6' is not a cron expression: bad day-of-week"],
    ),
    (
        "[{name: w, cron: '0 3 * * 1', timezone: Europe/Madird, route: retrain}]",
        ["7:52: schedules.0.timezone: there is no time zone 'Europe/Madird'; write one such as Europe/Madrid"],
    ),
    (
        "[{name: w, cron: '0 3 * * 1', timezone: ../../etc/passwd, route: retrain}]",
        ["7:52: schedules.0.timezone: there is no time zone '../../etc/passwd'; write one such as Europe/Madrid"],
    ),
    (
        "[{name: w, cron: '0 3 * * 1', route: retrian}]",
        ["7:49: schedules.0.route: no route is called 'retrian'; did you mean 'retrain'?"],
    ),
    (
        "[{name: w, cron: '0 3 * * 1', route: retrain, group: {model: churn}}]",
        ["7:65: schedules.0.group: must have exactly the labels of the route's group_by: none: leave it out"],
    ),
    (
        "[{name: w, cron: '0 3 * * 1', route: retrain, catch_up: all}]",
        ["7:68: schedules.0.catch_up: must be one or none"],
    ),
    (
        "[{name: w, cron: '0 3 * * 1', route: retrain}, {name: w, cron: '0 3 * * 1', route: retrain}]",
        ["7:66: schedules.1.name: another schedule is called 'w' already"],
    ),
    (
        "[{name: w, cron: '0 3 * * 1', route: retrain, zone: UTC}]",
        [
            "7:58: schedules.0.zone: unknown key; did you mean timezone?",
        ],
    ),
]


@pytest.mark.parametrize(("schedules", "lines"), SCHEDULES)
def test_a_mistake_in_a_schedule_is_told_at_its_place(schedules: str, lines: list[str]) -> None:
    assert errors_of(route() + f"\nschedules: {schedules}") == lines


def test_a_schedule_names_exactly_the_labels_of_its_route_also_those_of_the_defaults() -> None:
    text = HEAD + "defaults: {group_by: [model]}\nroutes: [{match: [], dag: {id: retrain}}]\nschedules:\n"
    entry = "- {name: w, cron: '0 3 * * 1', timezone: Europe/Madrid, route: retrain"
    assert isinstance(parse(text + entry + ", group: {model: churn}}"), Policy)
    wanted = "must have exactly the labels of the route's group_by: model"
    assert errors_of(text + entry + "}") == [f"7:3: schedules.0.group: {wanted}"]
    assert errors_of(text + entry + ", group: {model: churn, region: eu}}") == [f"7:80: schedules.0.group: {wanted}"]
