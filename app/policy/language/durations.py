"""Durations as Prometheus writes them: 90s, 10m, 1d12h, 0s."""

import re
from datetime import timedelta

MAX_DURATION = timedelta(days=3650)

# The units and their order are those of Prometheus (a year is 365 days, a week 7). At most twelve digits: no huge numbers.
_DURATION = re.compile(
    r"(?:(?P<y>[0-9]{1,12})y)?(?:(?P<w>[0-9]{1,12})w)?(?:(?P<d>[0-9]{1,12})d)?(?:(?P<h>[0-9]{1,12})h)?"
    r"(?:(?P<m>[0-9]{1,12})m)?(?:(?P<s>[0-9]{1,12})s)?(?:(?P<ms>[0-9]{1,12})ms)?"
)
_MILLISECONDS = {
    "y": 31_536_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}
_PRINTED = ("d", "h", "m", "s", "ms")


def parse_duration(text: str) -> timedelta:
    """Read a Prometheus duration: whole numbers with the units y w d h m s ms, largest first; a bare "0" is allowed.

    Raises ValueError, with a sentence for the operator, for anything else and for more than ten years.
    """
    if text == "0":
        return timedelta(0)
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(_advice(text))
    total = sum(int(digits) * _MILLISECONDS[unit] for unit, digits in match.groupdict().items() if digits)
    if total > MAX_DURATION // timedelta(milliseconds=1):
        raise ValueError(f"{text!r} is longer than ten years")
    return timedelta(milliseconds=total)


def format_duration(duration: timedelta) -> str:
    """A duration as text that `parse_duration` reads: 1d12h, 10m, 250ms, 0s.

    Weeks and years become days. It rounds down to a millisecond. Raises ValueError for a negative duration.
    """
    rest = duration // timedelta(milliseconds=1)
    if rest < 0:
        raise ValueError("a duration is never negative")
    parts = []
    for unit in _PRINTED:
        count, rest = divmod(rest, _MILLISECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _advice(text: str) -> str:
    shown = text if len(text) <= 40 else text[:40] + "..."
    if re.fullmatch(r"[0-9]+", text):
        return f"{shown!r} has no unit; write {shown}s, {shown}m or {shown}h"
    if re.match(r"[0-9]*\.[0-9]", text):
        return f"{shown!r} is not a duration: use whole numbers, so 1h30m instead of 1.5h"
    if text.startswith("-"):
        return f"{shown!r} is not a duration: it cannot be negative"
    return f"{shown!r} is not a duration: use numbers with y, w, d, h, m, s or ms, largest first, such as 10m or 1d12h"
