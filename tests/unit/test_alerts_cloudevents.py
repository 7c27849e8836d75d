"""CloudEvents 1.0: the three modes of the HTTP binding, what the attributes tell, and what is no event."""

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest

from app.decide.alert import Alert, Parsed, Unreadable
from app.intake.sources import cloudevents, native

AT = "2018-04-05T03:56:24Z"
TIME = datetime(2018, 4, 5, 3, 56, 24, tzinfo=UTC)
STRUCTURED = "application/cloudevents+json; charset=UTF-8"
BATCH = "application/cloudevents-batch+json; charset=utf-8"
#: The attributes of the examples in the specification of the HTTP binding (3.1.4); the data is ours.
ATTRIBUTES: dict[str, str] = {
    "specversion": "1.0",
    "type": "com.example.someevent",
    "time": AT,
    "id": "1234-1234-1234",
    "source": "/mycontext/subcontext",
}
DATA = {"severity": "critical", "labels": {"model": "churn"}}
EVENT: dict[str, Any] = {**ATTRIBUTES, "datacontenttype": "application/json", "data": DATA}


def read(
    body: Any, content_type: str = STRUCTURED, most: int = 10_000, attributes: dict[str, str] | None = None
) -> Parsed:
    headers = {"content-type": content_type} | {f"ce-{name}": value for name, value in (attributes or {}).items()}
    return cloudevents.read(body if isinstance(body, bytes) else json.dumps(body).encode(), most, headers)


def only(event: dict[str, Any]) -> Alert:
    (alert,) = read(event).alerts
    return alert


def data(**fields: Any) -> dict[str, Any]:
    return EVENT | {"data": DATA | fields}


def binary(body: Any = DATA, **attributes: str) -> Parsed:
    return read(body, "application/json; charset=utf-8", attributes=ATTRIBUTES | attributes)


def test_the_attributes_tell_what_the_data_leaves_out() -> None:
    alert = only(EVENT | {"subject": "nightly"})
    assert (alert.alert_id, alert.starts_at, alert.severity) == ("1234-1234-1234", TIME, "critical")
    assert (alert.firing, alert.timestamped, alert.source) == (True, True, "cloudevents")
    assert alert.labels == {
        "alertname": "1234-1234-1234",
        "severity": "critical",
        "source": "/mycontext/subcontext",
        "type": "com.example.someevent",
        "subject": "nightly",
        "model": "churn",
    }


def test_what_the_data_tells_stands_before_the_attributes() -> None:
    own = {"source": "notebook", "type": "drift", "subject": "churn", "alertname": "Drift"}
    alert = only(data(alert_id="drift", timestamp="2026-11-23T09:28:32Z", labels=own) | {"subject": "nightly"})
    assert (alert.alert_id, alert.starts_at) == ("drift", datetime(2026, 11, 23, 9, 28, 32, tzinfo=UTC))
    assert alert.labels == own | {"severity": "critical"}


def test_data_that_tells_everything_is_the_native_alert_itself() -> None:
    data: dict[str, Any] = {"alert_id": "drift", "severity": "warning", "timestamp": AT, "status": "resolved"}
    data |= {"labels": {"source": "a", "type": "b", "model": "churn"}, "annotations": {"note": "x"}}
    (mine,) = native.read(json.dumps(data).encode(), 1).alerts
    (theirs,) = read(EVENT | {"data": data}).alerts
    names = [name for name in Alert.__slots__ if name != "source"]
    assert [getattr(theirs, name) for name in names] == [getattr(mine, name) for name in names]


