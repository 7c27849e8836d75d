"""Repeats of an alert are recognised without being read anew, and never taken for one another."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from app.decide.alert import Alert
from app.intake.sources import alertmanager, native
from app.intake.sources.alertmanager import WebhookAlert, to_alert
from app.intake.sources.read import ItemCache

ALERT: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "ModelAccuracyLow", "model": "churn", "severity": "critical"},
    "annotations": {"summary": "Accuracy of churn is 0.7"},
    "startsAt": "2026-11-23T09:28:32.892Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "fingerprint": "e5883e505f90221a",
}
NATIVE = {
    "alert_id": "churn",
    "severity": "critical",
    "timestamp": "2026-11-23T03:00:00Z",
    "labels": {"model": "churn"},
}


def webhook(alert: dict[str, Any]) -> Alert:
    return alertmanager.read(json.dumps({"version": "4", "alerts": [alert]}).encode(), 10).alerts[0]


def posted(alert: dict[str, Any]) -> Alert:
    return native.read(json.dumps(alert).encode(), 10).alerts[0]


@pytest.mark.parametrize(
    ("read", "body"), [pytest.param(webhook, ALERT, id="alertmanager"), pytest.param(posted, NATIVE, id="native")]
)
def test_a_repeat_is_the_very_same_alert(read: Callable[[dict[str, Any]], Alert], body: dict[str, Any]) -> None:
    assert read(body) is read(dict(reversed(body.items())))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"status": "resolved", "endsAt": "2026-11-23T10:00:00Z"}, {"firing": False}, id="its end"),
        pytest.param(
            {"startsAt": "2026-11-23T09:28:33Z"},
            {"starts_at": datetime(2026, 11, 23, 9, 28, 33, tzinfo=UTC)},
            id="a moved start",
        ),
        pytest.param(
            {"labels": {**ALERT["labels"], "severity": "warning"}}, {"severity": "warning"}, id="another severity"
        ),
        pytest.param({"labels": {"alertname": "Other"}}, {"alert_id": "Other"}, id="a fingerprint that lies"),
        pytest.param({"annotations": {}}, {"annotations": {}}, id="other words"),
    ],
)
def test_what_differs_in_anything_is_read_anew(change: dict[str, Any], expected: dict[str, Any]) -> None:
    before = webhook(ALERT)
    changed = webhook({**ALERT, **change})
    assert changed is not before
    assert {name: getattr(changed, name) for name in expected} == expected
    assert webhook(ALERT) == before


def test_the_same_instant_in_another_offset_is_the_same_alert() -> None:
    assert webhook({**ALERT, "startsAt": "2026-11-23T10:28:32.892+01:00"}).starts_at == webhook(ALERT).starts_at


def test_alerts_without_a_fingerprint_are_told_apart() -> None:
    models = ["churn", "fraud", "churn"]
    found = [webhook({**ALERT, "fingerprint": "", "labels": {**ALERT["labels"], "model": m}}) for m in models]
    assert [alert.labels["model"] for alert in found] == models
    assert len({alert.fingerprint for alert in found}) == 2


def test_memory_stays_bounded_however_many_and_large_the_alerts_are() -> None:
    repeats: ItemCache[WebhookAlert] = ItemCache(to_alert, lambda alert: alert.fingerprint, most=10)
    for number in range(100):
        repeats.to_alert(WebhookAlert.model_validate({**ALERT, "fingerprint": f"{number:016x}"}))
    assert len(repeats) <= 10
    large = {**ALERT, "fingerprint": "large", "annotations": {"prose": "x" * 100_000}}
    first, second = (repeats.to_alert(WebhookAlert.model_validate(large)) for _ in range(2))
    assert first == second
    assert first is not second


def test_what_cannot_be_read_is_refused_every_time() -> None:
    repeats: ItemCache[WebhookAlert] = ItemCache(to_alert, lambda alert: alert.fingerprint)
    bad = {**ALERT, "labels": {"alertname": "a\x00b"}}
    for _ in range(2):
        with pytest.raises(ValueError, match="NUL"):
            repeats.to_alert(WebhookAlert.model_validate(bad))
    assert len(repeats) == 0
