"""Many lives of the gateway, each drawn from a number, and the shortest story of each that fails.

    make simulate SEED=1 RUNS=300                     lives 1 to 300 over PostgreSQL, Valkey and a fake Airflow
    make simulate SEED=42 RUNS=1                      life 42 once more, exactly
    make simulate ARGS="--layer engine" RUNS=100000   the decisions alone, in plain memory: a hundred lives a number

With `--tally FILE` each hundred lives is written down, and the next call goes on behind them.
"""

import argparse
import asyncio
import gc
import json
import logging
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from app.kit.embedded.processes import end_in_order
from app.tables import migrate
from tests.servers import start_test_servers
from tests.simulation.life import broken_by, timeline
from tests.simulation.schedule import schedule_of
from tests.simulation.site import Site
from tests.unit.test_ledger_machine import Gateway

#: So many lives stand in one line of the tally. In the engine they share a number.
PORTION: Final = 100
_MEMORY: Final = Path("/dev/shm")


@contextmanager
def site_of_its_own() -> Iterator[Site]:
    """On servers of its own, which end with it."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        base = Path(folder)
        base.chmod(0o755)
        with start_test_servers(base) as servers:
            database = servers.fresh_database()
            asyncio.run(migrate.upgrade(database))
            data = base / "gateway"
            data.mkdir()
            yield Site(database, servers.valkey.url, data)


async def live(site: Site, number: int, *, brief: bool) -> str | None:
    """A life by its number: its story if it fails. `brief`: only what broke."""
    schedule = schedule_of(number)
    found = await broken_by(site, schedule)
    if found is None:
        return None
    if brief:
        return str(found[0])
    return await timeline(site, schedule) or f"seed {number}: {found[0]}; not a second time"


def live_in_the_engine(number: int, lives: int = PORTION) -> str | None:
    """So many lives of the pure engine, drawn from a number. The shortest one that fails; None: none does."""

    class Lives(Gateway):
        """Of its own, to hold the number."""

    seed(number)(Lives)
    small = settings(
        max_examples=lives,
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    try:
        run_state_machine_as_test(Lives, settings=small)
    except Exception as error:
        return f"seed {number}: " + "".join(traceback.format_exception(error, limit=-3))
    return None


class Tally:
    """A file with a line for each portion: the layer, the commit, the numbers, and what failed."""

    def __init__(self, path: Path | None, layer: str) -> None:
        self._path = path
        self._kind = {"layer": layer, "commit": _commit()}

    def next_of(self, first: int) -> int:
        """The first number that stands in no line of this commit, from `first` on."""
        spans = {line["first"]: line["last"] for line in self._lines()}
        while first in spans:
            first = spans[first] + 1
        return first

    def add(self, first: int, last: int, lives: int, seconds: float, failed: list[int]) -> None:
        if self._path is not None:
            line = self._kind | {
                "first": first,
                "last": last,
                "lives": lives,
                "seconds": round(seconds),
                "failed": failed,
            }
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _lines(self) -> list[dict[str, Any]]:
        if self._path is None or not self._path.exists():
            return []
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [line for line in lines if all(line[key] == value for key, value in self._kind.items())]


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(
        prog="make simulate", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="the first number")
    parser.add_argument("--runs", type=int, default=300, help="how many lives")
    parser.add_argument("--minutes", type=float, default=600, help="it begins no further life after this time")
    parser.add_argument("--layer", choices=["servers", "engine"], default="servers")
    parser.add_argument("--tally", type=Path, help="file to which each portion is added, and behind which it goes on")
    parser.add_argument("--brief", action="store_true", help="end at the first life that fails, without its story")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    lives, failed = _engine(options) if options.layer == "engine" else _servers(options)
    print(f"{lives} lives, {len(failed)} of them fail{': seeds ' + str(sorted(failed)) if failed else ''}")
    return 1 if failed else 0


def _servers(options: argparse.Namespace) -> tuple[int, dict[int, str]]:
    with site_of_its_own() as site:
        return asyncio.run(_portions(site, options))


async def _portions(site: Site, options: argparse.Namespace) -> tuple[int, dict[int, str]]:
    tally, until = Tally(options.tally, options.layer), time.monotonic() + options.minutes * 60
    first = number = tally.next_of(options.seed)
    last, failed = first + options.runs - 1, dict[int, str]()
    began, portion = time.monotonic(), first
    async with site:
        gc.freeze()  # Applications are large: each full collection would visit them again.
        while number <= last and time.monotonic() < until and not (failed and options.brief):
            story = await live(site, number, brief=options.brief)
            if story is not None:
                failed[number] = story
                print(story, "\n", flush=True)  # At once: many lives take hours.
            number += 1
            if number - portion == PORTION:
                tally.add(portion, number - 1, PORTION, time.monotonic() - began, [n for n in failed if n >= portion])
                began, portion = time.monotonic(), number
    if number > portion:
        new = [each for each in failed if each >= portion]
        tally.add(portion, number - 1, number - portion, time.monotonic() - began, new)
    return number - first, failed


def _engine(options: argparse.Namespace) -> tuple[int, dict[int, str]]:
    tally, until = Tally(options.tally, options.layer), time.monotonic() + options.minutes * 60
    lives, failed, number = 0, dict[int, str](), tally.next_of(options.seed)
    while lives < options.runs and time.monotonic() < until:
        began = time.monotonic()
        story = live_in_the_engine(number)
        if story is not None:
            failed[number] = story
            print(story, "\n", flush=True)
        tally.add(number, number, PORTION, time.monotonic() - began, [number] if story else [])
        lives, number = lives + PORTION, number + 1
    return lives, failed


if __name__ == "__main__":
    sys.exit(main())
