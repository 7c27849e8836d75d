"""What the doctor says of schedules: when each is due, and which of them their own route refuses."""

import pytest

from app.cli.doctor.schedules import examine_schedules
from app.policy.file.load import parse_policy
from tests.unit.builders import NOW

POLICY = """
version: 1
airflow: [{name: default, url: "http://airflow.test"}]
time_intervals: [{name: nights, time_intervals: [{times: [{start_time: "00:00", end_time: "06:00"}]}]}]
routes: [{name: accuracy, match: [], ROUTE, dag: {id: retrain}}]
schedules: [{name: s, cron: "CRON", route: accuracy}]
"""


@pytest.mark.parametrize(
    ("cron", "route", "level", "says", "step"),
    [
        ("0 3 * * 1", "cooldown: 24h", "ok", "due next at 2026-11-30T03:00:00Z", ""),
        ("0 3 * * *", "cooldown: 23h", "ok", "due next at 2026-11-24T03:00:00Z", ""),
        (
            "0 3 * * *",
            "cooldown: 24h",
            "warn",
            "1d apart, within the route's",
            "less often",
        ),
        (
            "0 */6 * * *",
            "cooldown: 24h",
            "warn",
            "6h apart, within the route's cooldown of 1d",
            "less often",
        ),
        ("0 3 * * 1,2", "cooldown: 36h", "warn", "1d apart", "shorten the cooldown"),
        ("0 3 * * 1", "mute: [nights]", "warn", "its next 8 occurrences are all muted", "outside of nights"),
        ("0 3,12 * * 1", "mute: [nights], cooldown: 1h", "ok", "due next", ""),
    ],
)
def test_a_schedule_is_told_by_when_it_is_due_or_by_what_refuses_it(
    cron: str, route: str, level: str, says: str, step: str
) -> None:
    text = POLICY.replace("CRON", cron).replace("ROUTE", route)
    [finding] = examine_schedules(parse_policy(text, "p.yaml", {}), NOW)
    assert (finding.check, finding.level) == ("schedule s", level)
    assert says in finding.detail
    assert step in finding.next_step
