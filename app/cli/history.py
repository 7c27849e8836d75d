"""The history that a command replays or exports: a file of JSON lines, or what the gateway recorded."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from app.bootstrap.settings import read_settings
from app.cli.client import ask
from app.kit.errors import UsageError
from app.kit.visible import visible
from app.policy.sources import Source
from app.replay.asked import before, moment_of

if TYPE_CHECKING:
    from app.replay.history import History

_PAGE: Final = 1000


def read_history(
    file: str | None, sources: Mapping[str, Source], progress: Callable[[str, int, int], None] = lambda *_: None
) -> "History":
    """The history of a file, where - is the standard input, or without one the gateway's own. What cannot be read in it is
    named on the standard error."""
    from app.replay.lines import open_lines, read_lines

    if file is None:
        lines = own_lines(progress=lambda records: progress(f"reading, record {records}", 0, 0))
    else:
        lines = open_lines(file)
    known = read_lines(lines, sources, lambda lines: progress(f"reading, line {lines}", 0, 0))
    name = file or "the history of the gateway"
    for broken in known.broken:
        print(visible(f"{name}:{broken.line}: {broken.error}"), file=sys.stderr)
    if more := known.broken_count - len(known.broken):
        print(visible(f"{name}: {more} more things could not be read"), file=sys.stderr)
    return known


def own_lines(
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    database: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[bytes]:
    """The lines of the gateway's own history. `progress` gets the number of records that were read."""
    from app.replay.recorded import lines_of

    pages = _pages_of_database if database else _pages
    return lines_of(_counted(pages(since, until), progress), since, until)


def _counted(pages: Iterator[list[dict[str, Any]]], progress: Callable[[int], None]) -> Iterator[dict[str, Any]]:
    count = 0
    for page in pages:
        count += len(page)
        progress(count)
        yield from page


def _pages(since: datetime | None, until: datetime | None) -> Iterator[list[dict[str, Any]]]:
    cursor = None
    begin, end = (time.isoformat() if time else None for time in (since, until))
    while True:
        page = ask("/api/v1/history", limit=_PAGE, cursor=cursor, since=begin, until=end, within=60.0)
        yield page["items"]
        if (cursor := page["next"]) is None:
            return


def _pages_of_database(since: datetime | None, until: datetime | None) -> Iterator[list[dict[str, Any]]]:
    from app.bootstrap.core import servers
    from app.replay.stored import pages_of

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        urls = runner.run(stack.enter_async_context(servers(read_settings())))
        try:
            yield from pages_of(urls.database, since, until)
        finally:
            runner.run(stack.aclose())


def read_time(text: str | None, option: str, now: datetime) -> datetime | None:
    """A time that a person wrote: RFC 3339, or a duration before now."""
    if text is None:
        return None
    try:
        return before(moment_of(text), now)
    except ValueError as error:
        raise UsageError(
            f"{option} {text}: write a duration such as 90d, or a time such as 2026-11-02T00:00Z"
        ) from error
