"""A body of any shape, of which the policy says where the parts of an alert stand (`sources:`). Each becomes a native alert.

A part is told by choices, of which the first that is there counts: a JSON Pointer (RFC 6901) into the alert's own piece of
the body, or a constant, which is all that does not begin with `/`.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, Protocol

from pydantic import RootModel, TypeAdapter

from app.alerts.model import Alert, Parsed, Unreadable
from app.alerts.native import NativeAlert, to_alert
from app.alerts.read import read_apart

Choices = Sequence[str]
Unit = Literal["s", "ms"]
_A_SECOND: Final[Mapping[Unit, int]] = {"s": 1, "ms": 1000}
_ABSENT: Final = object()


class Shape(Protocol):
    """What the policy says of one source (app.policy.sources)."""

    @property
    def name(self) -> str: ...
    @property
    def alerts(self) -> str | None: ...
    @property
    def alert_id(self) -> Choices: ...
    @property
    def severity(self) -> Choices: ...
    @property
    def timestamp(self) -> Choices: ...
    @property
    def timestamp_unit(self) -> Unit | None: ...
    @property
    def status(self) -> Choices: ...
    @property
    def states(self) -> Mapping[str, Literal["firing", "resolved"]]: ...
    @property
    def labels(self) -> Mapping[str, Choices]: ...
    @property
    def annotations(self) -> Mapping[str, Choices]: ...


class _Piece(RootModel[Any]):
    """Any JSON: what is wrong with it is told by the mapping."""


_piece = TypeAdapter(_Piece)


def read(raw: bytes, max_alerts: int, shape: Shape) -> Parsed:
    """The alerts of one body. Raises Unreadable when none can be read."""
    return read_apart(raw, partial(_pieces, shape), _piece, lambda piece: _alert(shape, piece.root), max_alerts)


def pointer_problem(text: str) -> str | None:
    """What is wrong with a JSON Pointer; None: nothing."""
    if not text.startswith("/"):
        return "must be a JSON Pointer such as /detail/state"
    rest = text.replace("~0", "").replace("~1", "")
    return "in a JSON Pointer ~ is written ~0, and / within a name ~1" if "~" in rest else None


def _pieces(shape: Shape, body: Any) -> list[Any]:
    """The alerts' own pieces: the body, each entry of a list, or each entry of the list that `alerts` points to."""
    found = body if shape.alerts is None else _at(body, shape.alerts)
    if isinstance(found, dict):
        return [found]
    if isinstance(found, list) and found:
        return found
    where = f"at {shape.alerts}" if shape.alerts else "the body"
    raise Unreadable(422, f"{where} must be one alert or a list of alerts with at least one")


def _alert(shape: Shape, piece: Any) -> Alert:
    """Raises ValueError (pydantic's for what is there and will not do) naming the part at fault."""
    native = NativeAlert(
        alert_id=_text(_required(piece, shape.alert_id, "alert_id"), "alert_id"),
        severity=_text(_required(piece, shape.severity, "severity"), "severity"),
        timestamp=_time(_required(piece, shape.timestamp, "timestamp"), shape.timestamp_unit),
        status=_state(_text(_required(piece, shape.status, "status"), "status"), shape),
        labels=_texts(piece, shape.labels, "labels"),
        annotations=_texts(piece, shape.annotations, "annotations"),
    )
    return to_alert(native, shape.name)


def _state(word: str, shape: Shape) -> Literal["firing", "resolved"]:
    state = shape.states.get(word)
    if state is None:
        raise ValueError(f"status: {word[:80]!r} is not one of {', '.join(shape.states)}")
    return state


def _time(value: Any, unit: Unit | None) -> Any:
    """RFC 3339 as it is, for the native alert to judge; a number only where the policy says what it counts."""
    if isinstance(value, int | float) and not isinstance(value, bool) and unit is not None:
        try:
            return datetime.fromtimestamp(value / _A_SECOND[unit], UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise ValueError("timestamp: out of range") from error
    return value


def _texts(piece: Any, wanted: Mapping[str, Choices], part: str) -> dict[str, str]:
    """Those that are there: a label that the body lacks is left out."""
    found = ((name, _pick(piece, choices)) for name, choices in wanted.items())
    return {name: _text(value, f"{part}.{name}") for name, value in found if value is not _ABSENT}


def _required(piece: Any, choices: Choices, part: str) -> Any:
    value = _pick(piece, choices)
    if value is _ABSENT:
        raise ValueError(f"{part}: there is nothing at {' or '.join(choices)}")
    return value


def _pick(piece: Any, choices: Choices) -> Any:
    """The first choice that is there; null is not."""
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
    """What stands at a JSON Pointer; `_ABSENT` where nothing does."""
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name, _ABSENT)
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _ABSENT
    return value
