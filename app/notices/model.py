"""The words of telling: a notice, and what a receiver is told of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

#: Of a key, in characters: PagerDuty's dedup_key holds 255, and the gateway's name stands before it.
LONGEST_KEY: Final = 190
#: The event of a switch that is down. It is told until the switch says otherwise: nobody ends it by hand.
SWITCH_DOWN: Final = "switch_down"
#: The event of what `receivers test` sends.
TEST: Final = "test"


class Severity(StrEnum):
    """How bad it is, in PagerDuty's words."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Action(StrEnum):
    """What a receiver is told. An incident that is told again is `open` once more."""

    OPEN = "open"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that is wrong. `key` says what: the same key again is the same incident, until that is resolved.

    `title` and `detail` are a sentence each, for a person; `link` is an address that helps. Raises ValueError for a key
    that no receiver could hold.
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
