"""Alertmanager's webhook, version 4.

Source: prometheus.io/docs/alerting/latest/configuration/#webhook_config and bodies recorded from 0.25. Unknown fields are
allowed, because every release adds some. Only the status of each alert counts. The status of the notification can be
"resolved" although an alert that max_alerts cut off still fires.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from app.decide.alert import (
    ALERT_ID_LENGTH,
    ANNOTATION_LENGTH,
    Alert,
    Annotations,
    Labels,
    Parsed,
    Unreadable,
    fingerprint_of,
    in_range,
    no_nul,
)
from app.intake.sources.read import ItemCache, read_items
from app.web.members import Body

_REMEMBERED_TIMES = 8192
_LONGEST_TIME = 64  # characters of a remembered text; a fraction may have millions
_times: dict[str, datetime] = {}


def _same_time(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """Equal texts become the same datetime object. An alert repeats its startsAt, and it costs more to compare two datetimes
    than all of the labels."""
    known = _times.get(value) if isinstance(value, str) else None
    if known is not None:
        return known
    time = read(value)
    if isinstance(value, str) and len(value) <= _LONGEST_TIME:
        if len(_times) >= _REMEMBERED_TIMES:
            _times.clear()
        _times[value] = time
    return time


Time = Annotated[AwareDatetime, WrapValidator(_same_time)]


class WebhookAlert(Body):
    """One alert of a notification."""

    model_config = ConfigDict(extra="ignore")

    status: Literal["firing", "resolved"]
    labels: Labels
    annotations: Annotations = Field({})
    startsAt: Time  # noqa: N815 (Alertmanager's spelling)
    endsAt: Time | None = None  # noqa: N815 (Alertmanager's spelling)
    fingerprint: Annotated[str, StringConstraints(max_length=128)] = ""


class Webhook(Body):
    """The notification. `groupKey`, `receiver` and the common labels are not used, because the policy makes the groups."""

    model_config = ConfigDict(extra="ignore")

    version: Literal["4"] = "4"
    alerts: Annotated[list[WebhookAlert], Field(min_length=1), FailFast()]


def read(raw: bytes, max_alerts: int) -> Parsed:
    """The alerts of one notification. Raises Unreadable when none can be read."""
    return read_items(raw, _whole, _take_apart, WebhookAlert, _cache.to_alert, max_alerts)


def to_alert(alert: WebhookAlert, source: str = "alertmanager") -> Alert:
    """Raises ValueError for what cannot be stored: NUL, a time out of range, a name too long for an index."""
    labels = no_nul(alert.labels)
    alert_id = labels.get("alertname", "")
    if len(alert_id) > ALERT_ID_LENGTH:
        raise ValueError(f"the label alertname is longer than {ALERT_ID_LENGTH} characters")
    firing = alert.status == "firing"
    return Alert(
        alert_id=alert_id,
        fingerprint=no_nul(alert.fingerprint) or fingerprint_of(alert_id, labels),
        firing=firing,
        severity=labels.get("severity", ""),
        starts_at=in_range(alert.startsAt),
        ends_at=None if firing else _end(alert.endsAt),
        labels=labels,
        annotations=cut(no_nul(alert.annotations)),
        source=source,
    )


_cache = ItemCache(to_alert, lambda alert: alert.fingerprint)


def cut(annotations: dict[str, str]) -> dict[str, str]:
    """The annotations, each cut to ANNOTATION_LENGTH characters."""
    if all(len(value) <= ANNOTATION_LENGTH for value in annotations.values()):
        return annotations
    return {name: value[:ANNOTATION_LENGTH] for name, value in annotations.items()}


def _end(time: datetime | None) -> datetime | None:
    # Go's zero time, 0001-01-01, means "none".
    return None if time is None or time.year <= 1 else in_range(time)


def _whole(raw: bytes) -> list[WebhookAlert]:
    return Webhook.model_validate_json(raw).alerts


def _take_apart(body: Any) -> list[Any]:
    entries = entries_of(body, "Alertmanager's")
    if str(body.get("version") or "4") != "4":
        raise Unreadable(422, "the gateway reads only version 4 of Alertmanager's webhook")
    return entries


def entries_of(body: Any, whose: str) -> list[Any]:
    """The entries under `alerts` of a decoded body, at least one. Raises Unreadable, whose text names the sender `whose`."""
    if not isinstance(body, dict):
        raise Unreadable(422, f"the body is not an object with `alerts`, as {whose} webhook sends it")
    alerts = body.get("alerts")
    if not isinstance(alerts, list) or not alerts:
        raise Unreadable(422, "`alerts` must be a list with at least one alert", [_missing("/alerts")])
    return alerts


def _missing(pointer: str) -> dict[str, str]:
    return {"pointer": pointer, "message": "a list with at least one alert is required"}
