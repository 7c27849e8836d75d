"""What the spool costs, against the plain client in the same run: `python -m benchmarks.spool --help`.

One MLflow server runs on an embedded PostgreSQL. In each round the plain client and the spool do the same work, one
after the other, so that other work of the machine hits both alike. Ratios are taken within a round, and the report has
their median.

- calls: the time of one `log_metric` with the plain client, with the spool, and with the spool while MLflow is away.
  Also the time of the first call that finds MLflow gone.
- training: the time of a whole training script (tests/spool/scripts/train.py) while MLflow is up.
- drain: how many records of a backlog are delivered in a second, and the peak of memory.

The report says of each limit whether it is met.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.kit.embedded import start_postgres
from app.kit.embedded.processes import end_in_order, free_port
from tests.spool.mlflow import Environment, MlflowServer, install, running

HERE = Path(__file__).parent
P99_AWAY = 50.0  # milliseconds
FIRST_AWAY = 1000.0  # milliseconds, the default of MLFLOW_SPOOL_PROBE_TIMEOUT
TRAINING = 1.1  # of the plain client's time
DRAIN = 0.9  # of the plain client's rate
SCRIPT = HERE.parent / "tests" / "spool" / "scripts" / "train.py"


@dataclass(frozen=True)
class Bench:
    """The servers and folders of a run. Each measurement gets a fresh spool."""

    environment: Environment
    server: MlflowServer
    folder: Path
    away: str

    def run(self, argv: list[str | Path], uri: str, **variables: str) -> str:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            own = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_SPOOL_DIR": folder, "MLFLOW_SPOOL_EXIT_BUDGET": "60"}
            env = self.environment.variables(own | variables)
            done = subprocess.run([self.environment.python, *argv], env=env, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        return done.stdout


def calls(bench: Bench, rounds: int, number: int) -> None:
    """Distributions of the time that a call takes, in milliseconds."""
    cases = {"plain client": bench.server.uri, "spool": f"spool+{bench.server.uri}", "spool, MLflow away": bench.away}
    found: dict[str, list[float]] = {name: [] for name in cases}
    first: list[float] = []
    for _ in range(rounds):
        for name, uri in cases.items():
            budget = "0" if uri == bench.away else "60"
            printed = bench.run([HERE / "spool_worker.py", str(number)], uri, MLFLOW_SPOOL_EXIT_BUDGET=budget)
            measured = json.loads(printed.splitlines()[-1])
            found[name] += measured["calls"]
            first += [measured["first"]] if uri == bench.away else []
    print(
        f"{'a call of log_metric':24} {'p50':>8} {'p90':>8} {'p99':>8} {'longest':>8}   ms, {rounds * number} calls each"
    )
    for name, times in found.items():
        cuts = statistics.quantiles(times, n=100)
        print(f"{name:24} {cuts[49]:8.2f} {cuts[89]:8.2f} {cuts[98]:8.2f} {max(times):8.2f}")
    p99 = statistics.quantiles(found["spool, MLflow away"], n=100)[98]
    judge(f"a call while MLflow is away: p99 {p99:.1f} ms, at most {P99_AWAY:.0f}", p99 <= P99_AWAY)
    judge(f"the first that finds it gone: {max(first):.1f} ms, at most {FIRST_AWAY:.0f}", max(first) <= FIRST_AWAY)


def judge(what: str, met: bool) -> None:
    print(f"{'limit met' if met else 'LIMIT NOT MET'}: {what}")


def training(bench: Bench, rounds: int) -> None:
    """Wall time of a whole script, start-up included, while MLflow is up."""
    times: dict[str, list[float]] = {"plain": [], "spool": []}
    for number in range(rounds + 1):
        for name, uri in (("plain", bench.server.uri), ("spool", f"spool+{bench.server.uri}")):
            began = time.perf_counter()
            bench.run([SCRIPT], uri, EXPERIMENT=f"bench-{name}")
            if number:  # The first of each only warms up.
                times[name].append(time.perf_counter() - began)
    ratios = sorted(spool / plain for plain, spool in zip(times["plain"], times["spool"], strict=True))
    middle = {name: statistics.median(several) for name, several in times.items()}
    print(f"a training script: plain {middle['plain']:.2f} s, spool {middle['spool']:.2f} s (medians of {rounds})")
    ratio = statistics.median(ratios)
    print(f"ratio in a round, least first: {' '.join(f'{ratio:.2f}' for ratio in ratios)}")
    judge(
        f"training at a healthy server: {ratio:.2f} of the plain client's time, at most {TRAINING}", ratio <= TRAINING
    )


def drain(bench: Bench, number: int, plain: int) -> None:
    """A backlog of metrics of one run: the records a second out of the journal, against the plain client's calls."""
    printed = bench.run([HERE / "spool_worker.py", str(plain)], bench.server.uri)
    rate = 1000 * plain / sum(json.loads(printed.splitlines()[-1])["calls"])
    out = json.loads(bench.run([HERE / "spool_worker.py", "--backlog", str(number)], f"spool+{bench.server.uri}"))
    print(f"the plain client logs {rate:.0f} records a second ({plain} calls)")
    drained = number / out["seconds"]
    print(f"a backlog of {number} leaves at {drained:.0f} a second: {drained / rate:.1f} of that")
    judge(f"a backlog: {drained / rate:.1f} of the plain client's rate, at least {DRAIN}", drained / rate >= DRAIN)
    print(f"peak of memory {out['peak']:.0f} MB, {out['before']:.0f} MB before the drain; left {out['left']}")


def main() -> None:
    """Measure."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spool", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["calls", "training", "drain"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300, help="calls a round")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="records")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-spool-") as base:
        (folder := Path(base)).chmod(0o755)
        postgres = start_postgres(folder)
        try:
            environment = install(folder / "plugin")
            with running(environment, folder / "mlflow", postgres.create_database("mlflow")) as server:
                bench = Bench(environment, server, folder, f"spool+http://127.0.0.1:{free_port()}")
                measures: dict[str, Callable[[], None]] = {
                    "calls": lambda: calls(bench, args.rounds, args.calls),
                    "training": lambda: training(bench, args.rounds),
                    "drain": lambda: drain(bench, args.backlog, max(args.calls, 200)),
                }
                for name in args.what:
                    measures[name]()
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
