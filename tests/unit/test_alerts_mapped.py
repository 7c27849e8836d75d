"""A body of its own shape becomes native alerts as the policy says, or is told what is missing in it."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.decide.alert import Unreadable
from app.intake.sources import native
from app.intake.sources.mapped import read
from app.policy.sources import Source
from tests.sizes import size

# The event of docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html, shortened.
CLOUDWATCH: dict[str, Any] = {
    "version": "0",
    "id": "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92",
    "detail-type": "CloudWatch Alarm State Change",
    "source": "aws.cloudwatch",
    "time": "2026-10-02T17:04:40Z",
    "region": "us-east-1",
    "detail": {
        "alarmName": "ServerCpuTooHigh",
        "configuration": {"metrics": [{"metricStat": {"metric": {"dimensions": {"EndpointName": "churn"}}}}]},
        "previousState": {"value": "OK"},
        "state": {"reason": "Threshold Crossed", "value": "ALARM"},
    },
}
MAPPING: dict[str, Any] = {
    "name": "cloudwatch",
    "alert_id": "/detail/alarmName",
    "severity": "warning",
    "timestamp": "/time",
    "status": "/detail/state/value",
    "states": {"ALARM": "firing", "OK": "resolved"},
    "labels": {
        "model": ["/detail/configuration/metrics/0/metricStat/metric/dimensions/EndpointName", "unknown"],
        "account": "/account",
        "kind": "/detail-type",
    },
    "annotations": {"summary": "/detail/state/reason"},
}


def source(**changes: Any) -> Source:
    return Source.model_validate({name: value for name, value in (MAPPING | changes).items() if value is not None})


def body(path: str = "", value: Any = None) -> dict[str, Any]:
    """The documented event, with the value at a path changed; None: taken away."""
    event: dict[str, Any] = json.loads(json.dumps(CLOUDWATCH))
    *parents, last = path.split("/")
    holder = event
    for name in parents:
        holder = holder[name]
    if value is not None:
        holder[last] = value
    elif last:
        del holder[last]
    return event


def parsed(content: Any, **changes: Any) -> Any:
    return read(json.dumps(content).encode(), 100, source(**changes))


def test_the_documented_event_is_the_alert_that_the_native_body_would_be() -> None:
    body = {
        "alert_id": "ServerCpuTooHigh",
        "severity": "warning",
        "timestamp": "2026-10-02T17:04:40Z",
        "labels": {"model": "churn", "kind": "CloudWatch Alarm State Change"},
        "annotations": {"summary": "Threshold Crossed"},
    }
    [mapped] = parsed(CLOUDWATCH).alerts
    [same] = native.read(json.dumps(body).encode(), 100).alerts
    assert mapped.source == "cloudwatch"
    assert {n: getattr(mapped, n) for n in mapped.__slots__ if n != "source"} == {
        n: getattr(same, n) for n in same.__slots__ if n != "source"
    }


def test_the_words_of_the_body_say_whether_it_fires() -> None:
    [ended] = parsed(body("detail/state/value", "OK")).alerts
    [fires] = parsed(CLOUDWATCH).alerts
    assert (fires.firing, ended.firing) == (True, False)
    assert ended.ends_at == datetime(2026, 10, 2, 17, 4, 40, tzinfo=UTC)
    assert ended.fingerprint == fires.fingerprint


@pytest.mark.parametrize(
    ("content", "changes", "labels"),
    [
        pytest.param(CLOUDWATCH, {}, {"model": "churn"}, id="found"),
        pytest.param(body("detail/configuration/metrics", []), {}, {"model": "unknown"}, id="a constant stands in"),
        pytest.param(body("account", 123456789012), {}, {"account": "123456789012"}, id="a number is its text"),
        pytest.param(body("account", True), {}, {"account": "true"}, id="so is a truth"),
        pytest.param(body("account", 0.5), {}, {"account": "0.5"}, id="and a fraction"),
        pytest.param({**CLOUDWATCH, "account": None}, {}, {"account": None}, id="null is not there"),
        pytest.param(CLOUDWATCH, {}, {"account": None}, id="what is not there is left out"),
        pytest.param({**CLOUDWATCH, "a/b": "x", "c~d": "y"}, {"labels": {"a": "/a~1b", "c": "/c~0d"}},
                     {"a": "x", "c": "y"}, id="names with / and ~"),
    ],
)  # fmt: skip
def test_a_label_is_the_first_choice_that_is_there(
    content: Any, changes: Mapping[str, Any], labels: Mapping[str, str | None]
) -> None:
    [alert] = parsed(content, **changes).alerts
    assert {name: alert.labels.get(name) for name in labels} == labels


@pytest.mark.parametrize(
    ("content", "alerts"),
    [
        pytest.param([CLOUDWATCH, CLOUDWATCH], None, id="the body is a list"),
        pytest.param({"batch": {"events": [CLOUDWATCH, CLOUDWATCH]}}, "/batch/events", id="a list in the body"),
    ],
)
def test_a_body_may_hold_several(content: Any, alerts: str | None) -> None:
    assert [a.alert_id for a in parsed(content, alerts=alerts).alerts] == ["ServerCpuTooHigh"] * 2


@pytest.mark.parametrize(("unit", "number"), [("s", 1_790_960_680), ("ms", 1_790_960_680_000), ("s", 1_790_960_680.0)])
def test_a_number_is_a_time_only_where_its_unit_is_named(unit: str, number: float) -> None:
    [alert] = parsed(body("time", number), timestamp_unit=unit).alerts
    assert alert.starts_at == datetime(2026, 10, 2, 17, 4, 40, tzinfo=UTC)
    with pytest.raises(Unreadable) as caught:
        parsed(body("time", number))
    assert caught.value.errors[0]["pointer"] == "/0/timestamp"


BAD = [
    (body("detail/alarmName"), {}, "/0", "alert_id: there is nothing at /detail/alarmName"),
    (body("time"), {"timestamp": ["/at", "/time"]}, "/0", "timestamp: there is nothing at /at or /time"),
    (body("detail/state/value", "INSUFFICIENT_DATA"), {}, "/0", "status: 'INSUFFICIENT_DATA' is not one of ALARM, OK"),
    (body("detail/alarmName", ["a"]), {}, "/0", "alert_id: must be a text or a number, not a list or a mapping"),
    (body("account", {"id": 1}), {}, "/0", "labels.account: must be a text or a number"),
    (body("time", "yesterday"), {}, "/0/timestamp", "a time is a string in the form of RFC 3339"),
    (body("time", 1e300), {"timestamp_unit": "s"}, "/0", "timestamp: out of range"),
    (body("detail/alarmName", "x" * 600), {}, "/0/alert_id", "at most 512 characters"),
    (body("detail/alarmName", "a\x00b"), {}, "/0", "NUL"),
    ("text", {}, "", "the body must be one alert or a list of alerts"),
    ([], {}, "", "the body must be one alert or a list of alerts"),
    ({"events": []}, {"alerts": "/events"}, "", "at /events must be one alert or a list of alerts"),
    (CLOUDWATCH, {"alerts": "/events"}, "", "at /events must be one alert or a list of alerts"),
    ([5], {}, "/0", "alert_id: there is nothing at /detail/alarmName"),
]


@pytest.mark.parametrize(("content", "changes", "pointer", "message"), BAD, ids=[message for *_, message in BAD])
def test_what_is_wrong_is_told_by_its_part(
    content: Any, changes: Mapping[str, Any], pointer: str, message: str
) -> None:
    with pytest.raises(Unreadable) as caught:
        parsed(content, **changes)
    if not pointer:
        assert message in str(caught.value)
        return
    [error] = caught.value.errors
    assert error["pointer"] == pointer
    assert message in error["message"]


def test_a_bad_alert_among_good_ones_stands_alone() -> None:
    found = parsed([CLOUDWATCH, body("detail/state/value", "?"), CLOUDWATCH])
    assert (found.order, [bad.index for bad in found.bad]) == ([0, 2], [1])
    assert "status: '?' is not one of ALARM, OK" in found.bad[0].error


def test_too_many_are_refused() -> None:
    with pytest.raises(Unreadable) as caught:
        read(json.dumps([CLOUDWATCH] * 3).encode(), 2, source())
    assert caught.value.status == 413


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "t", "s", "m"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=size(50, 20_000), deadline=None)
@given(JSON, st.sampled_from([None, "/a"]))
def test_no_body_breaks_it(content: Any, alerts: str | None) -> None:
    wanted = {"timestamp": ["/t", "2026-01-01T00:00:00Z"], "timestamp_unit": "ms", "status": ["/s", "firing"]}
    parts = {"alert_id": "/a", "severity": "s", "labels": {"model": "/m"}, "annotations": {"all": "/m/a"}}
    shape = Source.model_validate({"name": "x", "alerts": alerts, **wanted, **parts})
    with suppress(Unreadable):
        found = read(json.dumps(content).encode(), 10, shape)
        assert all(isinstance(value, str) for alert in found.alerts for value in alert.labels.values())
