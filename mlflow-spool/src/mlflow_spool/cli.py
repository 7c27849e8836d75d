"""`mlflow-spool COMMAND`: shows what waits in the journals of this machine, and delivers it."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from mlflow_spool.errors import SpoolError
from mlflow_spool.handover import HandOver
from mlflow_spool.journal import Journal
from mlflow_spool.records import strings
from mlflow_spool.settings import Settings, read_settings, without_login
from mlflow_spool.spool import Spool, gateway_of, lock_file, of_journal, system_clock

OK, FAILED, USAGE = 0, 1, 2
TURN = 5.0  # seconds for which `flush` delivers one journal before it goes on with the next


def main(argv: Sequence[str] | None = None, out: TextIO | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 when something is left or set aside, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="mlflow-spool", description="Metadata on its way to MLflow.")
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="show what waits, and what MLflow refused")
    status.add_argument("--json", action="store_true", help="print a JSON object for each journal")
    flush = commands.add_parser("flush", help="deliver what waits")
    flush.add_argument("--timeout", type=float, default=3600.0, help="stop after so many seconds (3600)")
    again = commands.add_parser("redrive", help="let what MLflow refused wait again, once you have fixed the reason")
    again.add_argument("--run", help="only records of the run with this id, MLflow's or a local one")
    give = commands.add_parser("hand-over", help="hand what waits to the gateway, as at the end of a process")
    give.add_argument("--timeout", type=float, default=60.0, help="stop after so many seconds (60)")
    export = commands.add_parser("export", help="write what waits or was refused as JSON lines")
    export.add_argument("--all", action="store_true", help="also what was delivered")
    commands.add_parser("verify", help="compare every run of the journal with what MLflow shows")
    args = parser.parse_args(argv)
    stream = out or sys.stdout
    try:
        settings = read_settings()
    except ValueError as error:
        _show(str(error), file=sys.stderr)
        return USAGE
    if args.command == "status":
        return _status(settings, stream, as_json=args.json)
    if args.command == "verify":
        return _verify(settings, stream)
    if args.command == "redrive":
        return _redrive(settings, stream, args.run)
    if args.command == "hand-over":
        return _hand_over(settings, stream, args.timeout)
    if args.command == "flush":
        return _flush(settings, stream, args.timeout)
    return _export(settings, stream, everything=args.all)


def _journals(settings: Settings) -> Iterator[tuple[str, Journal]]:
    """Every journal in the spool's folder, with the address of its server."""
    for file in sorted(Path(settings.folder).glob("*/journal.db")):
        journal = Journal(file.parent, settings.max_bytes)
        uri = journal.names.fact("uri")
        if uri:
            yield without_login(uri), journal


