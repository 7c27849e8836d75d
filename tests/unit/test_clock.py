"""Our time is the database's, however long we waited for a connection to ask it."""

from datetime import UTC, datetime, timedelta

from app.kit.clock import SystemClock, monotonic

THEIRS = datetime(2031, 5, 1, 12, tzinfo=UTC)


async def test_it_is_what_the_database_said_plus_what_has_passed_since() -> None:
    clock = SystemClock()

    async def said_a_while_ago() -> tuple[datetime, float]:
        return THEIRS, monotonic() - 90

    await clock.synchronise(said_a_while_ago)
    late = clock.now() - (THEIRS + timedelta(seconds=90))
    assert timedelta(0) <= late < timedelta(seconds=30)
    assert abs(clock.offset - (clock.now() - datetime.now(UTC))) < timedelta(seconds=30)
