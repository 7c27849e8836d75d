"""Logs: one line per event, JSON unless the output is a terminal, without secrets.

structlog, the standard library's loggers and uvicorn's all use the same handler, so that all of them are redacted. Write
`log = logging.getLogger(__name__)` and pass fields in `extra=`, or use structlog's logger. Bind the fields of a whole
request or pass with `structlog.contextvars.bound_contextvars`.
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
from app.kit.visible import visible

MASK = "***"
LEVELS = ("debug", "info", "warning", "error")
_DEEPEST = 8  # A value that is nested deeper is written as text.

_LIBRARIES = (
    *("httpx", "httpcore", "hpack", "h2", "urllib3", "requests", "botocore", "boto3", "s3transfer", "google", "grpc"),
    *(
        "sqlalchemy",
        "asyncpg",
        "redis",
        "alembic",
        "mlflow",
        "opentelemetry",
        "multipart",
        "python_multipart",
        "websockets",
    ),
)
_PATH = re.compile(r"(\bhttps?://[^\s/\"'?#]*)[^\s\"']*")
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
    """Limits a log line that could come with every request: True once in so many seconds."""

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
    """Send every log of this process to `stream` (default: stderr; stdout is for the output of commands).

    `json` None means JSON unless the stream is a terminal. Times are UTC, RFC 3339. A later call replaces an earlier one.
    Raises UsageError for a level that is not debug, info, warning or error.
    """
    if level.lower() not in LEVELS:
        raise UsageError(f"log level {level!r}: use one of {', '.join(LEVELS)}")
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(not stream.isatty() if json is None else json, stream.isatty()))
    handler.addFilter(_is_no_copy)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.NOTSET)
    # At INFO these write a line for each request that we send, or for each look at the schema. At DEBUG they write its
    # headers, cookies and parameters, which may be secrets. So may a path: the address of a Slack webhook is one.
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    if level.lower() == "debug":
        logging.getLogger("httpx").setLevel(logging.INFO)
    handler.addFilter(_without_paths)
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
    event.pop("color_message", None)  # Uvicorn's copy of the event with colours.
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
            # As text, without the variables of the frames: these can hold passwords under any name.
            structlog.processors.format_exc_info,
            redact,
            *([] if as_json else [_for_a_terminal]),
            renderer,
        ],
    )


def _for_a_terminal(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Senders wrote a part of what is logged. The JSON renderer escapes it, and the one for people does not."""
    return {
        name: visible(value, "\n\t" if name in ("exception", "stack") else "") if isinstance(value, str) else value
        for name, value in event.items()
    }


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


def _without_paths(record: logging.LogRecord) -> bool:
    """Keep only the host of an address in the line that httpx writes for each request."""
    if record.name == "httpx":
        record.msg, record.args = _PATH.sub(r"\1/...", record.getMessage()), ()
    return True


def _is_no_copy(record: logging.LogRecord) -> bool:
    """Drop uvicorn's copy of an error that `app.web.error_answers` has logged with its error id."""
    return not (record.name == "uvicorn.error" and record.getMessage().startswith("Exception in ASGI application"))
