"""The text of a policy as it may be kept and shown: without its secrets. Pure.

A literal secret stands as `${MASKED}`, so the text can be read as a policy again. A variable stays as it is written. Only
where the value of a variable decides (a duration, a matcher, a cron expression) the value is filled in: without it nobody
could say later what this policy did.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import JsonValue

from app.policy.file.document import Document
from app.policy.file.problems import Path
from app.policy.language.variables import Unexpanded

MASK: Final = "${MASKED}"
_SECRET: Final = "**********"  # how pydantic writes a secret
_VARIABLE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_UNUSUAL: Final = 8  # characters; a shorter secret may be a word of any comment
#: Sections whose values decide, and keys in them that do not.
_DECIDING: Final = frozenset({"defaults", "routes", "schedules", "time_intervals"})
_PASSED_ON: Final = frozenset({"dag", "confirm", "notify"})


def masked(text: str, document: Document, meant: Mapping[str, JsonValue]) -> str:
    """The text without its secrets. `meant` is the policy as pydantic writes it, which names the places of secrets."""
    places = set(_secret_places(meant, document.raw, ()))
    for route in _items(meant.get("routes")):  # It has the keys of `defaults` that it leaves out.
        places |= set(_secret_places(route, _value_at(document.raw, ("defaults",)), ("defaults",)))
    secrets = {str(value) for path in places if (value := _value_at(document.value, path)) is not None}
    new: dict[tuple[int, int], str] = {}
    for path, span in document.spans.items():
        written, value = _value_at(document.raw, path), _value_at(document.value, path)
        if path in places:
            if not _VARIABLE.fullmatch(str(written)):
                new[span] = f'"{MASK}"'
        elif written != value and _decides(path) and not any(secret in str(value) for secret in secrets):
            new[span] = json.dumps(value, ensure_ascii=False)
    for (begin, end), instead in sorted(new.items(), reverse=True):
        newline = "\n" if text[begin:end].endswith("\n") else ""
        text = text[:begin] + instead + newline + text[end:]
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _UNUSUAL and not _VARIABLE.search(secret):
            text = text.replace(secret, "MASKED")
    return text


def open_variables(document: Document) -> list[Path]:
    """Where a variable would decide, and has no value."""
    return [
        path for path in document.spans if _decides(path) and isinstance(_value_at(document.value, path), Unexpanded)
    ]


def _secret_places(meant: JsonValue | Mapping[str, JsonValue], raw: JsonValue, path: Path) -> Iterator[Path]:
    if meant == _SECRET:
        yield path
    elif isinstance(meant, Mapping) and isinstance(raw, dict):
        for key in meant.keys() & raw.keys():
            yield from _secret_places(meant[key], raw[key], (*path, key))
    elif isinstance(meant, list) and isinstance(raw, list) and len(meant) == len(raw):
        for index, (inner, written) in enumerate(zip(meant, raw, strict=True)):
            yield from _secret_places(inner, written, (*path, index))


def _value_at(value: JsonValue, path: Path) -> JsonValue:
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _items(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _decides(path: Path) -> bool:
    return path[0] in _DECIDING and not _PASSED_ON & set(path)
