"""Fills a group's labels into the strings of a PromQL query, so that each label stays text.

Source of the grammar: Prometheus' documentation of string literals and comments.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from app.policy.language.templates import fill, placed

_REGEX_OPERATOR: Final = re.compile(r"[=!]~\s*\Z")
_REGEX_META: Final = frozenset("\\.+*?()|[]{}^$")
_BOOL: Final = re.compile(r"\bbool\b")


class _Place(NamedTuple):
    quote: str  # "" outside of every string; # in a comment
    regex: bool = False


def _places(query: str) -> list[_Place]:
    """For each character of a query, the string or comment that it is in."""
    places: list[_Place] = []
    here, escaped = _Place(""), False
    for at, character in enumerate(query):
        places.append(here)
        if here.quote == "#":
            here = _Place("") if character == "\n" else here
        elif not here.quote and character in "\"'`#":
            here = _Place(character, bool(_REGEX_OPERATOR.search(query[:at])))
        elif here.quote and escaped:
            escaped = False
        elif here.quote in ("'", '"') and character == "\\":
            escaped = True
        elif here.quote and character == here.quote:
            here = _Place("")
    return places


def misplaced(query: str) -> Iterator[int]:
    """The offset of each placeholder outside of quotes. Raises TemplateError for any other `{{`."""
    places = _places(query)
    yield from (offset for _, offset in placed(query) if places[offset].quote not in ("'", '"'))


def render_query(query: str, group: Mapping[str, str]) -> str:
    """The query for a group. A label stays one string, whatever it holds; in =~ and !~ it matches only itself."""
    places = _places(query)

    def value(name: str, offset: int) -> str:
        text = group.get(name, "")
        if places[offset].regex:
            text = "".join(f"\\{c}" if c in _REGEX_META else c for c in text)
        return "".join(map(_escaped, text))

    return fill(query, value)


def compares_to_bool(query: str) -> bool:
    """Whether the query has the word `bool` outside of strings: then a false comparison is a 0, not an empty answer."""
    places = _places(query)
    return any(not places[found.start()].quote for found in _BOOL.finditer(query))


def _escaped(character: str) -> str:
    # Hexadecimal escapes are the same in both kinds of quotes.
    if character == "\\":
        return "\\\\"
    return f"\\x{ord(character):02x}" if character in "\"'" or character < " " or character == "\x7f" else character
