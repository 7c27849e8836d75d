"""What one receiver gets at once: the message and the request that carries it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """A notice as it is sent to one receiver.

    `id` is the same at each attempt, and new for each repeat. `key` is the key of the incident with the gateway's name
    before it, unique among gateways. `times` counts how often the opening was sent, from 1. `link` is absolute.
    """

    id: str
    key: str
    event: str
    resolved: bool
    severity: str  # critical, error, warning, info
    title: str
    detail: str  # of a resolved incident: how it ended
    labels: Mapping[str, str]
    link: str | None
    opened_at: datetime
    resolved_at: datetime | None
    times: int
    gateway: str  # its name

    @property
    def headline(self) -> str:
        """The title, with a word before it when the incident is over or is repeated."""
        if self.resolved:
            return f"Resolved: {self.title}"
        return f"Still: {self.title}" if self.times > 1 else self.title


@dataclass(frozen=True, slots=True)
class Request:
    """A POST. The body is either `json`, or the exact bytes in `content`."""

    url: str
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def cut(text: str, most: int) -> str:
    """At most `most` characters. An ellipsis shows where the text was cut."""
    return text if len(text) <= most else text[: most - 1] + "…"


def utc(time: datetime) -> str:
    """RFC 3339 to the millisecond."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
