"""What a backtest over HTTP costs the intake meanwhile: `python -m benchmarks.backtests --help`. Needs wrk and /proc.

One gateway process runs on an embedded PostgreSQL and Valkey with a long history. It works at one backtest. wrk loads the
intake, in turn while the process of the backtest stands still and while it runs. So other work of the machine hits both
alike. This is done twice: while it reads the history, and while it replays it. The ratios are taken within a round.
"""

import argparse
import asyncio
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.kit.embedded import start_postgres, start_valkey
from app.kit.embedded.processes import end_in_order
from app.tables import migrate
from benchmarks.bodies import Load, bodies
from benchmarks.intake import POLICY
from benchmarks.pages import fill
from benchmarks.servers import Server, gateway, machine, wrk

PATH = "/api/v1/backtests"
AIM = 0.9


@dataclass(frozen=True, slots=True)
class Compared:
    """Medians over the rounds of one step of the backtest."""

    step: str
    still_per_second: float
    beside_per_second: float
    rate_ratio: float
    rate_ratios: list[float]
    p99_still_ms: float
    p99_beside_ms: float
    child_cpu: float  # seconds that the backtest got while it ran beside the load, of each second
    refused: int


def ask(port: int, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """The answer of the gateway."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(
        method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    found: dict[str, Any] = json.loads(answer.read())
    connection.close()
    if answer.status >= 400:
        raise SystemExit(f"{method} {path} was answered with {answer.status}: {found}")
    return found


def child_of(server: Server) -> Server | None:
    """The process of the backtest."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
            found = b"app.replay.jobs.child" in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if found and parent == server.pid:
            return Server(0, int(entry.name))
    return None


def reached(port: int, ident: str, step: str) -> None:
    """Wait until the backtest does this."""
    for _ in range(6000):
        found = ask(port, "GET", f"{PATH}/{ident}")
        if found["ended_at"] is not None:
            raise SystemExit(f"the backtest ended too soon ({found['error']}): give more --alerts")
        if found["progress"] is not None and found["progress"]["step"] == step:
            return
        time.sleep(0.1)
    raise SystemExit(f"the backtest did not come to {step} in ten minutes")


def compare(server: Server, child: Server, step: str, rounds: int, seconds: int, file: Path) -> Compared:
    """The intake while the backtest stands still, and while it runs, in turn."""
    still, beside, cpu = [], [], 0.0
    for _ in range(rounds):
        os.kill(child.pid, signal.SIGSTOP)
        still.append(wrk(server, file, seconds))
        os.kill(child.pid, signal.SIGCONT)
        before = child.cpu_seconds()
        beside.append(wrk(server, file, seconds))
        cpu += child.cpu_seconds() - before
    ratios = [b.per_second / s.per_second for s, b in zip(still, beside, strict=True)]
    return Compared(
        step=step,
        still_per_second=statistics.median(run.per_second for run in still),
        beside_per_second=statistics.median(run.per_second for run in beside),
        rate_ratio=statistics.median(ratios),
        rate_ratios=[round(ratio, 3) for ratio in ratios],
        p99_still_ms=statistics.median(run.p99 for run in still),
        p99_beside_ms=statistics.median(run.p99 for run in beside),
        child_cpu=cpu / (rounds * seconds),
        refused=sum(run.refused + run.broken for run in (*still, *beside)),
    )


def measure(alerts: int, rounds: int, seconds: int, folder: Path) -> dict[str, Any]:
    """The whole measurement, in `folder`. The caller removes it."""
    described = machine(folder)
    file = folder / "bodies.jsonl"
    file.write_text(bodies(Load("known", 1), random.Random(1)))
    postgres = start_postgres(folder / "data")
    valkey = start_valkey(folder / "data")
    try:
        asyncio.run(migrate.upgrade(postgres.url))
        asyncio.run(fill(postgres.url, alerts, 500))
        environment = {"GATEWAY_DATABASE_URL": postgres.url, "GATEWAY_REDIS_URL": valkey.url}
        with gateway(environment, folder / "gateway", POLICY) as server:
            wrk(server, file, 1)
            ident = ask(server.port, "POST", PATH, {"policy": POLICY})["id"]
            found = []
            for step in ("reading", "proposed"):
                reached(server.port, ident, step)
                child = child_of(server)
                if child is None:
                    raise SystemExit("the backtest has no process")
                found.append(compare(server, child, step, rounds, seconds, file))
            ask(server.port, "DELETE", f"{PATH}/{ident}")
    finally:
        valkey.stop()
        postgres.stop()
    return {"machine": described | {"alerts": alerts}, "steps": [asdict(each) for each in found]}


def report(found: dict[str, Any]) -> str:
    """The figures as a person reads them."""
    lines = ["  ".join(f"{name}: {value}" for name, value in found["machine"].items()), ""]
    for c in found["steps"]:
        rounds = ", ".join(f"{ratio:.2f}" for ratio in c["rate_ratios"])
        lines.append(
            f"{c['step']}: {c['still_per_second']:.0f} webhooks/s while it stands still, {c['beside_per_second']:.0f} "
            f"while it runs: ratio {c['rate_ratio']:.2f} (rounds: {rounds}; aim {AIM}); p99 {c['p99_still_ms']:.0f} and "
            f"{c['p99_beside_ms']:.0f} ms; it got {c['child_cpu']:.2f} of a core; refused {c['refused']}"
        )
    return "\n".join(lines)


def main() -> int:
    end_in_order()
    parser = argparse.ArgumentParser(description="The intake beside a backtest over HTTP; about two minutes.")
    parser.add_argument("--alerts", type=int, default=200_000, help="in the history (default: 200000)")
    parser.add_argument("--rounds", type=int, default=4, help="of each step (default: 4)")
    parser.add_argument("--seconds", type=int, default=3, help="of one run of wrk (default: 3)")
    parser.add_argument("--dir", type=Path, help="where the data goes, for another disk (default: the system's /tmp)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not here: on Debian and Ubuntu `apt install wrk` brings it")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=chosen.dir, ignore_cleanup_errors=True) as folder:
        found = measure(chosen.alerts, chosen.rounds, chosen.seconds, Path(folder))
    print(json.dumps(found, indent=2) if chosen.json else report(found))
    return 0 if all(step["rate_ratio"] >= AIM for step in found["steps"]) else 1


if __name__ == "__main__":
    sys.exit(main())
