"""A bad alert is kept in the bytes that came, whatever is in them."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from app.decide.alert import Parsed, Unreadable
from app.intake.sources import alertmanager, cloudevents, grafana, native
from app.intake.sources.pieces import pieces

#: What a decoder and an encoder would change: huge and exact numbers, NaN, equal keys, escapes, blanks.
ODD = [
    b'{"alert_id":"a","severity":"x","timestamp":"2026-11-30T00:00:00Z","labels":{"n":1e400}}',
    b'{"alert_id":"a","severity":"x","timestamp": 1.10000000000000000000000000000001}',
    b'{"alert_id":"a","severity":"x","timestamp":NaN}',
    b'{"alert_id":"a", "alert_id" : "b\\u0000", "severity":"x","timestamp":"2026-11-30T00:00:00Z"}',
    b'{"alert_id":"\\ud800","severity":"x","timestamp":"2026-11-30T00:00:00Z"}',
    b'{\n\t"alert_id" : "\\u00e9\xc3\xa9" ,"severity":7}',
    b'{"alert_id":"],[{\\"}","severity":123456789012345678901234567890123456789012345678901234567890}',
    b"17",
    b'"text"',
    b"null",
]
GOOD = b'{"alert_id":"good","severity":"x","timestamp":"2026-11-30T00:00:00Z"}'
WEBHOOK = b'{"labels":{"alertname":"good"},"status":"firing","startsAt":"2026-11-30T00:00:00Z"}'
SENDERS: Mapping[str, tuple[Callable[[bytes, int], Parsed], bytes, bytes, bytes]] = {
    "native": (native.read, GOOD, b"[ ", b"\n]"),
    "alertmanager": (alertmanager.read, WEBHOOK, b'{"alerts":[],"version":"4", "alerts":[', b' ],"receiver":"r"}'),
    "grafana": (grafana.read, WEBHOOK, b'{"title":"[","alerts" : [', b"]}"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("sender", SENDERS)
def test_a_bad_alert_of_a_batch_is_kept_as_it_came(sender: str, odd: bytes) -> None:
    read, good, begin, end = SENDERS[sender]
    parsed = read(begin + good + b" ,\r\n" + odd + b"," + good + end, 10)
    assert [(bad.index, bad.body) for bad in parsed.bad] == [(1, odd)]
    assert [parsed.sent(place) for place in parsed.order] == [good, good], "a good one can be set aside later"


@pytest.mark.parametrize("raw", [GOOD, b"[" + GOOD + b"]"])
def test_a_good_body_remembers_its_bytes(raw: bytes) -> None:
    assert native.read(raw, 10).sent(0) == GOOD


def test_an_event_whose_attributes_came_in_headers_is_kept_as_its_body_came() -> None:
    headers = {
        "content-type": "application/json",
        "ce-id": "1",
        "ce-source": "s",
        "ce-type": "t",
        "ce-specversion": "1.0",
    }
    raw = b' {"severity": "x", "timestamp": "2026-11-30T00:00:00Z"}'
    assert cloudevents.read(raw, 10, headers=headers | {"ce-time": "2026-11-30T00:00:00Z"}).sent(0) == raw
    with pytest.raises(Unreadable):
        cloudevents.read(b"{}", 10, headers=headers)


@pytest.mark.parametrize(
    ("raw", "where", "expected"),
    [
        (b'{"a": {"b": [1, {"c": 2.50}]}}', lambda body: body["a"]["b"], [b"1", b'{"c": 2.50}']),
        (b'{"a": {"b": {"c": 2.50} }}', lambda body: [body["a"]["b"]], [b'{"c": 2.50}']),
        (b' {"c": 2.50}', lambda body: [body], [b'{"c": 2.50}']),
        (b'\xef\xbb\xbf{"c": 2.50}', lambda body: [body], [b'\xef\xbb\xbf{"c": 2.50}']),
        (b'{"c": 2.50}', lambda body: [{"made": body}], [b'{"c": 2.50}']),
    ],
    ids=["a-list-inside", "an-object-inside", "the-body", "a-byte-order-mark", "made-elsewhere"],
)
def test_where_the_pieces_are(raw: bytes, where: Callable[[Any], list[Any]], expected: list[bytes]) -> None:
    body = json.loads(raw)
    assert pieces(raw, body, where(body)) == expected


def test_a_thousand_bad_alerts_are_looked_for_once() -> None:
    raw = b"[" + b",".join([b'{"alert_id":"x"}'] * 1000 + [GOOD]) + b"]"
    parsed = native.read(raw, 2000)
    assert {bad.body for bad in parsed.bad} == {b'{"alert_id":"x"}'}
    assert len(parsed.bad) == 1000
