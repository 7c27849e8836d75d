"""A report as text, Markdown or JSON. Pure. Names in it came from outside: they are escaped."""

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from app.kit.times import at
from app.kit.visible import visible
from app.replay.backtest import Report
from app.replay.figures import NUMBERS

SHOWN: Final = 50  # changed episodes of a text; JSON has all

_WORDS: Final = {
    "alerts": "alerts",
    "episodes": "episodes",
    "drift_episodes": "drift episodes",
    "retrains": "retrains",
    "run_hours": "run hours",
    "run_hours_measured": "  of these measured",
    "run_hours_estimated": "  of these estimated",
    "failed": "failed",
    "held": "held",
    "called_off": "called off",
    "rehearsed": "rehearsed in shadow mode",
    "missed_episodes": "missed episodes",
    "undetected_hours": "undetected hours",
    "longest_gap_hours": "longest gap, hours",
    "not_evaluable": "not evaluable",
}

Row = tuple[str, str, str]
#: Figures as JSON.
Numbers = Mapping[str, Any]


def as_json(report: Report) -> str:
    """The whole report, for machines."""
    return json.dumps(report.as_json(), indent=2)


def as_text(report: Report) -> str:
    """For a terminal."""
    blocks = [_heading(report, visible), _table_text("all routes", rows(report, ""), report)]
    blocks += [_table_text(name, rows(report, name), report) for name in tables_of(report)]
    return "\n\n".join([*blocks, *_lists(report, visible, "  - ")]) + "\n"


def as_markdown(report: Report) -> str:
    """For a pull request."""
    blocks = ["## What would it have done?", _heading(report, _escaped)]
    blocks.append(_table_markdown("All routes", rows(report, ""), report))
    for name in tables_of(report):
        blocks.append(_table_markdown(f"`{name}`", rows(report, name), report))
    return "\n\n".join([*blocks, *_lists(report, _escaped, "- ")]) + "\n"


def rows(report: Report, route: str) -> list[Row]:
    """The figures of a route, or of all: name, now, proposed."""
    now, proposed = (report.now or {}).get(route), report.proposed.get(route)
    return table_of(now.as_json() if now else None, proposed.as_json() if proposed else None)


def table_of(now: Numbers | None, proposed: Numbers | None) -> list[Row]:
    """Figures as the JSON of a report has them, side by side: name, now, proposed."""
    both = [each for each in (now, proposed) if each is not None]
    names = [name for name in NUMBERS if name in ("retrains", "run_hours") or any(each[name] for each in both)]
    found = [(_WORDS[name], _value(now, name), _value(proposed, name)) for name in names]
    reasons = sorted({reason for each in both for reason in each["refused"]})
    return found + [(f"refused: {reason}", _refused(now, reason), _refused(proposed, reason)) for reason in reasons]


def tables_of(report: Report) -> list[str]:
    """The routes that have a table of their own beside that of all routes."""
    return report.routes if len(report.routes) > 1 else []


def _value(figures: Numbers | None, name: str) -> str:
    if figures is None:
        return "-"
    value = figures[name]
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _refused(figures: Numbers | None, reason: str) -> str:
    return "-" if figures is None else str(figures["refused"].get(reason, 0))


def _heading(report: Report, safe: Callable[[str], str]) -> str:
    history, scope = report.history, report.scope
    lines = [
        f"From {at(scope.since)} to {at(scope.until)}: {len(history.events)} events, {len(history.runs)} live runs.",
        f"Resolution: {safe(history.resolution)}.",
    ]
    if history.broken_count:
        first = history.broken[0]
        lines.append(
            f"{history.broken_count} things could not be read; the first: line {first.line}: {safe(first.error)}."
        )
    lines += report.hole_sentences
    lines += [safe(note) for note in history.notes]
    if report.differences:
        lines.append("Keys that differ: " + ", ".join(safe(each.name) for each in report.differences) + ".")
    elif report.now is not None:
        lines.append("No key that decides differs.")
    return "\n".join(lines)


def _lists(report: Report, safe: Callable[[str], str], mark: str) -> Iterable[str]:
    if report.now is not None:
        shown = [mark + safe(each.text) for each in report.changed[:SHOWN]]
        more = len(report.changed) - len(shown)
        head = f"{len(report.changed)} of the episodes end otherwise" + (":" if shown else ".")
        yield "\n".join(
            [head, *([""] if mark == "- " and shown else []), *shown, *([f"{mark}and {more} more"] if more else [])]
        )
    assumed = [f"{mark}{safe(each.text)} ({_triggers(each.triggers)})" for each in report.assumptions]
    yield "\n".join(["What is assumed, and how many triggers hang on it:", *([""] if mark == "- " else []), *assumed])


def _triggers(number: int) -> str:
    return "1 trigger" if number == 1 else f"{number} triggers"


def _table_text(title: str, table: Sequence[Row], report: Report) -> str:
    width = max(len(title), *(len(name) for name, _, _ in table))
    if report.now is None:
        return "\n".join([title, *(f"{name:<{width}}  {proposed:>10}" for name, _, proposed in table)])
    head = f"{title:<{width}}  {'now':>10}  {'proposed':>10}"
    return "\n".join([head, *(f"{name:<{width}}  {now:>10}  {proposed:>10}" for name, now, proposed in table)])


def _table_markdown(title: str, table: Sequence[Row], report: Report) -> str:
    if report.now is None:
        return "\n".join(
            [f"| {title} | proposed |", "|---|--:|", *(f"| {name.strip()} | {new} |" for name, _, new in table)]
        )
    body = (f"| {name.strip()} | {now} | {new} |" for name, now, new in table)
    return "\n".join([f"| {title} | now | proposed |", "|---|--:|--:|", *body])


def _escaped(text: str) -> str:
    """As Markdown shows it: no mark-up, no HTML. Nobody is mentioned: the empty comment parts the sign from the name."""
    marked = re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(visible(text), quote=False))
    return marked.replace("@", "@<!-- -->")
