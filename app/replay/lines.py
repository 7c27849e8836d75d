"""A history in a file: one JSON object a line, `{"at", "source", "body"}`, gzip or not.

`source` is a monitor's (`alertmanager`, `grafana`, `cloudevents`, `native` or a source of the policy), and `body` what it
posted. What a gateway adds has a source that begins with `gateway.`: see `_GATEWAY`. A line that cannot be read is named
with its number and counted, and the rest goes on.
"""

import gzip
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json

from app.decide.alert import Alert, Bad, Parsed, Unreadable, in_range
from app.decide.rules import Pause
from app.intake.sources import alertmanager, cloudevents, grafana, mapped, native
from app.kit.errors import UsageError
from app.kit.garbage import uncollected
from app.policy.file.load import PolicyError, parse_policy
from app.policy.sources import Source
from app.replay.history import (
    Asked,
    Broken,
    Cancelled,
    Heard,
    History,
    Ineffective,
    Lifted,
    LiveAnswer,
    LiveRun,
    Outage,
    Paused,
    Redriven,
    Reloaded,
    Reset,
)

MAX_LINE: Final = 64 * 1024 * 1024  # bytes; a body of the product is far shorter
MAX_ALERTS: Final = 10_000  # of one line
SHOWN: Final = 10  # broken lines that a report names
SHORT: Final = 4096  # bytes of a body that is remembered
MOST_SHORT: Final = 10_000  # bodies that are remembered
_OWN: Final = "gateway.alerts"  # the source of notifications that a gateway has written
#: A line as `export` writes it. Its body can be found, and looked up, without decoding the line.
_USUAL: Final = re.compile(
    rb'\{"at": ?"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d))", ?"source": ?"([a-z0-9_.-]+)", ?'
    rb'"body": ?(.+)\}\s*',
    re.DOTALL,
)
_GZIP: Final = b"\x1f\x8b"

Reader = Callable[[bytes, int], Parsed]
_Read = tuple[tuple[Alert, ...], list[Bad]]  # the alerts of a body, and what could not be read of it
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore")

    at: AwareDatetime
    source: str
    body: Any
    headers: dict[str, str] = {}


class _Group(BaseModel):
    model_config = ConfigDict(extra="ignore")

    route: str
    group: dict[str, str] = {}


class _Request(_Group):
    requested_by: str = "somebody"
    reason: str = ""
    force: bool = False


class _Pause(BaseModel):
    model_config = ConfigDict(extra="ignore")

    route: str
    until: AwareDatetime | None = None
    reason: str = ""
    by: str = "somebody"


class _Named(BaseModel):
    model_config = ConfigDict(extra="ignore")

    route: str


class _By(_Group):
    by: str = "somebody"


class _Policy(BaseModel):
    model_config = ConfigDict(extra="ignore")

    text: str
    hash: str | None = None


class _Alert(BaseModel):
    model_config = ConfigDict(extra="ignore")

    alert_id: str
    fingerprint: str
    source: str
    status: Literal["firing", "resolved"]
    severity: str
    starts_at: AwareDatetime
    ends_at: AwareDatetime | None = None
    labels: dict[str, str]


class _Alerts(BaseModel):
    model_config = ConfigDict(extra="ignore")

    alerts: list[Any]


class _Outage(BaseModel):
    model_config = ConfigDict(extra="ignore")

    until: AwareDatetime


class _Run(_Group):
    accepted_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    lost_at: AwareDatetime | None = None
    outcome: str | None = None
    reason: str = ""
    mode: Literal["live", "shadow"] = "live"


class _Answer(_Group):
    confirmed: bool | None


class _Ineffective(_Group):
    holds: bool


def _request(at: datetime, body: Any, history: History) -> None:
    read = _Request.model_validate(body)
    history.events.append(Asked(at, read.route, read.group, read.requested_by, read.reason, read.force))


def _pause(at: datetime, body: Any, history: History) -> None:
    read = _Pause.model_validate(body)
    history.events.append(Paused(at, Pause(read.route, read.until, read.reason, read.by, at)))


