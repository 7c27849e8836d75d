"""Grafana's webhook: bodies in the documented shape are read like Alertmanager's, and nothing in its envelope matters."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.decide.alert import Alert, Parsed, Unreadable
from app.decide.engine import PureEngine
from app.decide.state import Action, Reason
from app.intake.sources import alertmanager, grafana
from app.policy.file.load import load_policy, parse_policy
from app.policy.schema import Policy
from tests.unit.builders import NOW, REORDER, ids
from tests.unit.test_alerts_alertmanager import BAD_ALERTS, BODIES, entry, note

EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.yaml"
DOCUMENTED = Path(__file__).parents[1] / "fixtures" / "grafana"
START = datetime(2026, 11, 23, 9, 28, 32, 157076, tzinfo=UTC)
END = datetime(2026, 11, 23, 9, 48, 30, tzinfo=UTC)


def body(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCUMENTED / f"{name}.json").read_bytes())
    return found


def read(sent: Any, most: int = 10_000) -> Parsed:
    return grafana.read(sent if isinstance(sent, bytes) else json.dumps(sent).encode(), most)


@pytest.mark.parametrize(
    ("name", "alerts"),
    [
        ("firing_single", [("churn", True, None)]),
        ("mixed_firing_and_resolved", [("churn", True, None), ("fraud", False, END)]),
        ("resolved_without_values", [("churn", False, END)]),
    ],
)
def test_a_documented_body_is_read_whole(name: str, alerts: list[tuple[str, bool, datetime | None]]) -> None:
    parsed = read((DOCUMENTED / f"{name}.json").read_bytes())
    assert [(a.labels["model"], a.firing, a.ends_at) for a in parsed.alerts] == alerts
    assert (parsed.order, parsed.bad) == (list(range(len(alerts))), [])
    for alert in parsed.alerts:
        assert (alert.alert_id, alert.severity, alert.source) == ("ModelAccuracyLow", "critical", "grafana")
        assert alert.starts_at == START
        assert len(alert.fingerprint) == 16
        assert not alert.timestamped


def test_every_documented_body_stands_in_a_table() -> None:
    assert len(list(DOCUMENTED.glob("*.json"))) == 3 + len({name for name, *_ in NO_DATA})


def routes(matcher: str) -> Policy:
    text = (
        f"version: 1\nairflow: [{{name: a, url: http://a}}]\nroutes: [{{match: [{matcher}], dag: {{id: retrain}}}}]\n"
    )
    return parse_policy(text, "p.yaml", {})


#: What Grafana sends of a rule without data, under which policy, and the decision. The shape is that of a body that
#: Grafana Cloud sent in September 2025, with our names: `values` is null, and no label of a series is there.
NO_DATA = [
    ("no_data", "the example", Action.IGNORE, Reason.NO_ROUTE),
    ("no_data", """'severity="critical"'""", Action.FIRE, Reason.NEW_ALERT),
    ("no_data", """'severity="critical"', 'datasource_uid=""'""", Action.IGNORE, Reason.NO_ROUTE),
    ("no_data_as_alerting", "the example", Action.HOLD, Reason.DEBOUNCING),
    ("no_data_as_alerting", """'severity="critical"', 'datasource_uid=""'""", Action.FIRE, Reason.NEW_ALERT),
]


@pytest.mark.parametrize(("name", "matchers", "action", "reason"), NO_DATA)
def test_a_rule_without_data_starts_only_what_the_policy_lets_it(
    name: str, matchers: str, action: Action, reason: Reason
) -> None:
    known = load_policy(EXAMPLE, {}) if matchers == "the example" else routes(matchers)
    [alert] = read((DOCUMENTED / f"{name}.json").read_bytes()).alerts
    assert ("model" in alert.labels) == (name == "no_data_as_alerting")
    assert alert.labels.get("rulename") == (None if name == "no_data_as_alerting" else "ModelAccuracyLow")
    [answer] = PureEngine(known, NOW, REORDER, ids()).take([alert], NOW)
    assert (answer.decision.action, answer.decision.reason) == (action, reason)


def test_an_alert_is_the_one_that_alertmanager_would_tell_but_for_its_source() -> None:
    sent = body("mixed_firing_and_resolved")
    alerts = alertmanager.read(json.dumps(sent | {"version": "4"}).encode(), 10).alerts
    assert read(sent).alerts == [replace(alert, source="grafana") for alert in alerts]


@pytest.mark.parametrize(
    "change",
    [
        {"version": "4"},
        {"version": 2},
        {"version": None},
        {"orgId": "main"},
        {"title": None, "state": "pending", "message": 5},
        {"status": "resolved"},
        {"truncatedAlerts": 9},
    ],
    ids=str,
)
def test_nothing_in_the_envelope_changes_an_alert(change: dict[str, Any]) -> None:
    assert read(body("firing_single") | change).alerts == read(body("firing_single")).alerts


@pytest.mark.parametrize("extra", [{"values": None}, {"values": {"A": "NaN"}}, {"imageURL": ""}, {"extraData": [1]}])
def test_what_grafana_adds_to_an_alert_plays_no_part(extra: dict[str, Any]) -> None:
    sent = body("firing_single")
    sent["alerts"][0] |= extra
    assert read(sent).alerts == read(body("firing_single")).alerts


def test_a_payload_of_the_operators_own_template_needs_only_its_alerts() -> None:
    found: list[Alert] = read({"alerts": [entry()]}).alerts
    assert [a.alert_id for a in found] == ["Low"]


def test_an_alert_known_from_alertmanager_keeps_the_source_that_told_it() -> None:
    sent = note(entry(fingerprint="f" * 16))
    raw = json.dumps(sent).encode()
    sources = [a.source for read in (alertmanager.read, grafana.read) * 2 for a in read(raw, 10).alerts]
    assert sources == ["alertmanager", "grafana"] * 2


@pytest.mark.parametrize("bad", BAD_ALERTS.values(), ids=BAD_ALERTS.keys())
def test_a_bad_alert_is_set_aside_and_the_others_are_read(bad: Any) -> None:
    parsed = read({"alerts": [entry(), bad, entry(labels={"alertname": "Other"})]})
    assert ([a.alert_id for a in parsed.alerts], parsed.order) == (["Low", "Other"], [0, 2])
    (found,) = parsed.bad
    assert (found.index, bool(found.error)) == (1, True)


ANY_VERSION = {name: case for name, case in BODIES.items() if name != "another version"}


@pytest.mark.parametrize(("sent", "status"), ANY_VERSION.values(), ids=ANY_VERSION.keys())
def test_a_body_that_cannot_be_read_is_refused_with_a_reason(sent: bytes, status: int) -> None:
    with pytest.raises(Unreadable) as refused:
        read(sent)
    assert (refused.value.status, bool(str(refused.value))) == (status, True)


def test_the_refusal_of_another_shape_names_grafana() -> None:
    with pytest.raises(Unreadable, match="as Grafana's webhook sends it"):
        read([entry()])


def test_more_alerts_than_the_cap_are_refused_whole() -> None:
    with pytest.raises(Unreadable, match="GATEWAY_MAX_ALERTS") as refused:
        read({"alerts": [entry()] * 3}, most=2)
    assert refused.value.status == 413
