"""Cron expressions in a time zone: what is due when, over both changes of the clocks of 2026 in Madrid (29 Mar, 25 Oct)."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from app.policy.language.cron import Cron
from tests.acceptance.world import at

SPRING, AUTUMN = "2026-03-28T12:00", "2026-10-24T12:00"


@pytest.mark.parametrize(
    ("expression", "since", "due"),
    [
        pytest.param("0 3 * * 1", "2026-11-24T12:00", ["2026-11-30T02:00", "2026-12-07T02:00"], id="winter is UTC+1"),
        pytest.param("0 3 * * 1", "2026-07-01T12:00", ["2026-07-06T01:00", "2026-07-13T01:00"], id="summer is UTC+2"),
        pytest.param("30 2 * * *", SPRING, ["2026-03-29T01:00", "2026-03-30T00:30"], id="02:30 is missing: at 03:00"),
        pytest.param("30 2 * * *", AUTUMN, ["2026-10-25T00:30", "2026-10-26T01:30"], id="02:30 comes twice: the first"),
        pytest.param("30 2 * * *", "2026-10-25T01:10", ["2026-10-26T01:30"], id="asked in the second 02:10: tomorrow"),
        pytest.param("*/30 * * * *", "2026-10-25T00:15", ["2026-10-25T00:30", "2026-10-25T01:00"], id="keeps its pace"),
        pytest.param("0 0-4 * * *", "2026-03-29T00:00", ["2026-03-29T01:00", "2026-03-29T02:00"], id="no two at once"),
    ],
)
def test_an_occurrence_is_found_in_utc(expression: str, since: str, due: list[str]) -> None:
    cron, now = Cron(expression, "Europe/Madrid"), at(since)
    for text in due:
        now = cron.after(now)
        assert now == at(text)
        assert now.tzinfo is UTC


def test_an_occurrence_is_later_than_the_instant_even_by_a_microsecond() -> None:
    cron, due = Cron("0 3 * * *"), at("2026-11-24T03:00")
    assert cron.after(due - timedelta(microseconds=1)) == due
    assert cron.after(due) == due + timedelta(days=1)


@pytest.mark.parametrize("expression", ["*/20 * * * *", "15 * * * *", "30 1-3 * * *", "0 */2 * * *", "59 2 * * 0"])
@pytest.mark.parametrize("month", [3, 10])
def test_every_minute_of_a_change_of_the_clocks_has_one_next_occurrence(expression: str, month: int) -> None:
    """Asked at any minute, the answer is the same until that instant, and later than the question."""
    cron = Cron(expression, "Europe/Madrid")
    day = 29 if month == 3 else 25
    now, end = datetime(2026, month, day - 1, 22, tzinfo=UTC), datetime(2026, month, day, 5, tzinfo=UTC)
    due = cron.after(now)
    while now < end:
        assert cron.after(now) == due > now, now
        now += timedelta(minutes=1)
        if now == due:
            due = cron.after(now)


@pytest.mark.parametrize(
    ("expression", "timezone", "sentence"),
    [
        ("0 3 * *", "UTC", "five fields"),
        ("0 0 3 * * 1", "UTC", "five fields"),
        ("61 3 * * *", "UTC", "bad minute"),
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        ("0 3 * * *", "Europe/Madird", "no time zone 'Europe/Madird'"),
        ("0 3 * * *", "../etc/passwd", "no time zone"),
        ("0 3 * * *", "", "no time zone"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_sentence(expression: str, timezone: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Cron(expression, timezone)


def test_a_zone_is_known_where_the_system_knows_none() -> None:
    script = "from app.policy.language.cron import read_zone; print(read_zone('Europe/Madrid'))"
    hidden = os.environ | {"PYTHONTZPATH": ""}
    shown = subprocess.run([sys.executable, "-c", script], env=hidden, capture_output=True, text=True)
    assert (shown.stdout, shown.stderr) == ("Europe/Madrid\n", "")
