"""A lane as SVG. Python draws it, not a template: a fleet has thousands of marks."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from markupsafe import Markup

from app.explain.lanes import Kind, Mark, Span, Tick
from app.kit.times import iso

_LOW, _TALL = 40, 56  # pixels
_THICK: Final = {"critical": 10, "error": 10, "warning": 6}
#: The words that style.css knows. A severity can be any text.
_WORDS: Final = frozenset(
    """critical error warning info succeeded failed dead lost cancelled shadow running submitted pending held up grace down
    new paused promoted rolled_back""".split()  # noqa: SIM905 (one word a class)
)
_BAD: Final = ("failed", "dead", "lost")


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
    parts = [
        f'<svg class="lane{" tall" if tall else ""}" width="100%" height="{bottom}" role="{"group" if to else "img"}" '
        f'aria-label="{escape(label)}" data-since="{iso(span.since)}" data-until="{iso(span.until)}">'
    ]
    for tick in ticks:
        parts.append(_line(span.place(tick.at), 0, bottom, 'class="tick" '))
    for mark in marks:
        parts.append(_mark(mark, span, bottom, to(mark) if to else ""))
    parts.append(_line(span.place(span.now), 0, bottom, 'class="now" '))
    parts.append("</svg>")
    return Markup("\n".join(parts))


def spoken(marks: Sequence[Mark]) -> str:
    """What a lane shows, for people who cannot see it."""
    alerts = sum(mark.kind is Kind.EPISODE for mark in marks)
    ends = [mark.word for mark in marks if mark.kind is Kind.RUN]
    good, bad = ends.count("succeeded"), sum(end in _BAD for end in ends)
    some = "" if len(ends) == 1 else "s"
    return f"{alerts} alert{'' if alerts == 1 else 's'}, {len(ends)} trigger{some}: {good} succeeded, {bad} failed"


def _line(x: float, top: int, bottom: int, attributes: str = "") -> str:
    return f'<line {attributes}x1="{x:.3f}%" x2="{x:.3f}%" y1="{top}" y2="{bottom}"/>'


def _mark(mark: Mark, span: Span, bottom: int, link: str) -> str:
    start, end, note = iso(mark.start), iso(mark.end), mark.note[:300]
    begin, over = (f"{time[:10]} {time[11:16]} UTC" for time in (start, end))
    title = escape(f"{mark.kind}: {note} ({begin}{f' to {over}' if over != begin else ''})")
    word = mark.word if mark.word in _WORDS else "other"
    opened = f'<a href="{escape(link)}" aria-label="{escape(f"{mark.kind}, {note}, {begin}")}">' if link else ""
    return (
        f'<g class="mark {mark.kind} {word}" data-kind="{mark.kind}" data-word="{escape(mark.word)}" '
        f'data-id="{escape(mark.id)}" data-start="{start}" data-end="{end}">{opened}<title>{title}</title>'
        f"{_shape(mark, span, bottom)}{'</a>' if link else ''}</g>"
    )


def _shape(mark: Mark, span: Span, bottom: int) -> str:
    x, end = span.place(mark.start), span.place(mark.end)
    match mark.kind:
        case Kind.COOLDOWN:
            return _bar(x, end, 0, bottom)
        case Kind.EPISODE:
            thick = _THICK.get(mark.word, 3)
            return _bar(x, end, 14 - thick, thick)
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
