"""`null` is the same as a member that is left out: for each optional member of each body, made from the models."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter

from app.deadman import schemas as deadman
from app.decide.alert import Parsed
from app.groups import bodies as groups
from app.intake.sources import alertmanager, cloudevents, grafana, mapped, native
from app.lineage import report_schemas as metadata
from app.notices import schemas as notices
from app.policy.sources import Source
from app.promotion import schemas as promotions
from app.replay.jobs import schemas as backtests

AT = "2026-11-23T09:28:32Z"
LABELS = {"alertname": "Low", "severity": "critical", "model": "churn"}
WEBHOOK: dict[str, Any] = {
    "status": "resolved",
    "labels": LABELS,
    "annotations": {"a": "b"},
    "startsAt": AT,
    "endsAt": AT,
}
WEBHOOK |= {"fingerprint": "f1"}
NATIVE: dict[str, Any] = {"alert_id": "low", "severity": "critical", "timestamp": AT, "status": "resolved"}
NATIVE |= {"labels": {"model": "churn"}, "annotations": {"a": "b"}}
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/s",
    "type": "t",
    "subject": "sub",
    "time": AT,
    "data": NATIVE,
}
MAPPED = Source(
    name="watch",
    alert_id=("/id", "low"),
    severity=("/severity", "warning"),
    timestamp=("/at", "/since"),
    status=("/state", "firing"),
    labels={"model": ("/labels/model",)},
    annotations={"a": ("/annotations/a",)},
)
PIECE: dict[str, Any] = {"id": "x", "severity": "critical", "at": AT, "since": AT, "state": "resolved"}
PIECE |= {"labels": {"model": "churn"}, "annotations": {"a": "b"}}


def read_events(raw: bytes, most: int) -> Parsed:
    return cloudevents.read(raw, most, {"content-type": "application/cloudevents+json"})


def read_binary(raw: bytes, most: int) -> Parsed:
    event = {f"ce-{name}": str(value) for name, value in EVENT.items() if name != "data"}
    return cloudevents.read(raw, most, {"content-type": "application/json", **event})


def read_base64(raw: bytes, most: int) -> Parsed:
    encoded = {name: value for name, value in EVENT.items() if name != "data"}
    return read_events(json.dumps(encoded | {"data_base64": base64.b64encode(raw).decode()}).encode(), most)


Read = Callable[[bytes, int], Parsed]
#: A body with every optional member, its model, where in the body the model stands, and who reads it.
SOURCES: dict[str, tuple[dict[str, Any], type[BaseModel] | None, list[str], Read]] = {
    "alertmanager": ({"version": "4", "alerts": [WEBHOOK]}, alertmanager.Webhook, [], alertmanager.read),
    "an alert of alertmanager": ({"alerts": [WEBHOOK]}, alertmanager.WebhookAlert, ["alerts", "0"], alertmanager.read),
    "an alert of grafana": ({"alerts": [WEBHOOK]}, alertmanager.WebhookAlert, ["alerts", "0"], grafana.read),
    "native": (NATIVE, native.NativeAlert, [], native.read),
    "cloudevents": (EVENT, cloudevents.CloudEvent, [], read_events),
    "the data of cloudevents": (EVENT, cloudevents.EventData, ["data"], read_events),
    "the data in base64": (NATIVE, cloudevents.EventData, [], read_base64),
    "the data of the binary mode": (NATIVE, cloudevents.EventData, [], read_binary),
    "mapped": (PIECE, None, [], lambda raw, most: mapped.read(raw, most, MAPPED)),
}
REPORT: dict[str, Any] = {
    "component": "training", "state": "succeeded", "who": "ana", "trigger_id": "01936f8e-52a1-7c3e-9d5a-1f0e6c2b7a44",
    "run": "r", "run_id": "0" * 32, "experiment": "e", "at": AT, "step": 3, "params": {"depth": 3}, "metrics": {"f1": 0.9},
    "tags": {"a": "b"}, "artifacts": {"model": "s3://m"}, "git_commit": "0123456",
    "datasets": [{"name": "d", "uri": "s3://d", "digest": "x", "context": "validation"}],
}  # fmt: skip
RECORD: dict[str, Any] = {
    "schema": 1, "key": "0" * 32, "seq": 1, "stream": "s", "kind": "k", "method": "POST", "path": "/p",
    "body": {"kept": None}, "made_at": 1, "attempted_at": 1,
}  # fmt: skip
HAND_OVER = {"records": [RECORD], "names": {"spool-" + "0" * 32: "real"}}
#: A body with every optional member, its model, and where in the body the model stands.
REQUESTS: dict[str, tuple[dict[str, Any], Any, type[BaseModel], list[str]]] = {
    "a trigger": (
        {"route": "r", "group": {"model": "c"}, "reason": "x", "requested_by": "ana", "force": True, "conf": {"a": None}},
        groups.TriggerBody, groups.TriggerBody, [],
    ),
    "a reset": ({"group": {"model": "c"}}, groups.ResetBody, groups.ResetBody, []),
    "a pause": ({"until": AT, "reason": "x"}, groups.PauseBody, groups.PauseBody, []),
    "a pause of a switch": ({"until": AT, "reason": "x"}, deadman.PauseBody, deadman.PauseBody, []),
    "the end of an incident": ({"reason": "x"}, notices.ResolveBody, notices.ResolveBody, []),
    "a promotion": (
        {"model": "m", "version": "4", "to": "champion", "expected": "3", "dry_run": True, "override": False, "reason": "x"},
        promotions.PromotionBody, promotions.PromotionBody, [],
    ),
    "a rollback": ({"reason": "x"}, promotions.RollbackBody, promotions.RollbackBody, []),
    "a backtest": (
        {
            "policy": "version: 1", "compare": "live", "since": "90d", "until": AT, "route": "r", "group": {"model": "c"},
            "run": "40m",
        },
        backtests.BacktestBody, backtests.BacktestBody, [],
    ),
    "a report": (REPORT, metadata.Body, metadata.Report, []),
    "a data set": (REPORT, metadata.Body, metadata.Dataset, ["datasets", "0"]),
    "a hand-over": (HAND_OVER, metadata.Body, metadata.HandOver, []),
    "a record": (HAND_OVER, metadata.Body, metadata.HandedOver, ["records", "0"]),
}  # fmt: skip


def optional_in(model: type[BaseModel] | None, part: dict[str, Any]) -> Iterator[list[str]]:
    """The path of each member that may be left out: members of the model, and entries of its maps."""
    if model is None:
        yield from ([name] for name in part)
        yield from ([name, inner] for name in part if isinstance(part[name], dict) for inner in part[name])
        return
    for name, field in model.model_fields.items():
        shown = field.alias or name
        if not field.is_required():
            yield [shown]
        is_map = get_origin(field.annotation) is dict and get_args(field.annotation)[1] is not Any
        if is_map and shown not in ("labels", "group"):  # Without a label an alert would be of another group.
            yield from ([shown, entry] for entry in part.get(shown, {}))


def changed(body: dict[str, Any], path: list[str], *, null: bool) -> dict[str, Any]:
    """A copy in which the member at the path is null, or is left out."""
    copy: Any = json.loads(json.dumps(body))
    part = copy
    for step in path[:-1]:
        part = part[int(step)] if isinstance(part, list) else part[step]
    part.pop(path[-1], None)
    if null:
        part[path[-1]] = None
    return dict(copy)


def part_at(body: Any, path: list[str]) -> Any:
    for step in path:
        body = body[int(step)] if isinstance(body, list) else body[step]
    return body


def outcome(call: Callable[[], Any]) -> object:
    try:
        return call()
    except Exception as error:  # The same error counts as the same outcome.
        return type(error)


CASES = [
    pytest.param(name, [*above, *member], id=f"{name}: {'.'.join([*above, *member])}")
    for name, (body, model, above, _) in SOURCES.items()
    for member in optional_in(model, part_at(body, above))
]


@pytest.mark.parametrize(("name", "path"), CASES)
def test_null_in_an_alert_is_the_same_as_a_member_that_is_left_out(name: str, path: list[str]) -> None:
    body, _, _, read = SOURCES[name]
    null, absent = (changed(body, path, null=null) for null in (True, False))
    expected = outcome(lambda: read(json.dumps(absent).encode(), 10).alerts)
    assert outcome(lambda: read(json.dumps(null).encode(), 10).alerts) == expected
    if name != "mapped" and path != ["data"]:  # An event needs its data in one of two members.
        assert isinstance(expected, list), "a member that may be left out"


REQUEST_CASES = [
    pytest.param(name, [*above, *member], id=f"{name}: {'.'.join([*above, *member])}")
    for name, (body, _, model, above) in REQUESTS.items()
    for member in optional_in(model, part_at(body, above))
]


@pytest.mark.parametrize(("name", "path"), REQUEST_CASES)
def test_null_in_a_request_is_the_same_as_a_member_that_is_left_out(name: str, path: list[str]) -> None:
    body, kind, _, _ = REQUESTS[name]
    adapter = TypeAdapter(kind)
    null, absent = (adapter.validate_python(changed(body, path, null=null)) for null in (True, False))
    assert null == absent


def test_every_body_of_the_api_is_in_the_tables() -> None:
    """A new body of a request adds a row. What is read of MLflow's own events has no optional member."""
    from app.web.members import Body, RequestBody

    tried = {model for _, model, _, _ in SOURCES.values()} | {model for _, _, model, _ in REQUESTS.values()}
    assert {*Body.__subclasses__(), *RequestBody.__subclasses__()} - tried == {RequestBody, grafana.GrafanaWebhook}
    assert all(field.is_required() for field in grafana.GrafanaWebhook.model_fields.values())
    for model in (promotions.NewVersion, promotions.RegistryEvent):
        assert all(field.is_required() for field in model.model_fields.values())


def test_what_belongs_to_the_sender_keeps_its_nulls() -> None:
    read = groups.TriggerBody.model_validate({"route": "r", "reason": "x", "conf": {"a": None, "b": {"c": None}}})
    assert read.conf == {"a": None, "b": {"c": None}}
    assert metadata.HandedOver.model_validate(RECORD).body == {"kept": None}


def test_null_for_a_label_sets_the_alert_aside_and_names_the_label() -> None:
    body = [NATIVE, NATIVE | {"labels": {"model": None}}]
    found = native.read(json.dumps(body).encode(), 10)
    assert (len(found.alerts), found.bad[0].error) == (1, "/1/labels/model: Input should be a valid string")


@pytest.mark.parametrize("member", ["alert_id", "severity", "timestamp"])
def test_null_for_a_member_that_must_be_there_is_an_error_that_names_it(member: str) -> None:
    with pytest.raises(Exception, match="none of the alerts") as raised:
        native.read(json.dumps(NATIVE | {member: None}).encode(), 10)
    assert raised.value.errors[0]["pointer"] == f"/0/{member}"  # type: ignore[attr-defined]
