"""The gateway's own form of an alert: `{"alert_id", "severity", "timestamp"}` is enough. One object, or a list."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, FailFast, Field, StringConstraints, TypeAdapter

from app.decide.alert import (
    ALERT_ID_LENGTH,
    Alert,
    Annotations,
    Labels,
    Parsed,
    Unreadable,
    fingerprint_of,
    in_range,
    no_nul,
)
from app.intake.sources.alertmanager import cut
from app.intake.sources.read import ItemCache, read_items
from app.web.members import Body

_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def _text_only(value: Any) -> Any:
    # pydantic takes a number, bare or in quotes, for seconds or milliseconds by its size. That may be wrong, so refuse it.
    if not isinstance(value, datetime) and not (isinstance(value, str) and _DATE.match(value)):
        raise ValueError("a time is a string in the form of RFC 3339, such as 2026-01-31T03:00:00Z")
    return value


Timestamp = Annotated[AwareDatetime, BeforeValidator(_text_only)]
AlertId = Annotated[str, StringConstraints(min_length=1, max_length=ALERT_ID_LENGTH)]
Severity = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class NativeAlert(Body):
    """An alert from any sender: a script, a notebook, a data-quality job."""

    model_config = ConfigDict(extra="forbid")

    alert_id: AlertId = Field(
        description="What is wrong, and with what. All repeats of one problem must have the same id."
    )
    severity: Severity = Field(description="Becomes the label `severity`, for the policy to match on.")
    timestamp: Timestamp = Field(description="When it was noticed, RFC 3339 with an offset.")
    status: Literal["firing", "resolved"] = "firing"
    labels: Labels = Field({})
    annotations: Annotations = Field({})


_some: TypeAdapter[list[NativeAlert]] = TypeAdapter(Annotated[list[NativeAlert], Field(min_length=1), FailFast()])


def read(raw: bytes, max_alerts: int) -> Parsed:
    """The alerts of one body. Raises Unreadable when none can be read."""
    return read_items(raw, _whole, _take_apart, NativeAlert, _cache.to_alert, max_alerts)


def to_alert(alert: NativeAlert, source: str = "native") -> Alert:
    """Raises ValueError for what cannot be stored: NUL, a time out of range."""
    alert_id = no_nul(alert.alert_id)
    labels = {"alertname": alert_id, **no_nul(alert.labels), "severity": no_nul(alert.severity)}
    firing = alert.status == "firing"
    at = in_range(alert.timestamp)
    return Alert(
        alert_id=alert_id,
        fingerprint=fingerprint_of(alert_id, labels),
        firing=firing,
        severity=alert.severity,
        starts_at=at,
        ends_at=None if firing else at,
        labels=labels,
        annotations=cut(no_nul(alert.annotations)),
        source=source,
        timestamped=True,
    )


_cache = ItemCache(to_alert, lambda alert: alert.alert_id)


def _whole(raw: bytes) -> list[NativeAlert]:
    if raw.lstrip()[:1] == b"[":
        return _some.validate_json(raw)
    return [NativeAlert.model_validate_json(raw)]


def _take_apart(body: Any) -> list[Any]:
    if isinstance(body, dict):
        return [body]
    if isinstance(body, list) and body:
        return body
    raise Unreadable(422, "the body must be one alert or a list of alerts with at least one")