def _show(text: str, file: TextIO) -> None:
    """Print one line. What a terminal would obey, such as an escape in the name of a run, is shown as `\\x1b`."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    print(shown, file=file)


def _status(settings: Settings, out: TextIO, *, as_json: bool) -> int:
    troubled = False
    for uri, journal in _journals(settings):
        counts, aside = journal.inventory.counts(), journal.inventory.asides()
        troubled = troubled or bool(aside)
        shown: dict[str, Any] = {
            "server": uri,
            "login": journal.names.fact("user") or "",
            "workspace": journal.names.fact("workspace") or "",
            "pending": counts.pending,
            "delivered": counts.done,
            "handed_over": counts.handed,
            "gateway_may_have": counts.handing,
            "refused": [
                {"kind": item.record.kind.value, "of": item.record.stream, "why": item.problem} for item in aside
            ],
            "oldest": counts.oldest,
            "bytes": journal.size(),
        }
        if as_json:
            print(json.dumps(shown), file=out)
            continue
        where = f"{uri} workspace {shown['workspace']}" if shown["workspace"] else uri
        whose = f" for the login of {shown['login']}" if shown["login"] and counts.pending else ""
        _show(f"{where}: {counts.pending} waiting{whose}, {counts.done} delivered, {len(aside)} refused", file=out)
        if counts.handed or counts.handing:
            _show(f"  handed over to the gateway: {counts.handed}, perhaps: {counts.handing}", file=out)
        for refused in shown["refused"]:
            _show(f"  refused: {refused['kind']} of {refused['of']}: {refused['why']}", file=out)
    return FAILED if troubled else OK


def _spool(journal: Journal, settings: Settings) -> Spool | None:
    """The spool of a journal; None when its records go out with a login that the environment does not have."""
    from mlflow_spool.transport import connected  # Only some commands need an MLflow client.

    address, place = of_journal(journal, settings)
    server = connected(address, place)
    if server is None:
        message = f"{without_login(address)}: its records wait for the login of {place.user}; run it with that login"
        _show(message, file=sys.stderr)
        return None
    return Spool(address, server, place, system_clock(), background=False)


def _flush(settings: Settings, out: TextIO, timeout: float) -> int:
    left, found = 0, list[tuple[str, int, Spool]]()
    for uri, journal in _journals(settings):
        before = journal.inventory.counts().pending
        spool = _spool(journal, settings) if before or journal.custody.handing(0, 1) else None
        if spool is None:
            left += before
        else:
            found.append((uri, before, spool))
    waiting = _delivered([spool for _, _, spool in found], timeout)
    for (uri, before, _), still in zip(found, waiting, strict=True):
        if before:
            _show(f"{uri}: {before - still} of {before} records left the journal", file=out)
    return FAILED if left or any(waiting) else OK


def _delivered(spools: list[Spool], timeout: float) -> list[int]:
    """Deliver within `timeout` seconds; the records of each spool that still wait. One journal may wait for another, so that
    each has a turn again and again."""
    clock = system_clock()
    end, turn = clock.monotonic() + timeout, timeout if len(spools) == 1 else TURN
    before = list[int]()
    while True:
        began = clock.monotonic()
        waiting = [spool.finish(min(turn, max(end - clock.monotonic(), 0.0)), patient=True) for spool in spools]
        # In less than a turn nobody has waited for a server: then what is left is not this machine's to deliver.
        stuck = waiting == before and clock.monotonic() - began < turn
        if not any(waiting) or stuck or clock.monotonic() >= end:
            return waiting
        before = waiting


def _redrive(settings: Settings, out: TextIO, run: str | None) -> int:
    found = 0
    for uri, journal in _journals(settings):
        ids = {run, journal.names.token_of(run), journal.names.name_of(run)} - {None} if run else None
        asides = [aside.record for aside in journal.inventory.asides()]
        records = [
            record for record in asides if ids is None or ids & {*record.stream.split(":"), *strings(record.call.body)}
        ]
        if again := journal.redrive(records):
            _show(f"{uri}: {again} records wait again; `mlflow-spool flush` delivers them", file=out)
        found += again
    if run and not found:
        _show(f"nothing of the run {run} was set aside here", file=sys.stderr)
        return FAILED
    return OK


def _hand_over(settings: Settings, out: TextIO, timeout: float) -> int:
    gateway = gateway_of(settings)
    if gateway is None:
        _show("set MLFLOW_SPOOL_GATEWAY_URL to the address of the gateway", file=sys.stderr)
        return USAGE
    left = 0
    for uri, journal in _journals(settings):
        HandOver(journal, gateway, lock_file(journal.folder), system_clock()).run(timeout)
        counts = journal.inventory.counts()
        left += counts.pending + counts.handing
        _show(f"{uri}: {counts.handed} records are the gateway's, {counts.pending} stay here", file=out)
    return FAILED if left else OK


def _verify(settings: Settings, out: TextIO) -> int:
    complete = True
    for uri, journal in _journals(settings):
        spool = _spool(journal, settings)
        if spool is None:
            complete = False
            continue
        try:
            for found in spool.certificates():
                complete = complete and found.is_complete
                _show(f"{uri} run {found.run}: {found.readable} of {found.spooled} readable", file=out)
                for name in found.missing:
                    _show(f"  missing: {name}", file=out)
        except SpoolError as error:
            _show(f"{uri}: {error}", file=sys.stderr)
            complete = False
    return OK if complete else FAILED


def _export(settings: Settings, out: TextIO, *, everything: bool) -> int:
    states = ("pending", "aside", "done") if everything else ("pending", "aside")
    for uri, journal in _journals(settings):
        for state, record in journal.inventory.everything(states):
            print(json.dumps({"server": uri, "state": state, **record.exported()}), file=out)
    return OK


def run() -> int:
    """The command as a program. The reader of its output may go away before the end (`export | head`)."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


if __name__ == "__main__":
    sys.exit(run())
