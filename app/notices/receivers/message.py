"""What one receiver is told once, and the request that tells it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One telling. `id` is the same at each attempt and another for each repeat; `key` is the incident's, unique among
    gateways; `times` counts how often the opening was told, from 1; `link` is absolute."""

    id: str
    key: str
    event: str
    resolved: bool
    severity: str  # critical, error, warning, info
    title: str
    detail: str  # of a resolved one: how it ended
    labels: Mapping[str, str]
    link: str | None
    opened_at: datetime
    resolved_at: datetime | None
    times: int
    gateway: str  # its name

    @property
    def headline(self) -> str:
        """The title, and whether it is over or told again."""
        if self.resolved:
            return f"Resolved: {self.title}"
        return f"Still: {self.title}" if self.times > 1 else self.title


@dataclass(frozen=True, slots=True)
class Request:
    """A POST. Either `json`, or `content` with its exact bytes."""

    url: str
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def cut(text: str, most: int) -> str:
    """At most so many characters, with an ellipsis where something is left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def utc(time: datetime) -> str:
    """RFC 3339 to the millisecond."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