def _lift(at: datetime, body: Any, history: History) -> None:
    history.events.append(Lifted(at, _Named.model_validate(body).route))


def _reset(at: datetime, body: Any, history: History) -> None:
    read = _Group.model_validate(body)
    history.events.append(Reset(at, read.route, read.group))


def _cancel(at: datetime, body: Any, history: History) -> None:
    read = _By.model_validate(body)
    history.events.append(Cancelled(at, read.route, read.group, read.by))


def _redrive(at: datetime, body: Any, history: History) -> None:
    read = _Group.model_validate(body)
    history.events.append(Redriven(at, read.route, read.group))


def _policy(at: datetime, body: Any, history: History) -> None:
    read = _Policy.model_validate(body)
    policy = parse_policy(read.text, "the policy of this line", {}, require_env=False)
    # Without its secrets the text has another hash than the file.
    history.events.append(Reloaded(at, policy.model_copy(update={"hash": read.hash}) if read.hash else policy))


def _run(at: datetime, body: Any, history: History) -> None:
    read = _Run.model_validate(body)
    ends = read.accepted_at, read.ended_at, read.outcome, read.lost_at
    history.runs.append(LiveRun(read.route, read.group, at, *ends, read.reason, read.mode))


def _answer(at: datetime, body: Any, history: History) -> None:
    read = _Answer.model_validate(body)
    history.answers.append(LiveAnswer(at, read.route, read.group, read.confirmed))


def _ineffective(at: datetime, body: Any, history: History) -> None:
    read = _Ineffective.model_validate(body)
    history.events.append(Ineffective(at, read.route, read.group, read.holds))


def _outage(at: datetime, body: Any, history: History) -> None:
    history.events.append(Outage(at, _Outage.model_validate(body).until))


def _written(raw: bytes, _most: int) -> Parsed:
    """The alerts that arrived together at a gateway."""
    alerts = [_known_alert(to_json(alert)) for alert in _Alerts.model_validate_json(raw).alerts]
    return Parsed(alerts, [*range(len(alerts))], [])


@lru_cache(100_000)
def _known_alert(text: bytes) -> Alert:
    """An alert as a gateway has written it. Its repeats are one object."""
    read = _Alert.model_validate_json(text)
    firing = read.status == "firing"
    return Alert(
        alert_id=read.alert_id,
        fingerprint=read.fingerprint,
        firing=firing,
        severity=read.severity,
        starts_at=in_range(read.starts_at),
        ends_at=None if firing or read.ends_at is None else in_range(read.ends_at),
        labels=read.labels,
        annotations={},
        source=read.source,
        timestamped=read.source not in ("alertmanager", "grafana"),
    )


#: What a gateway writes beside the bodies of monitors. `at` of a run is when its trigger fired.
_GATEWAY: Final[Mapping[str, Callable[[datetime, Any, History], None]]] = {
    "gateway.request": _request,
    "gateway.pause": _pause,
    "gateway.lift": _lift,
    "gateway.reset": _reset,
    "gateway.cancel": _cancel,
    "gateway.redrive": _redrive,
    "gateway.policy": _policy,
    "gateway.outage": _outage,
    "gateway.run": _run,
    "gateway.confirm": _answer,
    "gateway.ineffective": _ineffective,
}


def read_lines(
    lines: Iterator[bytes], sources: Mapping[str, Source], progress: Callable[[int], None] = lambda _: None
) -> History:
    """The history in these lines. `sources` are those of the policies, by name. `progress` gets the number of the line."""
    history, bodies = History(), _Bodies(sources)
    with uncollected():
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            history.lines += 1
            try:
                if len(line) > MAX_LINE:
                    raise ValueError("the line is too long")
                _take(line, bodies, history, number)
            except (ValueError, Unreadable, PolicyError) as error:
                _break(history, number, _sentence(error))
            if number % 1000 == 0:
                progress(number)
    history.in_order()
    return history


