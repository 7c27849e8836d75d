"""An alert in one form, whatever its source. Pure values."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from app.kit.errors import GatewayError

#: Postgres and Airflow accept a wider range, but a time outside of this one is a mistake of the sender.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)

ALERT_ID_LENGTH = 512  # characters: an index of Postgres holds no row over 2,704 bytes
ANNOTATION_LENGTH = 4096  # characters kept of an annotation; a longer text must not stop the decision on an alert

#: The labels and annotations that a body may hold. Longer annotations are cut.
LabelName = Annotated[str, StringConstraints(min_length=1, max_length=512)]
LabelValue = Annotated[str, StringConstraints(max_length=4096)]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=128)]
Annotations = Annotated[dict[LabelName, str], Field(max_length=128)]


@dataclass(frozen=True, slots=True)
class Alert:
    """One notification of one alert. Times are the sender's; they are recorded, never compared with our clock."""

    alert_id: str
    fingerprint: str
    firing: bool
    severity: str
    starts_at: datetime
    ends_at: datetime | None  # None while it fires
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    source: str
    timestamped: bool = False  # native: `starts_at` is the time of the notification, and a later one is a repeat


@dataclass(frozen=True, slots=True)
class Bad:
    """One alert of a readable body that could not be read."""

    index: int
    alert_id: str | None
    error: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Parsed:
    """The alerts of one body in its order, and those that could not be read. `order[i]` is alert i's place in the body, and
    `sent(place)` are its bytes as they came."""

    alerts: list[Alert]
    order: list[int]
    bad: list[Bad]
    sent: Callable[[int], bytes] = field(default=lambda _place: b"", compare=False, repr=False)


class Unreadable(GatewayError):
    """Nothing in the body can be read. `status` is the HTTP status: 400 not JSON, 413 too many alerts, 422 wrong shape."""

    def __init__(self, status: int, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors or []


def fingerprint_of(alert_id: str, labels: Mapping[str, str]) -> str:
    """A fingerprint for an alert that has none, from its id and its labels. Severity may change and does not count."""
    named = {name: value for name, value in labels.items() if name != "severity"}
    text = json.dumps([alert_id, named], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def in_range(time: datetime) -> datetime:
    """`time` in UTC. Raises ValueError when it lies outside of 1970 to 2199."""
    try:
        utc = time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time is out of range") from error
    if not EARLIEST <= utc < LATEST:
        raise ValueError("the time must lie between 1970 and 2199")
    return utc


def no_nul(value: Any) -> Any:
    """`value` as it is. Raises ValueError when a string in it holds NUL, which Postgres cannot store."""
    texts = [value] if isinstance(value, str) else [t for pair in value.items() for t in pair]
    if any("\x00" in text for text in texts):
        raise ValueError("the character NUL cannot be stored")
    return value
