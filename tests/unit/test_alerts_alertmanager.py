"""Alertmanager's webhook: bodies recorded from a real one, and everything that is not one."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.decide.alert import ANNOTATION_LENGTH, Alert, Parsed, Unreadable
from app.intake.sources import alertmanager

RECORDED = Path(__file__).parents[1] / "fixtures" / "alertmanager"
BEGAN = "2026-11-23T09:28:32.892Z"
START = datetime(2026, 11, 23, 9, 28, 32, 892000, tzinfo=UTC)


def read(body: Any, most: int = 10_000) -> Parsed:
    return alertmanager.read(body if isinstance(body, bytes) else json.dumps(body).encode(), most)


def entry(**fields: Any) -> dict[str, Any]:
    """A good alert with these fields instead; None leaves one out."""
    known = {"status": "firing", "labels": {"alertname": "Low", "severity": "critical"}, "startsAt": BEGAN}
    return {name: value for name, value in {**known, **fields}.items() if value is not None}


def note(*alerts: Any, **fields: Any) -> dict[str, Any]:
    return {"version": "4", "status": "firing", "alerts": list(alerts), **fields}


def only(**fields: Any) -> Alert:
    (alert,) = read(note(entry(**fields))).alerts
    return alert


@pytest.mark.parametrize(
    ("name", "alerts"),
    [
        ("firing_single", [("fraud", True)]),
        ("repeat_firing", [("fraud", True)]),
        ("resolved_single", [("fraud", False)]),
        ("firing_group_of_two", [("churn", True), ("fraud", True)]),
        ("mixed_firing_and_resolved", [("churn", False), ("fraud", True)]),
        ("group_resolved", [("fraud", False)]),
        ("truncated_max_alerts_1", [("churn", True)]),
        ("truncated_status_resolved_while_other_firing", [("churn", False)]),
    ],
)
def test_a_recorded_body_is_read_whole(name: str, alerts: list[tuple[str, bool]]) -> None:
    parsed = read((RECORDED / f"{name}.json").read_bytes())
    assert [(a.labels["model"], a.firing) for a in parsed.alerts] == alerts
    assert parsed.order == list(range(len(alerts)))
    assert parsed.bad == []
    for alert in parsed.alerts:
        assert (alert.alert_id, alert.severity, alert.source) == ("ModelAccuracyLow", "critical", "alertmanager")
        assert len(alert.fingerprint) == 16
        assert alert.starts_at.tzinfo is UTC
        assert (alert.ends_at is None) == alert.firing
        assert not alert.timestamped


def test_every_recorded_body_stands_in_the_table() -> None:
    assert len(list(RECORDED.glob("*.json"))) == 8


def test_the_alerts_own_status_counts_and_not_the_notifications() -> None:
    parsed = read(note(entry(status="resolved", endsAt=BEGAN), entry(), status="resolved"))
    assert [a.firing for a in parsed.alerts] == [False, True]


@pytest.mark.parametrize("zero", ["0001-01-01T00:00:00Z", None])
def test_gos_zero_time_is_no_end(zero: str | None) -> None:
    assert only(endsAt=zero).ends_at is None
    assert only(status="resolved", endsAt=zero).ends_at is None


def test_the_end_of_a_firing_alert_is_a_forecast_and_not_taken() -> None:
    assert only(endsAt="2026-11-23T10:00:00Z").ends_at is None


def test_times_are_taken_to_utc() -> None:
    assert only(startsAt="2026-11-23T10:28:32.892+01:00").starts_at == START


def test_an_alert_without_a_fingerprint_gets_one_over_its_labels_but_severity() -> None:
    prints = {
        severity: only(labels={"alertname": "Low", "severity": severity, "model": "churn"}).fingerprint
        for severity in ("warning", "critical")
    }
    assert len(set(prints.values())) == 1
    assert only(labels={"alertname": "Low", "model": "fraud"}).fingerprint not in prints.values()
    assert only(fingerprint="e5883e505f90221a").fingerprint == "e5883e505f90221a"


def test_labels_may_be_anything_that_prometheus_allows() -> None:
    labels = {"alertname": "Präzision", "ünïcode": "🔥", "empty": "", "dotted.name": "x"}
    alert = only(labels=labels)
    assert (alert.labels, alert.alert_id, alert.severity) == (labels, "Präzision", "")


def test_without_an_alertname_the_id_is_empty() -> None:
    assert only(labels={}).alert_id == ""


def test_long_prose_is_cut_and_the_alert_is_decided() -> None:
    alert = only(annotations={"description": "x" * 100_000, "summary": "short"})
    assert (len(alert.annotations["description"]), alert.annotations["summary"]) == (ANNOTATION_LENGTH, "short")


def test_unknown_fields_are_tolerated() -> None:
    body = note(entry(generatorURL="http://x", newField={"deep": [1]}), truncatedAlerts=3, groupKey="{}", another=None)
    assert len(read(body).alerts) == 1


BAD_ALERTS: dict[str, Any] = {
    "not an object": 7,
    "null": None,
    "no status": entry(status=None),
    "another status": entry(status="pending"),
    "no labels": entry(labels=None),
    "labels in a list": entry(labels=["alertname"]),
    "a label that is a number": entry(labels={"alertname": 5}),
    "a label that is null": entry(labels={"alertname": None}),
    "an empty label name": entry(labels={"": "x"}),
    "a label too long": entry(labels={"alertname": "x" * 4097}),
    "10,000 labels": entry(labels={f"l{n}": "x" for n in range(10_000)}),
    "no start": entry(startsAt=None),
    "a start without an offset": entry(startsAt="2026-11-23T09:28:32"),
    "a start that is no time": entry(startsAt="yesterday"),
    "a start before 1970": entry(startsAt="1969-12-31T23:59:59Z"),
    "a start beyond 2199": entry(startsAt="2200-01-01T00:00:00Z"),
    "a start in the year 0": entry(startsAt="0000-01-01T00:00:00Z"),
    "a start at the edge of the calendar": entry(startsAt="9999-12-31T23:59:59-14:00"),
    "an end beyond 2199": entry(status="resolved", endsAt="9999-01-01T00:00:00Z"),
    "NUL in a label": entry(labels={"alertname": "a\x00b"}),
    "NUL in a label's name": entry(labels={"a\x00b": "x"}),
    "NUL in an annotation": entry(annotations={"summary": "\x00"}),
    "NUL in the fingerprint": entry(fingerprint="\x00"),
    "a lone surrogate in a label": entry(labels={"alertname": "\ud800"}),
    "a lone surrogate in an annotation": entry(annotations={"summary": "\udfff"}),
    "a fingerprint too long": entry(fingerprint="f" * 129),
}


@pytest.mark.parametrize("bad", BAD_ALERTS.values(), ids=BAD_ALERTS.keys())
def test_a_bad_alert_is_set_aside_and_the_others_are_read(bad: Any) -> None:
    parsed = read(note(entry(), bad, entry(labels={"alertname": "Other"})))
    assert [a.alert_id for a in parsed.alerts] == ["Low", "Other"]
    assert parsed.order == [0, 2]
    (found,) = parsed.bad
    assert found.index == 1
    assert found.error
    for text in (found.error, found.alert_id or "", found.body.decode()):
        assert "\x00" not in text
        text.encode()


@pytest.mark.parametrize("bad", BAD_ALERTS.values(), ids=BAD_ALERTS.keys())
def test_a_body_of_nothing_but_bad_alerts_is_refused_and_says_where(bad: Any) -> None:
    with pytest.raises(Unreadable) as refused:
        read(note(bad, bad))
    assert refused.value.status == 422
    assert {e["pointer"].split("/")[1] for e in refused.value.errors} == {"0", "1"}
    assert all(e["message"] for e in refused.value.errors)


def test_one_bad_among_ninety_nine_good_costs_only_itself() -> None:
    parsed = read(note(*[entry()] * 50, {"status": "firing"}, *[entry()] * 49))
    assert (len(parsed.alerts), [b.index for b in parsed.bad]) == (99, [50])


BODIES = {
    "nothing": (b"", 400),
    "spaces": (b"   ", 400),
    "not JSON": (b"alert!", 400),
    "half a body": (b'{"version":"4","alerts":[{', 400),
    "two values": (b"{} {}", 400),
    "not UTF-8": (b'{"version":"4","alerts":[{"status":"\xff\xfe"}]}', 400),
    "deep nesting": (b"[" * 100_000 + b"]" * 100_000, 400),
    "deep objects": (b'{"alerts":' * 50_000, 400),
    "null": (b"null", 422),
    "a number": (b"1e999999", 422),
    "a huge integer": (b"1" * 4000, 422),
    "a string": (b'"alerts"', 422),
    "a list": (b"[]", 422),
    "an empty object": (b"{}", 422),
    "no alerts": (json.dumps(note()).encode(), 422),
    "alerts that are an object": (b'{"version":"4","alerts":{"0":{}}}', 422),
    "another version": (json.dumps(note(entry(), version="3")).encode(), 422),
}


@pytest.mark.parametrize(("body", "status"), BODIES.values(), ids=BODIES.keys())
def test_a_body_that_cannot_be_read_is_refused_with_a_reason(body: bytes, status: int) -> None:
    with pytest.raises(Unreadable) as refused:
        read(body)
    assert (refused.value.status, bool(str(refused.value))) == (status, True)


@pytest.mark.parametrize("alert", [entry(), {}], ids=["good alerts", "bad alerts"])
def test_more_alerts_than_the_cap_are_refused_whole(alert: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="3 alerts; GATEWAY_MAX_ALERTS allows 2") as refused:
        read(note(alert, alert, alert), most=2)
    assert refused.value.status == 413
    assert len(read(note(entry(), entry()), most=2).alerts) == 2
