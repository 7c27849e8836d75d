"""A body of any shape. `sources:` of the policy says where the parts of an alert are, and each becomes a native alert.

Each part has a list of choices; the first choice that has a value counts. A choice that begins with `/` is a JSON Pointer
(RFC 6901) into the alert's own piece of the body. Any other choice is a constant.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal

from pydantic import RootModel

from app.decide.alert import Alert, Parsed, Unreadable
from app.intake.sources.native import NativeAlert, to_alert
from app.intake.sources.read import read_apart
from app.policy.sources import Source, Unit

Choices = Sequence[str]
_A_SECOND: Final[Mapping[Unit, int]] = {"s": 1, "ms": 1000}
_ABSENT: Final = object()


class _Piece(RootModel[Any]):
    """Any JSON. The mapping checks it."""


def read(raw: bytes, max_alerts: int, source: Source) -> Parsed:
    """The alerts of one body. Raises Unreadable when none can be read."""
    return read_apart(raw, partial(_pieces, source), _Piece, lambda piece: _alert(source, piece.root), max_alerts)


def _pieces(source: Source, body: Any) -> list[Any]:
    """The alerts' own pieces: the body, each entry of a list, or each entry of the list that `alerts` points to."""
    found = body if source.alerts is None else _at(body, source.alerts)
    if isinstance(found, dict):
        return [found]
    if isinstance(found, list) and found:
        return found
    where = f"at {source.alerts}" if source.alerts else "the body"
    raise Unreadable(422, f"{where} must be one alert or a list of alerts with at least one")


def _alert(source: Source, piece: Any) -> Alert:
    """Raises ValueError that names the part at fault; for a part with a wrong value it is pydantic's ValidationError."""
    native = NativeAlert(
        alert_id=_text(_required(piece, source.alert_id, "alert_id"), "alert_id"),
        severity=_text(_required(piece, source.severity, "severity"), "severity"),
        timestamp=_time(_required(piece, source.timestamp, "timestamp"), source.timestamp_unit),
        status=_state(_text(_required(piece, source.status, "status"), "status"), source),
        labels=_texts(piece, source.labels, "labels"),
        annotations=_texts(piece, source.annotations, "annotations"),
    )
    return to_alert(native, source.name)


def _state(word: str, source: Source) -> Literal["firing", "resolved"]:
    state = source.states.get(word)
    if state is None:
        raise ValueError(f"status: {word[:80]!r} is not one of {', '.join(source.states)}")
    return state


def _time(value: Any, unit: Unit | None) -> Any:
    """The value as it is, for the native alert to check. A number becomes a time when the policy names its unit."""
    if isinstance(value, int | float) and not isinstance(value, bool) and unit is not None:
        try:
            return datetime.fromtimestamp(value / _A_SECOND[unit], UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise ValueError("timestamp: out of range") from error
    return value


def _texts(piece: Any, wanted: Mapping[str, Choices], part: str) -> dict[str, str]:
    """The labels or annotations that the body has; the others are left out."""
    found = ((name, _pick(piece, choices)) for name, choices in wanted.items())
    return {name: _text(value, f"{part}.{name}") for name, value in found if value is not _ABSENT}


def _required(piece: Any, choices: Choices, part: str) -> Any:
    value = _pick(piece, choices)
    if value is _ABSENT:
        raise ValueError(f"{part}: there is nothing at {' or '.join(choices)}")
    return value


def _pick(piece: Any, choices: Choices) -> Any:
    """The value of the first choice that has one; null is no value."""
    for choice in choices:
        value = _at(piece, choice) if choice.startswith("/") else choice
        if value is not _ABSENT and value is not None:
            return value
    return _ABSENT


def _text(value: Any, part: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ValueError(f"{part}: must be a text or a number, not a list or a mapping")


def _at(value: Any, pointer: str) -> Any:
    """The value at a JSON Pointer; `_ABSENT` when there is none."""
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name, _ABSENT)
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _ABSENT
    return value