@pytest.mark.parametrize(
    "parsed",
    [
        lambda: read(EVENT),
        lambda: read([EVENT], BATCH),
        lambda: binary(),
        lambda: binary(datacontenttype="application/json", dataschema="https://schemas.example/1", custom="1"),
        lambda: read({**ATTRIBUTES, "data_base64": b64encode(json.dumps(DATA).encode()).decode()}),
        lambda: read(EVENT, "application/json"),
        lambda: read(EVENT, ""),
        lambda: read([EVENT], "text/plain"),
        lambda: read(EVENT, "Application/CloudEvents+JSON"),
        lambda: read(EVENT, attributes={"id": "another", "specversion": "0.3"}),
        lambda: read(EVENT | {"comexampleextension1": "value", "othervalue": 5}),
    ],
    ids=[
        "structured",
        "batch",
        "binary",
        "binary with more attributes",
        "base64",
        "structured, called JSON",
        "structured, called nothing",
        "batch, called text",
        "another case",
        "structured, its headers told too",
        "extension attributes",
    ],
)
def test_one_event_is_the_same_alert_in_every_mode(parsed: Any) -> None:
    assert parsed().alerts == [only(EVENT)]


def test_a_batch_keeps_its_order() -> None:
    events = [EVENT | {"id": str(n)} for n in range(20)]
    parsed = read(events, BATCH)
    assert [a.alert_id for a in parsed.alerts] == [str(n) for n in range(20)]
    assert parsed.order == list(range(20))


@pytest.mark.parametrize("body", [b"[]", b" [\n] "], ids=["tight", "with spaces"])
def test_an_empty_batch_is_a_batch(body: bytes) -> None:
    assert read(body, BATCH) == Parsed([], [], [])


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"time": "2026-01-01T00:00:00Z"}, True),
        ({"data": DATA | {"severity": "info"}}, True),
        ({"data": DATA | {"status": "resolved"}}, True),
        ({"id": "another"}, False),
        ({"source": "/another"}, False),
        ({"subject": "another"}, False),
    ],
    ids=str,
)
def test_an_event_is_known_by_its_source_and_id_when_its_data_has_no_id(change: dict[str, Any], same: bool) -> None:
    assert (only(EVENT | change).fingerprint == only(EVENT).fingerprint) is same


def test_events_of_one_problem_are_one_alert_when_their_data_names_it() -> None:
    first, second = (only(data(alert_id="drift") | {"id": name}) for name in ("1", "2"))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("Euro%20%e2%82%ac", "Euro €"),
        ("%41%42c", "ABc"),
        ('"quoted value"', "quoted value"),
        (r'"a \"word\" and a \\"', 'a "word" and a \\'),
        ('"%22"', '"'),
        ("100%25", "100%"),
        ("50%", "50%"),
        ("a+b", "a+b"),
        ('"', '"'),
        ("€".encode().decode("latin-1"), "€"),
    ],
)
def test_a_header_is_decoded_as_the_binding_says(header: str, value: str) -> None:
    (alert,) = binary(subject=header).alerts
    assert alert.labels["subject"] == value


@pytest.mark.parametrize("header", ["%C0%A0", "%FF", "%ED%A0%80", "\xff"], ids=ascii)
def test_a_header_that_is_not_utf8_behind_its_encoding_is_refused(header: str) -> None:
    with pytest.raises(Unreadable, match="ce-subject") as refused:
        binary(subject=header)
    assert refused.value.status == 422


