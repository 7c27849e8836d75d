"""A sweep: one history under many cooldowns and debounces, and which of them are not worth it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any, Final

from app.kit.errors import UsageError
from app.policy.language.durations import format_duration
from app.policy.schema import Policy
from app.replay.backtest import Progress, Question, play, scope_of
from app.replay.differences import with_sections
from app.replay.figures import Figures, count, fates
from app.replay.history import History

MOST: Final = 100  # policies of one sweep


@dataclass(frozen=True, slots=True)
class Point:
    """One policy of a sweep. `dominated`: another one has no more retrains and no more undetected hours, and less of one."""

    cooldown: timedelta | None
    debounce: timedelta | None
    figures: Figures
    dominated: bool = False

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "cooldown": _text(self.cooldown),
            "debounce": _text(self.debounce),
            "dominated": self.dominated,
            **self.figures.as_json(),
        }


def sweep(
    history: History,
    question: Question,
    cooldowns: Sequence[timedelta],
    debounces: Sequence[timedelta],
    progress: Progress = lambda *_: None,
) -> list[Point]:
    """Each pair of a cooldown and a debounce, in the route of the question or in all. Without a value the file's counts."""
    nothing: list[timedelta | None] = [None]
    pairs = list(product(cooldowns or nothing, debounces or nothing))
    if len(pairs) > MOST:
        raise UsageError(f"a sweep takes at most {MOST} policies, and these are {len(pairs)}: name fewer values")
    scope = scope_of(history, question)
    points = []
    for number, (cooldown, debounce) in enumerate(pairs):
        policy = changed_policy(question.proposed, question.route, cooldown, debounce)
        replay = play(history, policy, question, scope)
        known = [fate for fate in fates(replay, scope) if fate.route]
        missed = {fate.key: fate.route for fate in known if not fate.reached}
        points.append(Point(cooldown, debounce, count(replay, scope, known, missed)[""]))
        progress("sweeping", number + 1, len(pairs))
    return [
        Point(point.cooldown, point.debounce, point.figures, any(_beats(other, point) for other in points))
        for point in points
    ]


def changed_policy(policy: Policy, route: str | None, cooldown: timedelta | None, debounce: timedelta | None) -> Policy:
    """The policy with these values in one route, or in all."""
    wanted = {"cooldown": cooldown, "debounce": debounce}
    update = {key: value for key, value in wanted.items() if value is not None}
    routes = [each.model_copy(update=update) if route in (None, each.name) else each for each in policy.routes]
    return with_sections(policy, routes=tuple(routes))


def as_text(points: Sequence[Point]) -> str:
    """A table, and a picture: retrains to the right, undetected hours upwards. What is dominated is a dot."""
    head = f"{'cooldown':>10} {'debounce':>10} {'retrains':>10} {'undetected h':>13} {'missed':>8} {'run hours':>10}"
    rows = [
        f"{_text(p.cooldown) or '-':>10} {_text(p.debounce) or '-':>10} {p.figures.retrains:>10}"
        f" {p.figures.undetected_hours:>13.1f} {p.figures.missed_episodes:>8} {p.figures.run_hours:>10.1f}"
        f"{'  dominated' if p.dominated else ''}"
        for p in points
    ]
    return "\n".join([head, *rows, "", *_picture(points)]) + "\n"


def _beats(other: Point, point: Point) -> bool:
    ours, theirs = _cost(point), _cost(other)
    return theirs != ours and all(their <= our for their, our in zip(theirs, ours, strict=True))


def _cost(point: Point) -> tuple[float, float]:
    return float(point.figures.retrains), round(point.figures.undetected_hours, 3)


def _picture(points: Sequence[Point], width: int = 60, height: int = 14) -> list[str]:
    most = [max(_cost(point)[axis] for point in points) or 1.0 for axis in (0, 1)]
    field = [[" "] * (width + 1) for _ in range(height + 1)]
    for point in sorted(points, key=lambda p: not p.dominated):
        x, y = (round(value / top * size) for value, top, size in zip(_cost(point), most, (width, height), strict=True))
        field[height - y][x] = "·" if point.dominated else "o"
    lines = ["|" + "".join(row).rstrip() for row in field]
    return [f"undetected hours, to {most[1]:.1f}", *lines, "+" + "-" * width + f"> retrains, to {most[0]:.0f}"]


def _text(duration: timedelta | None) -> str | None:
    return format_duration(duration) if duration is not None else None
