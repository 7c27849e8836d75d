"""A lane as SVG. Python draws it, not a template: a fleet has thousands of marks."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from html import escape
from typing import Final

from markupsafe import Markup

from app.explain.lanes import Kind, Mark, Span, Tick
from app.kit.times import iso
from app.kit.visible import unturned

_LOW, _TALL = 40, 56  # pixels
_THICK: Final = {"critical": 10, "error": 10, "warning": 6}
#: The words that style.css knows. A severity can be any text.
_WORDS: Final = frozenset(
    """critical error warning info succeeded failed dead lost cancelled shadow running submitted pending held up grace down
    new paused promoted rolled_back""".split()  # noqa: SIM905 (one word a class)
)
_BAD: Final = ("failed", "dead", "lost")


_MOST: Final = 150  # lanes that are kept, of about 80 KB each

_kept: OrderedDict[tuple[str, timedelta], tuple[object, Markup]] = OrderedDict()


def once(key: str, span: Span, facts: object, draw: Callable[[], Markup]) -> Markup:
    """The lane of a group. As long as `facts` are the same, `draw` is called once for a while. They must be everything that
    the lane shows, and nothing of them may go on. `span` is steady."""
    place, facts = (key, span.until - span.since), (span, facts)
    found = _kept.get(place)
    if found is None or found[0] != facts:
        found = facts, draw()
        _kept[place] = found
        if len(_kept) > _MOST:
            _kept.popitem(last=False)
    _kept.move_to_end(place)
    return found[1]


def drawn(
    marks: Iterable[Mark],
    span: Span,
    ticks: Iterable[Tick],
    label: str,
    *,
    tall: bool = False,
    to: Callable[[Mark], str] | None = None,
) -> Markup:
    """The lane of a group. With `to` each mark is a link, where it gives an address."""
    bottom = _TALL if tall else _LOW
    place = _places(span)
    parts = [
        f'<svg class="lane{" tall" if tall else ""}" width="100%" height="{bottom}" role="{"group" if to else "img"}" '
        f'aria-label="{escape(label)}" data-since="{iso(span.since)}" data-until="{iso(span.until)}">'
    ]
    parts += [_line(place(tick.at), 0, bottom, 'class="tick" ') for tick in ticks]
    parts += [_mark(mark, place, bottom, to(mark) if to else "") for mark in marks]
    parts.append(_line(place(span.now), 0, bottom, 'class="now" '))
    parts.append("</svg>")
    return Markup("\n".join(parts))


def _places(span: Span) -> Callable[[datetime], float]:
    """`span.place`, for thousands of times."""
    since, until = span.since, span.until
    one_percent = (until - since) / 100

    def place(time: datetime) -> float:
        return 0.0 if time <= since else 100.0 if time >= until else (time - since) / one_percent

    return place


def spoken(marks: Sequence[Mark]) -> str:
    """What a lane shows, for people who cannot see it."""
    alerts = sum(mark.kind is Kind.EPISODE for mark in marks)
    ends = [mark.word for mark in marks if mark.kind is Kind.RUN]
    good, bad = ends.count("succeeded"), sum(end in _BAD for end in ends)
    some = "" if len(ends) == 1 else "s"
    return f"{alerts} alert{'' if alerts == 1 else 's'}, {len(ends)} trigger{some}: {good} succeeded, {bad} failed"


def _line(x: float, top: int, bottom: int, attributes: str = "") -> str:
    return f'<line {attributes}x1="{x:.3f}%" x2="{x:.3f}%" y1="{top}" y2="{bottom}"/>'


def _mark(mark: Mark, place: Callable[[datetime], float], bottom: int, link: str) -> str:
    kind, start, end = mark.kind.value, iso(mark.start), iso(mark.end)
    word, note = mark.word if mark.word in _WORDS else "other", _safe(mark.note[:300])
    begin = f"{start[:10]} {start[11:16]} UTC"
    over = "" if start[:16] == end[:16] else f" to {end[:10]} {end[11:16]} UTC"
    opened = f'<a href="{escape(link)}" aria-label="{kind}, {note}, {begin}">' if link else ""
    return (
        f'<g class="mark {kind} {word}" data-kind="{kind}" data-word="{word if word != "other" else escape(mark.word)}" '
        f'data-id="{escape(mark.id)}" data-start="{start}" data-end="{end}">{opened}'
        f"<title>{kind}: {note} ({begin}{over})</title>"
        f"{_shape(mark, place(mark.start), place(mark.end), bottom)}{'</a>' if link else ''}</g>"
    )


@lru_cache(1024)
def _safe(note: str) -> str:
    """Most marks of a page have one of few notes."""
    return escape(unturned(note))


def _shape(mark: Mark, x: float, end: float, bottom: int) -> str:
    match mark.kind:
        case Kind.EPISODE:
            thick = _THICK.get(mark.word, 3)
            return _bar(x, end, 14 - thick, thick)
        case Kind.COOLDOWN:
            return _bar(x, end, 0, bottom)
        case Kind.HOLD:
            return _bar(x, end, bottom - 20, 14, ' fill="url(#hatch)"')
        case Kind.RUN:
            return _bar(x, end, bottom - 20, 14) + _sign(mark.word, end, bottom - 20, -7)
    flag = mark.kind is Kind.PROMOTION
    top = 18 if flag and bottom == _TALL else 1
    return _line(x, 2, bottom - 2) + _sign(mark.kind, x, top, -2 if flag else -7)


def _bar(x: float, end: float, top: int, height: int, more: str = "") -> str:
    return f'<rect x="{x:.3f}%" y="{top}" width="{end - x:.3f}%" height="{height}"{more}/>'


def _sign(name: str, x: float, top: int, left: int) -> str:
    # A sign at an edge is whole.
    left = 0 if x < 2 else -14 if x > 98 else left
    return (
        f'<svg x="{x:.3f}%" y="{top}" width="14" height="14" overflow="visible">'
        f'<use class="glyph {name}" href="#g-{name}" x="{left}" width="14" height="14"/></svg>'
    )
