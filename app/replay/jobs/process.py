"""What the process of a backtest does: it reads the history from the database, replays it, and writes lines.

The first byte of a line is its kind. A `P` is followed by `[step, done, total]`, an `R` by the report as JSON, an `E` by the
sentence of an error, and a `B` by the traceback of a bug. It shares nothing with the gateway but these lines. When the
gateway has ended, the next line finds no reader, and the process ends as well.
"""

import errno
import json
import resource
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import IO, Any, Final

from pydantic import BaseModel

from app.kit.clock import monotonic
from app.kit.db import OF_THE_DATABASE
from app.kit.errors import GatewayError
from app.policy.file.load import parse_policy
from app.policy.schema import Policy
from app.replay.asked import as_key, known_route, recorded_policy, sources_of
from app.replay.backtest import Progress, Question, backtest
from app.replay.history import History
from app.replay.jobs.schemas import Asked, Text
from app.replay.lines import read_lines
from app.replay.recorded import lines_of
from app.replay.stored import pages_of

PROGRESS: Final = b"P"
REPORT: Final = b"R"
ERROR: Final = b"E"
BUG: Final = b"B"
_OFTEN: Final = 0.5  # seconds between two lines of progress
_ELSEWHERE: Final = "use `trigger-gateway backtest`, which has no such bound"


class Order(BaseModel):
    """What the process gets on its input."""

    asked: Asked
    urls: list[str]
    reorder: timedelta
    memory: int
    records: int
    report: int


class _TooMuch(Exception):
    """A bound is reached."""


def work(order: bytes, out: IO[bytes]) -> None:
    """Do what is ordered. Raises BrokenPipeError when nobody listens any more."""
    read = Order.model_validate_json(order)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = read.memory if hard == resource.RLIM_INFINITY else min(read.memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    kind, words = _answer(read, _Listener(out).hear)
    out.write(kind + words + b"\n")
    out.flush()


def _answer(order: Order, progress: Progress) -> tuple[bytes, bytes]:
    try:
        return REPORT, _report(order, progress)
    except BrokenPipeError:
        raise
    except Exception as error:
        if _lacks_memory(error):
            found = f"It needs more memory than the {order.memory >> 20} MiB that it may take: {_ELSEWHERE}"
        elif isinstance(error, GatewayError | _TooMuch):
            found = str(error)
        elif isinstance(error, OF_THE_DATABASE):
            found = "Postgres did not answer in time: ask again"
        else:
            return BUG, json.dumps(traceback.format_exc()).encode()
    return ERROR, _sentence(found).encode(errors="replace")


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether that is the reason of an error, or of the errors behind it."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        error = error.__cause__ or error.__context__
    return False


def _sentence(clause: str) -> str:
    """One line, with a capital letter and a full stop."""
    line = " ".join(clause.split())
    return f"{line[:1].upper()}{line[1:]}" + ("" if line.endswith((".", "?", "!")) else ".")


class _Listener:
    """Writes progress, now and then."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._last = 0.0

    def hear(self, step: str, done: int, total: int) -> None:
        now = monotonic()
        if now - self._last >= _OFTEN:
            self._last = now
            self._out.write(PROGRESS + json.dumps([step, done, total]).encode() + b"\n")
            self._out.flush()


def _report(order: Order, progress: Progress) -> bytes:
    asked = order.asked
    proposed = _policy(asked.policy)
    reference = _policy(asked.compare) if isinstance(asked.compare, Text) else None
    history = _history(order, proposed, reference, progress)
    if isinstance(asked.compare, str):
        reference = recorded_policy(history, asked.compare, as_key)
    question = Question(
        proposed=proposed,
        now=reference,
        live=asked.compare == "live",
        since=asked.since,
        until=asked.until,
        route=known_route(asked.route, proposed, reference, naming=as_key),
        group=asked.group,
        length=asked.run,
        reorder=order.reorder,
        naming=as_key,
    )
    text = json.dumps(backtest(history, question, progress).as_json(), separators=(",", ":")).encode()
    if len(text) > order.report:
        most = f"{order.report >> 20} MiB"
        raise _TooMuch(f"The report has more than {most}: name a route, a group or a shorter time, or {_ELSEWHERE}")
    return text


def _policy(kept: Text) -> Policy:
    # Without its secrets the text has another hash than what was sent.
    return parse_policy(kept.text, "policy", {}, require_env=False).model_copy(update={"hash": kept.hash})


def _history(order: Order, proposed: Policy, reference: Policy | None, progress: Progress) -> History:
    for url in order.urls:
        try:
            lines = lines_of(_records(url, order.records, progress))
            return read_lines(lines, sources_of(proposed, reference), lambda n: progress("sorting", n, 0))
        except BrokenPipeError:
            raise
        except OF_THE_DATABASE:
            if url == order.urls[-1]:
                raise
    raise AssertionError("the gateway names its database")


def _records(url: str, most: int, progress: Progress) -> Iterator[dict[str, Any]]:
    count = 0
    for page in pages_of(url):
        count += len(page)
        if count > most:
            raise _TooMuch(f"The history has more than {most} records: {_ELSEWHERE}")
        progress("reading", count, 0)
        yield from page
