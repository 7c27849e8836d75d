"""Where the parts of a JSON text are: the quarantine keeps an alert in the bytes that came, not in bytes of our own.

Numbers, NaN, equal keys and escapes do not survive a decoder and an encoder.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_decoder = json.JSONDecoder()

Path = tuple[str | int, ...]


def pieces(raw: bytes, body: Any, entries: Sequence[Any]) -> list[bytes]:
    """The bytes of each entry. `body` is the decoded `raw`; `entries` is a list inside it, or holds one value inside it. An
    entry that is put together from elsewhere, as from headers, has the whole of `raw`."""
    try:
        text = raw.decode()
        if (path := _path_to(body, entries)) is not None:
            return [text[begin:end].encode() for begin, end in _items(text, _find(text, path))]
        if len(entries) == 1 and (path := _path_to(body, entries[0])) is not None:
            begin = _find(text, path)
            return [text[begin : _decoder.raw_decode(text, begin)[1]].encode()]
    except (ValueError, LookupError, RecursionError):
        pass  # Python's parser and the other one do not agree about this body.
    return [raw] * len(entries)


def _path_to(value: Any, wanted: object) -> Path | None:
    """The keys and indexes that lead to this very object."""
    if value is wanted:
        return ()
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if isinstance(child, dict | list) and (rest := _path_to(child, wanted)) is not None:
            return (key, *rest)
    return None


def _find(text: str, path: Path) -> int:
    """Where the value at this path begins."""
    at = _skip(text, 0)
    for key in path:
        at = _items(text, at)[key][0] if isinstance(key, int) else _members(text, at)[key]
    return at


def _items(text: str, at: int) -> list[tuple[int, int]]:
    """Where each item of the list at `at` begins and ends."""
    found = []
    at = _skip(text, at + 1)
    while text[at] != "]":
        end = _decoder.raw_decode(text, at)[1]
        found.append((at, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _members(text: str, at: int) -> dict[str, int]:
    """Where the value of each key of the object at `at` begins. Of equal keys the last counts, as for the decoder."""
    found = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, colon = _decoder.raw_decode(text, at)
        at = _skip(text, _skip(text, colon) + 1)
        found[key] = at
        at = _skip(text, _decoder.raw_decode(text, at)[1])
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at
