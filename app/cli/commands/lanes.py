"""`history lanes`: the lanes of the page, drawn with characters. One line a group.

accuracy  model=churn   ·▄▄✓░░░░·····█✗·│░   failed
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from app.cli.client import Table, ask, labels, show
from app.explain.lanes import Kind, Mark, Span, flags_of, marks_of
from app.kit.clock import SystemClock

WIDTH: Final = 66  # characters of a lane
_MOST: Final = 1000  # items that one request gets
_TIMES: Final = ("_at", "_until")
#: The sign at the end of a run, by its state.
SIGNS: Final = {
    "succeeded": "✓",
    "failed": "✗",
    "dead": "†",
    "lost": "?",
    "cancelled": "⊘",
    "shadow": "○",
    "running": "▶",
    "submitted": "▷",
    "pending": "…",
}
FLAGS: Final = {"promoted": "⚑", "rolled_back": "⚐"}
_BARS: Final = {"critical": "█", "error": "█", "warning": "▄"}
LEGEND: Final = (
    "█ ▄ ▁ alert: critical, warning, other   ▒ held   ░ cooldown   │ now   "
    "✓ succeeded  ✗ failed  † dead  ? lost  ⊘ cancelled  ○ shadow  ▶ running  ▷ submitted  … pending   "
    "⚑ promoted  ⚐ rolled back"
)


def show_lanes(route: str | None, wanted: Sequence[str], days: int) -> None:
    """Ask the gateway and print a line for each group that has all of the labels `wanted` (LABEL=VALUE)."""
    span = Span.of(SystemClock().now(), days)
    since = span.since.isoformat()
    routes = ask("/api/v1/routes", route=route, limit=_MOST)["items"]
    alerts = ask("/api/v1/alerts", route=route, label=list(wanted), since=since, limit=_MOST)
    triggers = ask("/api/v1/triggers", route=route, label=list(wanted), limit=_MOST)
    promotions = [parsed(row) for row in ask("/api/v1/promotions", limit=_MOST)["items"]]
    having = dict(text.partition("=")[::2] for text in wanted)
    table = Table("route", "group", f"the last {days} days", "state", box=None, padding=(0, 2, 0, 0))
    for each in routes:
        for group in (g for g in each["groups"] if having.items() <= g["group"].items()):
            place = (each["name"], group["group"])
            fired = _of(triggers["items"], place)
            marks = marks_of(span, _of(alerts["items"], place), fired, parsed(group))
            marks += flags_of(_promoted(promotions, fired, span))
            table.add_row(each["name"], labels(group["group"]), drawn(marks, span), group["state"].replace("_", " "))
    show(table if table.row_count else "No group has been seen yet.")
    if table.row_count:
        show(LEGEND)
    if alerts["next"] or triggers["next"]:
        show(f"Only the newest {_MOST} alerts and triggers are drawn: --group or --route shows fewer groups.")


def _promoted(promotions: Iterable[Mapping[str, Any]], triggers: Iterable[Mapping[str, Any]], span: Span) -> list[Any]:
    """The promotions and rollbacks of the versions that these triggers made."""
    made = {(v["model"], v["version"]) for t in triggers for run in t["runs"] for v in run["versions"]}
    done = (row for row in promotions if row["state"] in ("promoted", "rolled_back") and row["registry"] == "mlflow")
    return [row for row in done if (row["model"], row["version"]) in made and row["ended_at"] >= span.since]


def _of(items: Iterable[Mapping[str, Any]], place: tuple[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    return [parsed(item) for item in items if (item["route"], item["group"]) == place]


def parsed(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of the API with its times as times."""
    return {name: _time(value) if name.endswith(_TIMES) else value for name, value in item.items()}


def _time(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else None


def drawn(marks: Iterable[Mark], span: Span, width: int = WIDTH) -> str:
    """The lane as characters. What comes later in `marks` stands above what comes before; signs stand above all."""
    cells = ["·"] * width
    signs: dict[int, str] = {}
    for mark in marks:
        first, last = _cell(span, mark.start, width), _cell(span, mark.end, width)
        if mark.kind is Kind.RUN:
            signs[last] = SIGNS.get(mark.word, "▶")
            continue
        if mark.kind is Kind.PROMOTION:  # It often follows its run so soon that both would stand in one place.
            free = (n for n in range(last, width) if n not in signs)
            signs[next(free, last)] = FLAGS[mark.word]
            continue
        body = {Kind.COOLDOWN: "░", Kind.HOLD: "▒", Kind.EPISODE: _BARS.get(mark.word, "▁")}.get(mark.kind, "")
        if body:
            cells[first : last + 1] = body * (last + 1 - first)
    now = _cell(span, span.now, width)
    cells[now] = "│" if cells[now] in "·░" else cells[now]
    return "".join(signs.get(n, cell) for n, cell in enumerate(cells))


def _cell(span: Span, time: datetime, width: int) -> int:
    return min(int(span.place(time) / 100 * width), width - 1)
