"""What a notice holds, and which kinds of notice there are. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

#: Characters of a key. PagerDuty's dedup_key holds 255, and the gateway's name stands before the key.
LONGEST_KEY: Final = 190
#: So many groups of a route, or switches of an entry, have an incident of one event each. Further ones share one, because
#: labels come from whoever may send alerts: a flood is one incident.
MOST_ALIKE: Final = 20
#: The event of a switch that is down. Only the switch ends this incident; a person cannot.
SWITCH_DOWN: Final = "switch_down"
#: The event of the notice that `receivers test` sends.
TEST: Final = "test"


class Severity(StrEnum):
    """How bad an incident is, in PagerDuty's words."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Action(StrEnum):
    """What a notice says to a receiver. A repeat is `open` again."""

    OPEN = "open"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person must know about one fault. While the incident of a `key` is open, the same key opens no other.

    `title` and `detail` are one sentence each, for a person. `link` is an address that helps. Raises ValueError for a key
    that is empty, too long or not printable.
    """

    key: str
    event: str
    severity: Severity
    title: str
    detail: str
    labels: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= LONGEST_KEY or not self.key.isprintable():
            raise ValueError(f"the key of a notice has 1 to {LONGEST_KEY} printable characters")
