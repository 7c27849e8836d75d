"""`export`: what happened, as a file of JSON lines."""

import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from app.cli.history import own_lines, read_time
from app.kit.clock import SystemClock
from app.kit.errors import UsageError
from app.kit.visible import visible

app = typer.Typer()


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
    print(visible(f"{count} lines"), file=sys.stderr)


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