def open_lines(path: str) -> Iterator[bytes]:
    """The lines of a file, packed with gzip or not; `-` is the standard input. Raises UsageError when it cannot be read."""
    if path == "-":
        yield from _unpacked(sys.stdin.buffer, "the standard input")
        return
    try:
        with Path(path).open("rb") as file:
            yield from _unpacked(file, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}. Name a file of JSON lines") from error


def _unpacked(file: IO[bytes], name: str) -> Iterator[bytes]:
    buffered = io.BufferedReader(file) if not hasattr(file, "peek") else file  # type: ignore[type-var]
    packed = buffered.peek(2)[:2] == _GZIP
    try:
        with gzip.open(buffered) if packed else buffered as stream:
            while line := stream.readline(MAX_LINE + 1):
                yield line
    except (EOFError, gzip.BadGzipFile, UnicodeError) as error:
        raise UsageError(f"{name} is packed with gzip and broken: {error}") from error


class _Bodies:
    """Reads what monitors posted. They repeat what fires: an equal body is read once, and its alerts are the same
    objects."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        self._remembered = lru_cache(MOST_SHORT)(self._read)

    def read(self, source: str, raw: bytes, headers: Mapping[str, str]) -> _Read:
        """The alerts of a body, and what could not be read of it. Raises Unreadable, and ValueError for its source."""
        if headers or len(raw) > SHORT:
            return self._read(source, raw, headers)
        return self._remembered(source, raw)

    def _read(self, source: str, raw: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> _Read:
        parsed = _reader(source, headers, self._sources)(raw, MAX_ALERTS)
        return tuple(parsed.alerts), parsed.bad


def _take(line: bytes, bodies: _Bodies, history: History, number: int) -> None:
    found = _take_usual(line, bodies)
    if found is None:
        read = _Line.model_validate(_json(line))
        if (take := _GATEWAY.get(read.source)) is not None:
            take(in_range(read.at), read.body, history)
            return
        found = read.source, in_range(read.at), bodies.read(read.source, to_json(read.body), read.headers)
    source, at, (alerts, unread) = found
    for bad in unread:
        _break(history, number, f"alert {bad.index}: {bad.error}")
    if alerts:
        history.events.append(Heard(at, alerts))
        if source == _OWN:
            history.resolution = "a minute"


def _take_usual(line: bytes, bodies: _Bodies) -> tuple[str, datetime, _Read] | None:
    """The source, the time and the alerts of a line that `export` could have written. None: the whole line must be decoded,
    and if it is broken, that says how."""
    usual = _USUAL.fullmatch(line)
    if usual is None or (source := usual[2].decode()) in _GATEWAY:
        return None
    try:
        return source, in_range(datetime.fromisoformat(usual[1].decode())), bodies.read(source, usual[3], _NO_HEADERS)
    except (ValueError, Unreadable):
        return None


def _json(line: bytes) -> Any:
    try:
        return from_json(line)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None


def _reader(source: str, headers: Mapping[str, str], sources: Mapping[str, Source]) -> Reader:
    match source:
        case "gateway.alerts":
            return _written
        case "alertmanager":
            return alertmanager.read
        case "grafana":
            return grafana.read
        case "native" | "alerts":
            return native.read
        case "cloudevents":
            return partial(cloudevents.read, headers={k.lower(): v for k, v in headers.items()})
    known = sources.get(source)
    if known is None:
        names = ", ".join(["alertmanager", "grafana", "cloudevents", "native", *sources])
        raise ValueError(f"there is no source {source!r}. The sources are: {names}")
    return partial(mapped.read, source=known)


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(str(part) for part in found['loc']) or 'the line'}: {found['msg']}"
    if isinstance(error, Unreadable) and error.errors:
        first = error.errors[0]
        return f"{error} ({first['pointer']}: {first['message']})"
    return str(error)


def _break(history: History, number: int, error: str) -> None:
    history.broken_count += 1
    if len(history.broken) < SHOWN:
        history.broken.append(Broken(number, error[:300]))
