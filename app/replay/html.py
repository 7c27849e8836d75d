"""A report as one HTML file without scripts and without anything from elsewhere. Pure. Names in it are escaped.

Each group has a lane: when its alerts fire, and below it the runs as they are now and as they would be.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from math import ceil
from typing import Final

from app.kit.times import at
from app.replay.backtest import Report
from app.replay.changed import moment
from app.replay.figures import Fate, Scope, fates
from app.replay.history import group_name
from app.replay.replay import Replay
from app.replay.report import rows, tables_of
from app.replay.runs import GroupId, Run, group_id

WIDTH: Final = 1000  # of a lane, in its own units
LANES: Final = 2000  # groups that are drawn: those whose runs differ come first
FINE: Final = 200  # lanes that are drawn exactly; more of them are drawn coarser, so that the page stays below 10 MB
SHOWN: Final = 500  # changed episodes in the list

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.15rem .8rem .15rem 0;text-align:left}
td+td,th+th{text-align:right;font-variant-numeric:tabular-nums}h2{margin-top:2rem}
svg{display:block;width:100%;height:44px;margin:.1rem 0 .7rem}.lane{margin:0;font-weight:600}
.a{fill:#d9822b}.n{fill:#6b7785}.p{fill:#1d70b8}.f{fill:#eef0f2}
text{font:11px system-ui,sans-serif;fill:#57606a}
@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#14171a}.f{fill:#23282d}.n{fill:#9aa5b1}.p{fill:#5aa9e6}}
"""


def as_html(report: Report) -> str:
    """The whole page."""
    scope = report.scope
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>What would it have done?</title><style>{_STYLE}</style>",
        "<h1>What would it have done?</h1>",
        f"<p>From {at(scope.since)} to {at(scope.until)}: {len(report.history.events)} events, "
        f"{len(report.history.runs)} live runs, {report.history.broken_count} things that could not be read.</p>",
        f"<p>Resolution: {escape(report.history.resolution)}.</p>",
        *(f"<p>{escape(sentence)}</p>" for sentence in [*report.hole_sentences, *report.history.notes]),
        *_tables(report),
        *_changes(report),
        "<h2>What is assumed</h2><ul>",
        *(f"<li>{escape(each.text)} ({each.triggers} triggers)</li>" for each in report.assumptions),
        "</ul>",
        *_lanes(report),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _tables(report: Report) -> Iterable[str]:
    for name in ["", *tables_of(report)]:
        yield f"<table><tr><th>{escape(name) or 'All routes'}</th>"
        yield "<th>now</th><th>proposed</th></tr>" if report.now else "<th>proposed</th></tr>"
        for word, now, proposed in rows(report, name):
            before = f"<td>{now}</td>" if report.now else ""
            yield f"<tr><td>{escape(word)}</td>{before}<td>{proposed}</td></tr>"
        yield "</table>"


def _changes(report: Report) -> Iterable[str]:
    if report.now is None:
        return
    yield f"<h2>{len(report.changed)} of the episodes end otherwise</h2><ul>"
    yield from (f"<li>{escape(each.text)}</li>" for each in report.changed[:SHOWN])
    if len(report.changed) > SHOWN:
        yield f"<li>and {len(report.changed) - SHOWN} more: see the report as JSON</li>"
    yield "</ul>"


def _lanes(report: Report) -> Iterable[str]:
    now, proposed = report.replays
    known: defaultdict[GroupId, list[Fate]] = defaultdict(list)
    names: dict[GroupId, str] = {}
    for fate in (each for replay in (now, proposed) if replay is not None for each in fates(replay, report.scope)):
        if fate.route is not None:
            identity = group_id(fate.route, fate.group)
            names[identity] = f"{group_name(fate.group, fate.route)} ({fate.route})"
            known[identity].append(fate)
    before, after = _runs(now), _runs(proposed)
    order = sorted(names, key=lambda name: (_begins(before.get(name, ())) == _begins(after.get(name, ())), names[name]))
    if order:
        yield "<h2>Groups</h2><p>Orange: an alert fires. Grey: runs as they are now. Blue: runs as they would be.</p>"
    step = ceil(min(len(order), LANES) / FINE)
    for identity in order[:LANES]:
        yield f'<p class="lane">{escape(names[identity])}</p>'
        yield _lane(report.scope, known[identity], before.get(identity, ()), after.get(identity, ()), step)
    if len(order) > LANES:
        yield f"<p>And {len(order) - LANES} groups more.</p>"


def _lane(scope: Scope, known: Sequence[Fate], before: Sequence[Run], after: Sequence[Run], step: int) -> str:
    end = moment(scope.until)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} 44" preserveAspectRatio="none" role="img">',
        f'<rect class="f" width="{WIDTH}" height="32"/>',
        _bars("a", 2, ((fate.begin, fate.end) for fate in known), scope, step),
        _bars("n", 12, ((run.fired_at, run.ended_at or scope.until) for run in before), scope, step),
        _bars("p", 22, ((run.fired_at, run.ended_at or scope.until) for run in after), scope, step),
        f'<text y="42">{moment(scope.since)}</text><text x="{WIDTH}" y="42" text-anchor="end">{end}</text></svg>',
    ]
    return "".join(parts)


def _bars(kind: str, y: int, spans: Iterable[tuple[datetime, datetime]], scope: Scope, step: int) -> str:
    """All bars of one kind as one path. They begin and end at multiples of `step`, and each place is drawn once, so that a
    lane stays small."""
    steps = WIDTH // step / ((scope.until - scope.since).total_seconds() or 1.0)
    drawn: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if end < scope.since or begin > scope.until:
            continue
        left = max(0, step * round((begin - scope.since).total_seconds() * steps))
        right = max(left + max(2, step), min(WIDTH, step * round((end - scope.since).total_seconds() * steps)))
        if drawn and left <= drawn[-1][1]:
            drawn[-1] = drawn[-1][0], max(right, drawn[-1][1])
        else:
            drawn.append((left, right))
    path = "".join(f"M{left} {y}H{right}V{y + 8}H{left}Z" for left, right in drawn)
    return f'<path class="{kind}" d="{path}"/>' if path else ""


def _runs(replay: Replay | None) -> Mapping[GroupId, list[Run]]:
    found: defaultdict[GroupId, list[Run]] = defaultdict(list)
    for run in replay.runs if replay is not None else ():
        if not run.rehearsed:
            found[group_id(run.route, run.group)].append(run)
    return found


def _begins(runs: Sequence[Run]) -> list[datetime]:
    return [run.fired_at for run in runs]
