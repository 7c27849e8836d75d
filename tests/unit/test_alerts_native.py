"""The gateway's own alert: three fields are enough, and what is misspelt is told."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from app.decide.alert import Alert, Parsed, Unreadable
from app.intake.sources import native

AT = "2026-11-23T09:28:32Z"
TIME = datetime(2026, 11, 23, 9, 28, 32, tzinfo=UTC)
THREE = {"alert_id": "drift", "severity": "warning", "timestamp": AT}


def read(body: Any, most: int = 10_000) -> Parsed:
    return native.read(body if isinstance(body, bytes) else json.dumps(body).encode(), most)


def only(**fields: Any) -> Alert:
    (alert,) = read(THREE | fields).alerts
    return alert


def test_exactly_three_fields_are_an_alert() -> None:
    alert = only()
    assert (alert.alert_id, alert.severity, alert.starts_at, alert.ends_at) == ("drift", "warning", TIME, None)
    assert (alert.firing, alert.timestamped, alert.source) == (True, True, "native")
    assert alert.labels == {"alertname": "drift", "severity": "warning"}


@pytest.mark.parametrize("body", [THREE, [THREE]], ids=["an object", "a list"])
def test_one_object_and_a_list_of_one_are_the_same(body: Any) -> None:
    assert read(body) == read(THREE)


def test_leading_space_is_no_matter() -> None:
    assert len(read(b"\n\t [" + json.dumps(THREE).encode() + b"]").alerts) == 1


def test_a_list_keeps_its_order() -> None:
    bodies = [THREE | {"alert_id": str(n)} for n in range(20)]
    assert [a.alert_id for a in read(bodies).alerts] == [str(n) for n in range(20)]


def test_labels_of_the_senders_own_stay_but_the_severity_is_the_alerts() -> None:
    alert = only(labels={"alertname": "ModelDrift", "severity": "info", "model": "churn"})
    assert alert.labels == {"alertname": "ModelDrift", "severity": "warning", "model": "churn"}
    assert (alert.alert_id, alert.severity) == ("drift", "warning")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"severity": "critical"}, True),
        ({"timestamp": "2027-01-01T00:00:00Z"}, True),
        ({"status": "resolved"}, True),
        ({"annotations": {"note": "x"}}, True),
        ({"labels": {"severity": "info"}}, True),
        ({"labels": {"alertname": "drift"}}, True),
        ({"alert_id": "other"}, False),
        ({"labels": {"model": "churn"}}, False),
        ({"alert_id": "other", "labels": {"alertname": "drift"}}, False),
    ],
    ids=lambda value: str(value),
)
def test_an_alert_is_known_by_its_id_and_its_labels_but_severity(change: dict[str, Any], same: bool) -> None:
    assert (only(**change).fingerprint == only().fingerprint) is same


def test_the_order_of_labels_does_not_matter() -> None:
    assert only(labels={"a": "1", "b": "2"}).fingerprint == only(labels={"b": "2", "a": "1"}).fingerprint


def test_a_resolved_ended_when_it_says() -> None:
    alert = only(status="resolved")
    assert (alert.firing, alert.ends_at) == (False, TIME)


def test_an_offset_is_taken_to_utc() -> None:
    assert only(timestamp="2026-11-23T14:58:32+05:30").starts_at == TIME


BAD: dict[str, Any] = {
    "no id": {"severity": "warning", "timestamp": AT},
    "no severity": {"alert_id": "drift", "timestamp": AT},
    "no timestamp": {"alert_id": "drift", "severity": "warning"},
    "an empty id": THREE | {"alert_id": ""},
    "an id that is a number": THREE | {"alert_id": 5},
    "an id too long": THREE | {"alert_id": "x" * 513},
    "an empty severity": THREE | {"severity": ""},
    "a severity too long": THREE | {"severity": "x" * 65},
    "a misspelt field": THREE | {"lables": {}},
    "another status": THREE | {"status": "acknowledged"},
    "a timestamp in seconds": THREE | {"timestamp": 1763890112},
    "a timestamp in milliseconds": THREE | {"timestamp": 1763890112000},
    "a timestamp that is true": THREE | {"timestamp": True},
    "a timestamp of digits": THREE | {"timestamp": "1763890112"},
    "a timestamp without an offset": THREE | {"timestamp": "2026-11-23T09:28:32"},
    "a date alone": THREE | {"timestamp": "2026-11-23"},
    "a timestamp of another century": THREE | {"timestamp": "1926-11-23T09:28:32Z"},
    "a timestamp far ahead": THREE | {"timestamp": "2926-11-23T09:28:32Z"},
    "a label that is a number": THREE | {"labels": {"version": 3}},
    "too many labels": THREE | {"labels": {f"l{n}": "x" for n in range(129)}},
    "NUL in the id": THREE | {"alert_id": "a\x00"},
    "NUL in the severity": THREE | {"severity": "\x00"},
    "NUL in a label": THREE | {"labels": {"model": "\x00"}},
    "a lone surrogate": THREE | {"alert_id": "\ud83d"},
    "a list in a list": [THREE],
    "null": None,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_alert_costs_only_itself(bad: Any) -> None:
    parsed = read([THREE, bad, THREE | {"alert_id": "other"}])
    assert ([a.alert_id for a in parsed.alerts], parsed.order) == (["drift", "other"], [0, 2])
    (found,) = parsed.bad
    assert (found.index, bool(found.error)) == (1, True)
    (found.error + (found.alert_id or "")).encode()


@pytest.mark.parametrize(("name", "bad"), [item for item in BAD.items() if isinstance(item[1], dict)], ids=str)
def test_a_bad_alert_alone_is_refused_and_says_where(name: str, bad: Any) -> None:
    with pytest.raises(Unreadable) as refused:
        read(bad)
    assert refused.value.status == 422
    assert all(error["pointer"].startswith("/0") and error["message"] for error in refused.value.errors)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b"[]", 422), (b"null", 422), (b'"drift"', 422)],
    ids=["nothing", "half a list", "not UTF-8", "deep nesting", "an empty list", "null", "a string"],
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Unreadable) as refused:
        read(body)
    assert refused.value.status == status


def test_more_alerts_than_the_cap_are_refused_whole() -> None:
    with pytest.raises(Unreadable, match="GATEWAY_MAX_ALERTS") as refused:
        read([THREE] * 3, most=2)
    assert refused.value.status == 413
