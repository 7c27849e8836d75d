"""Logs: one line an event, JSON unless a person watches, secrets taken out.

structlog, the standard library's loggers and uvicorn's end in the same handler, so that all of them are redacted. Write
`log = logging.getLogger(__name__)` and give fields by `extra=`, or use structlog's logger; bind what belongs to a whole
request or pass by `structlog.contextvars.bound_contextvars`.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.kit.clock import monotonic
from app.kit.errors import UsageError

MASK = "***"
LEVELS = ("debug", "info", "warning", "error")
_DEEPEST = 8  # Nesting beyond which a value is written as text.

_SECRET_NAME = re.compile(
    r"(^|_)(pass(word|wd|phrase)?|secret|token|authorization|credentials?|(routing|api|private|access|secret)_?key|cookie)$"
)
_SECRET_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\btg_[A-Za-z0-9_-]{20,}"), f"tg_{MASK}"),
    # Everything between the scheme and the last @ before the path: a password may hold an @ that nobody escaped.
    (re.compile(r"(?<=://)[^\s/\"'<>]*@"), f"{MASK}@"),
    (re.compile(r"(?i)\b(bearer|basic|geniekey)\s+(?!realm=|error=)[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"(?i)([?&](?:key|token|api_key|password|secret|sig|signature)=)[^&\s\"'<>]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)(hooks\.slack\.com/services/)[^\s\"'<>]+"), rf"\1{MASK}"),
)


class Seldom:
    """Whether to write a line of a kind that may come with every request: true once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = float("-inf")

    def __call__(self) -> bool:
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def configure(level: str = "info", json: bool | None = None, stream: TextIO | None = None) -> None:
    """Send every log of this process to `stream` (default: stderr, which leaves stdout to a command's own output).

    `json` None means JSON unless the stream is a terminal. Times are UTC, RFC 3339. May be called again; the last call
    holds. Raises UsageError for a level that is not debug, info, warning or error.
    """
    if level.lower() not in LEVELS:
        raise UsageError(f"log level {level!r}: use one of {', '.join(LEVELS)}")
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(not stream.isatty() if json is None else json, stream.isatty()))
    handler.addFilter(_told_already)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.NOTSET)
    # Their INFO is a line for each request we make, or for each look at the schema.
    for name in ("httpx", "httpcore", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.NOTSET if level.lower() == "debug" else logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *_enriching(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A structlog processor: values under a secret's name become `***`, and so do secrets inside any text."""
    event.pop("color_message", None)  # Uvicorn's event once more, with colours.
    return {name: _clean(name, value, 0) for name, value in event.items()}


def scrub(text: str) -> str:
    """The text without our tokens, user:password@ of URLs, Authorization values and secret query parameters."""
    for pattern, instead in _SECRET_TEXT:
        text = pattern.sub(instead, text)
    return text


def _formatter(as_json: bool, colours: bool) -> logging.Formatter:
    renderer: Processor
    if as_json:
        renderer = structlog.processors.JSONRenderer(serializer=_dumps)
    else:
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain, timestamp_key="time")
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_enriching(), structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            # As text and without the frames' variables: those hold passwords under any name.
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
    )


def _enriching() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]


def _clean(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if _SECRET_NAME.search(_snake(name)):
        return MASK
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {scrub(str(key)): _clean(str(key), inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEEPEST:
        return [_clean("", inner, depth + 1) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    # Anything else becomes text here, not in the renderer: an exception may quote the URL it failed on.
    return scrub(value if isinstance(value, str) else repr(value))


def _snake(name: str) -> str:
    """`apiKey` and `X-Api-Key` as `api_key`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|-", "_", name).lower()


def _dumps(event: Any, **_: Any) -> str:
    return json.dumps(event, default=repr)


def _told_already(record: logging.LogRecord) -> bool:
    """Drop uvicorn's copy of a fault that `app.web.problems` has logged with its error id."""
    return not (record.name == "uvicorn.error" and record.getMessage().startswith("Exception in ASGI application"))
