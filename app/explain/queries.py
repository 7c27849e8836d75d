"""What queries of the history share: labels, and times."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import StringConstraints

from app.policy.language.durations import MAX_DURATION, parse_duration

#: How long ago, such as 7d or 12h.
Ago = Annotated[str, StringConstraints(pattern="^[1-9][0-9]{0,3}[smhdw]$")]
#: `name=value`.
Label = Annotated[str, StringConstraints(pattern=r"^[^=\x00]+=[^\x00]*$")]

_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def labels_of(pairs: Iterable[str] | None) -> dict[str, str]:
    """The labels that `name=value` pairs ask for. The value may hold further signs."""
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs or ())}


def in_utc(time: datetime) -> datetime:
    """The time in UTC. Where the offset carries it out of the years 1 to 9999: the first or the last moment of them."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return _FIRST if time.year == 1 else _LAST


def start_of(since: str | datetime, now: datetime) -> datetime:
    """The time that `since` names, an `Ago` or a time, but at most ten years ago: the history holds nothing older."""
    earliest = now - MAX_DURATION
    if isinstance(since, datetime):
        return max(in_utc(since), earliest)
    try:
        return max(now - parse_duration(since), earliest)
    except ValueError:
        return earliest
