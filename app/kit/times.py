"""Times as people read them. Pure: nobody reads the clock here."""

from datetime import datetime


def at(time: datetime) -> str:
    """A time for people: RFC 3339, UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
