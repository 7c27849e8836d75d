"""One request that invents thousands of groups: those after the first thousand are refused, each alone."""

import json
from collections.abc import Sequence

import pytest

from app.intake.receive import MOST_GROUPS, bounded
from app.intake.sources import native
from app.policy.file.load import parse_policy

POLICY = parse_policy(
    """
version: 1
airflow: [{name: default, url: http://airflow:8080}]
routes:
  - {name: a, match: [alertname=A], group_by: [model], dag: {id: a}}
  - {name: b, match: [alertname=B], group_by: [model], dag: {id: b}}
  - {name: whole, match: [alertname=C], dag: {id: c}}
""",
    "policy.yaml",
    {},
)


def body(alerts: Sequence[tuple[str, str, str]]) -> bytes:
    time = "2026-11-30T06:00:00Z"
    return json.dumps(
        [
            {
                "alert_id": f"{name}{n}",
                "severity": "critical",
                "timestamp": time,
                "status": status,
                "labels": {"alertname": name, "model": model},
            }
            for n, (name, model, status) in enumerate(alerts)
        ]
    ).encode()


FIRING, RESOLVED = "firing", "resolved"
CASES = {
    "few": ([("A", "1", FIRING), ("A", "2", FIRING)], []),
    "one group many times": ([("A", "1", FIRING)] * 9, []),
    "more groups": ([("A", str(n), FIRING) for n in range(6)], [3, 4, 5]),
    "a group that was named already": ([("A", str(n % 4), FIRING) for n in range(8)], [3, 7]),
    "groups of two routes": ([("A", "1", FIRING), ("B", "1", FIRING), ("A", "2", FIRING), ("B", "2", FIRING)], [3]),
    "a route with one group": ([("C", str(n), FIRING) for n in range(9)], []),
    "ends": ([("A", str(n), RESOLVED) for n in range(9)], []),
    "alerts without a route": ([("X", str(n), FIRING) for n in range(9)], []),
}


@pytest.mark.parametrize(("alerts", "refused"), CASES.values(), ids=CASES)
def test_alerts_of_further_groups_are_quarantined_alone(alerts: list[tuple[str, str, str]], refused: list[int]) -> None:
    raw = body(alerts)
    found = bounded(native.read(raw, 100), POLICY, most=3)
    assert [bad.index for bad in found.bad] == refused
    assert found.order == [at for at in range(len(alerts)) if at not in refused]
    assert [alert.alert_id for alert in found.alerts] == [f"{alerts[at][0]}{at}" for at in found.order]
    for bad in found.bad:
        assert json.loads(bad.body)["alert_id"] == bad.alert_id
        assert bad.error == "this request names more than 3 groups of alerts: send fewer at a time"


def test_ten_thousand_groups_of_one_request_become_a_thousand() -> None:
    found = bounded(native.read(body([("A", str(n), FIRING) for n in range(10_000)]), 10_000), POLICY)
    assert (len(found.alerts), len(found.bad)) == (MOST_GROUPS, 9000)
