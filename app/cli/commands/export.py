"""`export`: what happened, as a file of JSON lines; and the gateway's own history for `backtest`."""

import asyncio
import gzip
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from app.bootstrap.settings import read_settings
from app.cli.client import ask
from app.kit.clock import SystemClock
from app.kit.errors import UsageError
from app.policy.language.durations import parse_duration

app = typer.Typer()

_PAGE: Final = 1000


@app.command()
def export(
    file: Annotated[str, typer.Argument(help="Where to write; packed when it ends with .gz; - is the output.")] = "-",
    since: Annotated[str | None, typer.Option(help="A time, or how long before now, such as 90d.")] = None,
    until: Annotated[str | None, typer.Option(help="A time, or how long before now.")] = None,
    database: Annotated[
        bool, typer.Option("--database", help="Read the database of GATEWAY_DATABASE_URL, not a running gateway.")
    ] = False,
) -> None:
    """Write what happened as JSON lines, for `backtest --history`: notifications, requests, policies, runs."""
    now = SystemClock().now()
    begin, end = read_time(since, "--since", now), read_time(until, "--until", now)
    count = _write(own_lines(begin, end, database=database), file)
    print(f"{count} lines", file=sys.stderr)


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


def _write(lines: Iterator[bytes], file: str) -> int:
    """Write the lines, and return how many. A file is there when it is complete."""
    count = 0
    if file == "-":
        for line in lines:
            count += 1
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
        return count
    part = Path(f"{file}.part")
    try:
        with gzip.open(part, "wb", 6) if file.endswith(".gz") else part.open("wb") as out:
            for line in lines:
                count += 1
                out.write(line + b"\n")
        os.replace(part, file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}. Name another file") from error
    finally:
        part.unlink(missing_ok=True)
    return count


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
