"""The lane of a group as marks, and as characters in the terminal."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from markupsafe import Markup

from app.cli.commands.lanes import FLAGS, LEGEND, SIGNS, drawn, parsed
from app.explain.lanes import Kind, Mark, Span, flags_of, marks_of, ticks_of
from app.ui.lane import once

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SPAN = Span.of(NOW, 10)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def mark(kind: Kind, word: str, start: float, end: float) -> Mark:
    return Mark(kind, word, ago(start), ago(end), "x", "")


def trigger(state: str, created: float, fired: float | None, ended: float | None, **more: Any) -> dict[str, Any]:
    times = {"created_at": created, "fired_at": fired, "ended_at": ended}
    shown = {name: None if days is None else ago(days) for name, days in times.items()}
    plain = {"id": "t", "mode": "live", "reason": "new_alert", "detail": "", "lost_at": None, "outcome": None}
    return plain | shown | {"state": state} | more


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (trigger("succeeded", 3, 3, 2), [("run", "succeeded", 3, 2)]),
        (trigger("succeeded", 4, 3, 2), [("hold", "held", 4, 3), ("run", "succeeded", 3, 2)]),
        (trigger("cancelled", 4, None, 3), [("hold", "held", 4, 3), ("run", "cancelled", 3, 3)]),
        (trigger("running", 1, 1, None), [("run", "running", 1, 0)]),
        (trigger("running", 2, 2, None, lost_at=ago(1)), [("run", "lost", 2, 0)]),
        (trigger("failed", 3, 3, 2, outcome="lost"), [("run", "lost", 3, 2)]),
        (trigger("cancelled", 3, 3, 2, mode="shadow"), [("run", "shadow", 3, 2)]),
        (trigger("held", 1, None, None), [("hold", "held", 1, -1)]),
        (trigger("dead", 30, 30, 29), []),
    ],
)
def test_a_trigger_is_a_hold_and_a_run(row: dict[str, Any], expected: list[tuple[str, str, float, float]]) -> None:
    state = {"cooldown_until": None, "held_until": ago(-1), "fired_at": None, "last_trigger": None}
    found = [
        (m.kind, m.word, (NOW - m.start).days, (NOW - m.end) / timedelta(days=1))
        for m in marks_of(SPAN, [], [row], state)
    ]
    assert found == expected


def test_a_lane_in_the_terminal_shows_bars_and_signs() -> None:
    marks = [
        mark(Kind.COOLDOWN, "cooldown", 2, -0.5),
        mark(Kind.EPISODE, "critical", 9, 8),
        mark(Kind.EPISODE, "warning", 7, 6),
        mark(Kind.EPISODE, "low", 5, 5),
        mark(Kind.HOLD, "held", 4, 3),
        mark(Kind.RUN, "failed", 3, 2),
        mark(Kind.DEADLINE, "up", -1, -1),
    ]
    assert drawn(marks, SPAN, 22) == "··███·▄▄▄·▁·▒▒▒·✗░░░│░"


def test_a_promotion_is_a_flag_beside_the_run_that_it_followed() -> None:
    row = {"id": "p", "model": "churn", "version": "3", "to": "champion", "requested_by": "ana", "ended_at": ago(2)}
    flags = flags_of([row | {"state": "promoted"}, row | {"state": "rolled_back"}])
    assert [flag.note for flag in flags] == ["churn 3 got champion, by ana", "churn 3 lost champion, by ana"]
    assert drawn([mark(Kind.RUN, "succeeded", 2, 2), *flags], SPAN, 22) == "················✓⚑⚐·│·"


def test_every_sign_differs_and_stands_in_the_legend() -> None:
    signs = SIGNS | FLAGS
    assert len(set(signs.values())) == len(signs)
    assert all(f"{sign} {state.replace('_', ' ')}" in LEGEND for state, sign in signs.items())


def test_times_of_an_answer_become_times() -> None:
    item = {"fired_at": "2026-11-23T12:00:00Z", "held_until": None, "state": "idle"}
    assert parsed(item) == {"fired_at": NOW, "held_until": None, "state": "idle"}


@pytest.mark.parametrize(("days", "labels"), [(7, 8), (30, 5), (90, 4)])
def test_a_span_has_a_few_ticks(days: int, labels: int) -> None:
    ticks = ticks_of(Span.of(NOW, days))
    assert abs(len(ticks) - labels) <= 1, [tick.label for tick in ticks]


@pytest.mark.parametrize(("days", "minutes"), [(1, 1), (7, 5), (30, 20), (90, 60), (365, 180)])
def test_a_steady_span_moves_by_half_a_pixel_at_a_time(days: int, minutes: int) -> None:
    moments = [NOW + timedelta(minutes=n) for n in range(3 * minutes)]
    spans = [Span.of(now, days).steady() for now in moments]
    assert [span.now for span in spans] == [NOW + timedelta(minutes=n // minutes * minutes) for n in range(3 * minutes)]
    assert {span.until - span.since for span in spans} == {timedelta(days=days * 1.1)}
    assert all(0 <= span.place(now) - span.place(span.now) < 0.1 for span, now in zip(spans, moments, strict=True))


def test_a_lane_is_drawn_once_until_its_facts_or_its_span_change() -> None:
    drawings = []

    def shown(facts: object, span: Span = SPAN, key: str = "a group of this test") -> str:
        def draw() -> Markup:
            drawings.append(facts)
            return Markup(f"{facts}")

        return str(once(key, span, facts, draw))

    assert [shown([1]), shown([1]), shown([2]), shown([2]), shown([1])] == ["[1]", "[1]", "[2]", "[2]", "[1]"]
    assert drawings == [[1], [2], [1]]
    shown([1], Span.of(NOW + timedelta(hours=1), 10))
    shown([1], Span.of(NOW, 30))
    shown([1], key="another group of this test")
    assert len(drawings) == 6
    for n in range(300):
        shown([1], key=f"group {n} of this test")
    shown([1])
    assert len(drawings) == 307, "only the newest are kept"
