"""Times as people and programs read them. Pure: nobody reads the clock here."""

from datetime import datetime


def at(time: datetime) -> str:
    """A time for people: RFC 3339, UTC, whole seconds."""
    # strftime takes five times as long, and each decision names one or two times.
    return time.isoformat(timespec="seconds")[:19] + "Z"


def iso(time: datetime) -> str:
    """A time in UTC for programs: RFC 3339, with microseconds if it has any."""
    return time.isoformat().replace("+00:00", "Z")
