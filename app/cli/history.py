"""The history that a command replays or exports: a file of JSON lines, or what the gateway recorded."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from app.bootstrap.settings import read_settings
from app.cli.client import ask
from app.kit.errors import UsageError
from app.kit.visible import visible
from app.policy.language.durations import parse_duration
from app.policy.sources import Source

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
    from app.explain import recorded
    from app.kit.db import open_engine

    async def read() -> list[list[dict[str, Any]]]:
        pages, cursor = [], None
        async with servers(read_settings()) as urls:
            engine = open_engine(urls.database, pool_size=1, read_only=True)
            try:
                while True:
                    async with engine.connect() as conn:
                        page = await recorded.page(conn, cursor, _PAGE, since, until)
                    pages.append(page.items)
                    if (cursor := page.next) is None:
                        return pages
            finally:
                await engine.dispose()

    for page in asyncio.run(read()):
        yield [{k: str(v) if k in ("id", "alert") else v for k, v in record.items()} for record in page]


def read_time(text: str | None, option: str, now: datetime) -> datetime | None:
    """A time that a person wrote: RFC 3339, or a duration before now."""
    if text is None:
        return None
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{option} {text}: write a duration such as 90d, or a time such as 2026-11-02T00:00Z"
        ) from error
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
