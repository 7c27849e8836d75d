"""Durations are Prometheus': whole numbers, units from large to small, nothing else."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.policy.language.durations import MAX_DURATION, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", timedelta(0)),
        ("0s", timedelta(0)),
        ("0d0h", timedelta(0)),
        ("250ms", timedelta(milliseconds=250)),
        ("1s", timedelta(seconds=1)),
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("24h", timedelta(hours=24)),
        ("1d", timedelta(days=1)),
        ("1w", timedelta(days=7)),
        ("1y", timedelta(days=365)),
        ("1d12h", timedelta(hours=36)),
        ("1h30m", timedelta(minutes=90)),
        ("1y2w3d4h5m6s7ms", timedelta(days=382, hours=4, minutes=5, seconds=6, milliseconds=7)),
        ("007m", timedelta(minutes=7)),
        ("10y", timedelta(days=3650)),
    ],
)
def test_a_prometheus_duration_is_read(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "is not a duration"),
        ("10", "write 10s, 10m or 10h"),
        ("600", "has no unit"),
        ("1.5h", "use whole numbers, so 1h30m"),
        (".5m", "use whole numbers"),
        ("-5m", "cannot be negative"),
        ("+5m", "is not a duration"),
        ("10min", "y, w, d, h, m, s or ms"),
        ("10 m", "y, w, d, h, m, s or ms"),
        (" 10m", "y, w, d, h, m, s or ms"),
        ("10m\n", "y, w, d, h, m, s or ms"),
        ("10M", "y, w, d, h, m, s or ms"),
        ("30m1h", "largest first"),
        ("1h1h", "largest first"),
        ("m", "is not a duration"),
        ("१0m", "is not a duration"),
        ("11y", "longer than ten years"),
        ("3651d", "longer than ten years"),
        ("999999999999y", "longer than ten years"),
        ("9999999999999s", "is not a duration"),
        ("P1D", "is not a duration"),
        ("forever", "is not a duration"),
        ("x" * 10_000, "x..."),
    ],
)
def test_anything_else_is_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        parse_duration(text)
    assert advice in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (timedelta(0), "0s"),
        (timedelta(microseconds=999), "0s"),
        (timedelta(milliseconds=1), "1ms"),
        (timedelta(seconds=1, milliseconds=5), "1s5ms"),
        (timedelta(minutes=5), "5m"),
        (timedelta(hours=24), "1d"),
        (timedelta(hours=36), "1d12h"),
        (timedelta(days=7), "7d"),
        (timedelta(days=365), "365d"),
    ],
)
def test_a_duration_is_printed_for_people(duration: timedelta, expected: str) -> None:
    assert format_duration(duration) == expected


def test_a_negative_duration_is_not_printed() -> None:
    with pytest.raises(ValueError, match="never negative"):
        format_duration(timedelta(milliseconds=-1))


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=MAX_DURATION // timedelta(milliseconds=1)))
def test_what_is_printed_reads_back_the_same(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


def outcome(text: str) -> timedelta | str:
    try:
        return parse_duration(text)
    except ValueError as error:
        return str(error)


@settings(deadline=None)
@given(st.text(alphabet="0123456789ywdhms .-", max_size=12))
def test_any_text_is_a_duration_or_a_sentence_about_why_not(text: str) -> None:
    result = outcome(text)
    if isinstance(result, str):
        assert "duration" in result or "unit" in result or "ten years" in result
    else:
        assert timedelta(0) <= result <= MAX_DURATION
        assert parse_duration(format_duration(result)) == result