BAD: dict[str, Any] = {
    "no object": 5,
    "null": None,
    "no specversion": {n: v for n, v in EVENT.items() if n != "specversion"},
    "an older version": EVENT | {"specversion": "0.3"},
    "a version that is a number": EVENT | {"specversion": 1.0},
    "no id": {n: v for n, v in EVENT.items() if n != "id"},
    "an empty id": EVENT | {"id": ""},
    "an id that is a number": EVENT | {"id": 5},
    "an id too long": EVENT | {"id": "x" * 513},
    "no source": {n: v for n, v in EVENT.items() if n != "source"},
    "an empty source": EVENT | {"source": ""},
    "a source too long": EVENT | {"source": "x" * 4097},
    "no type": {n: v for n, v in EVENT.items() if n != "type"},
    "an empty subject": EVENT | {"subject": ""},
    "no time at all": {n: v for n, v in EVENT.items() if n != "time"},
    "a time in seconds": EVENT | {"time": 1522900584},
    "a time without an offset": EVENT | {"time": "2018-04-05T03:56:24"},
    "a time far ahead": EVENT | {"time": "2926-04-05T03:56:24Z"},
    "no data": ATTRIBUTES,
    "data of null": EVENT | {"data": None},
    "data that is text": EVENT | {"data": '{"severity": "critical"}'},
    "data that is a list": EVENT | {"data": [DATA]},
    "data without a severity": EVENT | {"data": {}},
    "data with a misspelt field": data(lables={}),
    "data with another status": data(status="acknowledged"),
    "data with too many labels": data(labels={f"l{n}": "x" for n in range(127)}),
    "base64 that is none": ATTRIBUTES | {"data_base64": "%%%"},
    "base64 of no JSON": ATTRIBUTES | {"data_base64": b64encode(b"hello").decode()},
    "base64 of no alert": ATTRIBUTES | {"data_base64": b64encode(b"{}").decode()},
    "NUL in the source": EVENT | {"source": "\x00"},
    "NUL in the id": EVENT | {"id": "\x00"},
    "a lone surrogate in the subject": EVENT | {"subject": "\ud800"},
    "a lone surrogate in an annotation": data(annotations={"note": "\udfff"}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_event_costs_only_itself(bad: Any) -> None:
    parsed = read([EVENT, bad, EVENT | {"id": "other"}], BATCH)
    assert ([a.alert_id for a in parsed.alerts], parsed.order) == (["1234-1234-1234", "other"], [0, 2])
    (found,) = parsed.bad
    assert (found.index, bool(found.error)) == (1, True)
    (found.error + (found.alert_id or "")).encode()


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_event_alone_is_refused_and_says_where(bad: Any) -> None:
    with pytest.raises(Unreadable) as refused:
        read([bad], BATCH)
    assert refused.value.status == 422
    assert all(error["pointer"].startswith("/0") and error["message"] for error in refused.value.errors)


@pytest.mark.parametrize(
    ("event", "id"),
    [(data(alert_id="drift", status="?"), "drift"), (EVENT | {"data": {}}, "1234-1234-1234"), ({"id": 5}, None)],
    ids=["its data's", "its own", "none"],
)
def test_a_bad_event_is_named_by_the_id_that_it_has(event: dict[str, Any], id: str | None) -> None:
    (found,) = read([EVENT, event], BATCH).bad
    assert found.alert_id == id


@pytest.mark.parametrize(
    ("attributes", "status"),
    [({"specversion": "0.3"}, 422), ({"specversion": ""}, 422), ({"id": ""}, 422), ({"time": "now"}, 422)],
    ids=str,
)
def test_a_bad_header_of_the_binary_mode_is_refused_and_named(attributes: dict[str, str], status: int) -> None:
    with pytest.raises(Unreadable) as refused:
        binary(**attributes)
    assert refused.value.status == status
    assert {e["pointer"] for e in refused.value.errors} == {f"/0/{name}" for name in attributes}


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"accuracy is low", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b"[]", 422), (b"null", 422)],
    ids=["nothing", "text", "not UTF-8", "deep nesting", "an empty list", "null"],
)
def test_a_body_that_is_no_event_is_refused_in_every_mode(body: bytes, status: int) -> None:
    for content_type, attributes in ((STRUCTURED, {}), ("application/json", {}), ("application/json", ATTRIBUTES)):
        with pytest.raises(Unreadable) as refused:
            read(body, content_type, attributes=attributes)
        assert (refused.value.status, bool(str(refused.value))) == (status, True)


@pytest.mark.parametrize(
    "media_type", ["application/cloudevents+avro", "application/cloudevents", "application/cloudeventsx"]
)
def test_another_format_of_cloudevents_is_refused(media_type: str) -> None:
    with pytest.raises(Unreadable, match="only in the JSON format") as refused:
        read(EVENT, media_type)
    assert refused.value.status == 422


@pytest.mark.parametrize("event", [EVENT, {}], ids=["good ones", "bad ones"])
def test_more_events_than_the_cap_are_refused_whole(event: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="GATEWAY_MAX_ALERTS") as refused:
        read([event] * 3, BATCH, most=2)
    assert refused.value.status == 413
