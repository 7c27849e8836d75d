"""`backtest --check`: does a replay of what was recorded fire as live did?"""

import sys
from datetime import timedelta
from typing import Annotated

import typer
from pydantic_core import to_json

from app.bootstrap.settings import read_settings
from app.cli.commands.export import own_lines, read_time
from app.kit.clock import SystemClock
from app.kit.visible import visible


def check(
    history: Annotated[
        str | None, typer.Option(help="A file of JSON lines, gzip or not, or -. Default: the gateway's own history.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Compare from then on: a time, or a duration before now.")] = None,
    until: Annotated[str | None, typer.Option(help="Compare until then: a time, or a duration before now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for scripts.")] = False,
) -> None:
    """Replay the policies that were in force over what was recorded, and compare fire by fire: group, moment and reason.

    Exit code 1: a fire differs."""
    from app.replay.check import check as work
    from app.replay.lines import open_lines, read_lines
    from app.replay.runs import RESOLUTION

    now = SystemClock().now()
    begin, end = read_time(since, "--since", now), read_time(until, "--until", now)
    name = history or "the history of the gateway"
    known = read_lines(open_lines(history) if history else own_lines(), {})
    for broken in known.broken:
        print(visible(f"{name}:{broken.line}: {broken.error}"), file=sys.stderr)
    if history is None and end is None:
        end = now - RESOLUTION  # What fires on is due until now, however long nothing arrived.
    checked = work(known, begin, end, timedelta(seconds=read_settings().reorder_window))
    sys.stdout.write(to_json(checked.as_json(), indent=2).decode() + "\n" if as_json else checked.as_text())
    if checked.differences:
        raise typer.Exit(1)
