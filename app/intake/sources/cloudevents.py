"""CloudEvents 1.0 over HTTP: binary, structured and batch, in the JSON format. `data` is a native alert.

Source: github.com/cloudevents/spec, HTTP protocol binding 1.0.2 (3.1.3.2: how headers are decoded) and JSON event format.
We do not use the CNCF's library: one bad event of a batch must not fail the others, and an error must name the part at fault
by its JSON pointer.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from pydantic import ConfigDict, FailFast, Field, StringConstraints, TypeAdapter
from pydantic_core import from_json

from app.decide.alert import ALERT_ID_LENGTH, Alert, Annotations, Labels, Parsed, Unreadable
from app.intake.sources.native import AlertId, NativeAlert, Severity, Timestamp, to_alert
from app.intake.sources.read import read_apart, read_items
from app.web.members import Body

Attribute = Annotated[str, StringConstraints(min_length=1, max_length=4096)]  # It becomes the value of a label.

_JSON_FORMATS = ("application/cloudevents+json", "application/cloudevents-batch+json")
_BATCH = _JSON_FORMATS[1]
_ESCAPED = re.compile(r"\\(.)")


class EventData(Body):
    """A native alert. The attributes of the event give the parts that it lacks."""

    model_config = ConfigDict(extra="forbid")

    alert_id: AlertId | None = Field(None, description="What is wrong, and with what. Default: the id of the event.")
    severity: Severity = Field(description="Becomes the label `severity`, for the policy to match on.")
    timestamp: Timestamp | None = Field(None, description="When it was noticed. Default: the time of the event.")
    status: Literal["firing", "resolved"] = "firing"
    labels: Labels = Field({}, description="Defaults: `source`, `type` and `subject` of the event.")
    annotations: Annotations = Field({})


class CloudEvent(Body):
    """One event. Extension attributes are allowed and not used."""

    model_config = ConfigDict(extra="ignore")

    specversion: Literal["1.0"]
    id: Annotated[str, StringConstraints(min_length=1, max_length=ALERT_ID_LENGTH)]
    source: Attribute
    type: Attribute
    subject: Attribute | None = None
    time: Timestamp | None = None
    data: EventData | None = None
    data_base64: str | None = Field(None, description="Instead of `data`: its JSON in base64.")


_some: TypeAdapter[list[CloudEvent]] = TypeAdapter(Annotated[list[CloudEvent], Field(min_length=1), FailFast()])


def read(raw: bytes, max_alerts: int, headers: Mapping[str, str]) -> Parsed:
    """The alerts of one request, one for each event; none for an empty batch. Raises Unreadable when none can be read.

    `headers` are by lower-case name. A content type of CloudEvents decides the mode. With another one, `ce-` headers mean
    binary mode; without them the shape of the body decides between structured mode and batch.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type.startswith("application/cloudevents"):
        if media_type not in _JSON_FORMATS:
            raise Unreadable(422, "the gateway reads CloudEvents only in the JSON format")
        if media_type == _BATCH and raw.split() in ([b"[", b"]"], [b"[]"]):
            return Parsed([], [], [])
    elif attributes := _attributes(headers):
        return read_apart(raw, lambda data: [attributes | {"data": data}], CloudEvent, event_to_alert, max_alerts)
    return read_items(raw, _whole, _take_apart, CloudEvent, event_to_alert, max_alerts)


def event_to_alert(event: CloudEvent) -> Alert:
    """Raises ValueError for an event without data or time, and for what cannot be stored."""
    data = event.data or _from_base64(event.data_base64)
    timestamp = data.timestamp or event.time
    if timestamp is None:
        raise ValueError("the event has no `time`, and its data no `timestamp`")
    attributes = {"source": event.source, "type": event.type, "subject": event.subject}
    alert = NativeAlert(
        alert_id=data.alert_id or event.id,
        severity=data.severity,
        timestamp=timestamp,
        status=data.status,
        labels={name: value for name, value in attributes.items() if value is not None} | data.labels,
        annotations=data.annotations,
    )
    return to_alert(alert, "cloudevents")


def _from_base64(text: str | None) -> EventData:
    if text is None:
        raise ValueError("the event has no `data`: it is the alert, with at least a `severity`")
    return EventData.model_validate(EventData.present(from_json(b64decode(text, validate=True))))


def _attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes in the `ce-` headers. Raises Unreadable for a header that does not decode to UTF-8."""
    found = {}
    for name in headers:
        if name.startswith("ce-"):
            try:
                found[name[3:]] = _decoded(headers[name])
            except ValueError as error:
                raise Unreadable(422, f"the header {name} is not UTF-8 in percent-encoding") from error
    return found


def _decoded(value: str) -> str:
    # Older senders quote the value, newer ones encode it. The specification sets the order of the two steps.
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _ESCAPED.sub(r"\1", value[1:-1])
    return unquote_to_bytes(value.encode("latin-1")).decode()


def _whole(raw: bytes) -> list[CloudEvent]:
    if raw.lstrip()[:1] == b"[":
        return _some.validate_json(raw)
    return [CloudEvent.model_validate_json(raw)]


def _take_apart(body: Any) -> list[Any]:
    if isinstance(body, dict):
        return [body]
    if isinstance(body, list) and body:
        return body
    raise Unreadable(422, "the body must be one CloudEvent or a list of CloudEvents with at least one")
