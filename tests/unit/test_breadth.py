"""One request with very many alerts. Those of groups after the first thousand are refused, each alone. The others are
decided in parts."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.decide.books import MATES
from app.intake.receive import MOST_AT_ONCE, MOST_GROUPS, cut
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
    found, _ = cut(native.read(raw, 100), POLICY, most=3)
    assert [bad.index for bad in found.bad] == refused
    assert found.order == [at for at in range(len(alerts)) if at not in refused]
    assert [alert.alert_id for alert in found.alerts] == [f"{alerts[at][0]}{at}" for at in found.order]
    for bad in found.bad:
        assert json.loads(bad.body)["alert_id"] == bad.alert_id
        assert bad.error == "this request names more than 3 groups of alerts: send fewer at a time"


def test_ten_thousand_groups_of_one_request_become_a_thousand() -> None:
    found, parts = cut(native.read(body([("A", str(n), FIRING) for n in range(10_000)]), 10_000), POLICY)
    assert (len(found.alerts), len(found.bad)) == (MOST_GROUPS, 9000)
    assert [len(part) for part in parts] == [500, 500]


#: (name, model, status) of the alerts, and how many each part has.
PARTS = {
    "groups by turns": ([("A", str(n % 40), FIRING) for n in range(1200)], [480, 480, 240]),
    "groups of every size": (
        [("A", "1", FIRING)] * 300 + [("B", "1", FIRING)] * 300 + [("A", "2", FIRING)] * 200,
        [300, 500],
    ),
    "a group that is larger than a part": ([("A", "1", FIRING)] * 600 + [("A", "2", FIRING)] * 10, [600, 10]),
    "a group that no decision reads as a whole": ([("C", str(n), FIRING) for n in range(2100)], [1000, 1000, 100]),
    "no route": ([("X", str(n), FIRING) for n in range(1500)], [1000, 500]),
    "the firing of an alert and its end": (
        [("A", str(n % 20), status) for n in range(300) for status in (FIRING, RESOLVED)],
        [480, 120],
    ),
}


@pytest.mark.parametrize(("alerts", "sizes"), PARTS.values(), ids=PARTS)
def test_a_large_body_is_decided_in_parts_of_whole_groups(alerts: list[tuple[str, str, str]], sizes: list[int]) -> None:
    found, parts = cut(native.read(body(alerts), 10_000), POLICY)
    assert [len(part) for part in parts] == sizes
    assert sorted(at for part in parts for at in part) == list(range(len(found.alerts)))
    of_group: dict[tuple[str, str], list[int]] = {}
    for number, part in enumerate(parts):
        assert len(part) <= max(MOST_AT_ONCE, MATES)
        for at in part:
            name, model = (found.alerts[at].labels[label] for label in ("alertname", "model"))
            of_group.setdefault((name, model if name != "C" else ""), []).append(at)
            if name in "AB":
                home = of_group[name, model][0]
                assert home in part, f"alert {at} stands in part {number}, and its group began elsewhere"
    for places in of_group.values():
        assert places == sorted(places), "the alerts of a group keep their order"


def test_notifications_of_one_alert_keep_their_order_though_they_are_of_different_groups() -> None:
    """A fingerprint does not count the severity, and a route may ask for it. Each alert fires, and then it ends."""
    alerts = [(name, str(n), status) for n in range(300) for name, status in (("A", FIRING), ("X", RESOLVED))]
    parsed = native.read(body(alerts), 10_000)
    same = [replace(alert, fingerprint=f"alert {at // 2}") for at, alert in enumerate(parsed.alerts)]
    _, parts = cut(replace(parsed, alerts=same), POLICY)
    seen = [at for part in parts for at in part]
    assert len(seen) == 600
    assert all(seen.index(at) < seen.index(at + 1) for at in range(0, 600, 2))
