"""A clock that moves only when the test says so."""

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class ManualClock:
    def __init__(self, start: datetime = NOON) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def pass_by(self, time: timedelta) -> None:
        """Let that much time pass."""
        self._now += time
