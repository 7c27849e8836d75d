"""Durable intake against a plain FastAPI endpoint: `make bench`, or `python -m benchmarks.intake --help`.

One gateway process runs on an embedded PostgreSQL (fsync on) and Valkey, beside one plain process (benchmarks.plain). wrk
(Debian: `apt install wrk`) loads them in turn, never both at once. Each round loads both, so that other work of the machine
hits both alike. The ratios are taken within a round, and the report has their median.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from app.kit.embedded import start_postgres, start_valkey
from app.kit.embedded.processes import free_ports
from app.tables import migrate
from benchmarks.bodies import bodies

CONNECTIONS = 64
WEBHOOK = "/api/v1/webhooks/alertmanager"
HERE = Path(__file__).parent

# Nothing listens on port 9. The triggers stay pending behind an open breaker, as in an outage of Airflow.
POLICY = """
version: 1
airflow:
  - {name: default, url: "http://127.0.0.1:9"}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"', 'severity=~"critical|warning"']
    group_by: [model]
    dag: {id: retrain_model}
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of wrk. Times in milliseconds."""

    answers: int
    per_second: float
    p50: float
    p99: float
    refused: int  # answers of 400 and more
    broken: int  # connections refused, reset or timed out
    cpu: float  # microseconds that the serving process spent on an answer; 0 where there is no /proc


@dataclass(frozen=True, slots=True)
class Compared:
    """One load on both: medians over the rounds; the ratios are medians of the ratios within a round."""

    alerts_per_webhook: int
    gateway: Measured
    plain: Measured
    rate_ratio: float
    rate_ratios: list[float]
    p99_ratio: float
    cpu_ratio: float


@dataclass(frozen=True, slots=True)
class Server:
    """A server that this benchmark started on loopback."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time so far, without its children's. Source: proc(5), fields 14 and 15 of /proc/PID/stat."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wrk(server: Server, file: Path, seconds: int) -> Measured:
    """Load a server with the bodies of `file`."""
    before = server.cpu_seconds()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout=10s", "-s", str(HERE / "webhooks.lua")]
    command += [f"http://127.0.0.1:{server.port}{WEBHOOK}", "--", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not found:
        raise SystemExit(f"wrk failed:\n{done.stdout}{done.stderr}")
    result = json.loads(found[0].removeprefix("RESULT "))
    return Measured(
        answers=result["answers"],
        per_second=result["answers"] / (result["microseconds"] / 1e6),
        p50=result["p50"] / 1e3,
        p99=result["p99"] / 1e3,
        refused=result["refused"],
        broken=result["broken"],
        cpu=(server.cpu_seconds() - before) / max(result["answers"], 1) * 1e6,
    )


def compare(
    servers: tuple[Server, Server], alerts: int, rounds: int, seconds: int, folder: Path
) -> tuple[Compared, int]:
    """Rounds of one load on gateway and yardstick in turn. Also returns the alerts that the gateway acknowledged."""
    file = folder / f"{alerts}.jsonl"
    file.write_text(bodies(alerts, random.Random(alerts)))
    warm = [wrk(server, file, 1) for server in servers]
    runs = [(wrk(servers[0], file, seconds), wrk(servers[1], file, seconds)) for _ in range(rounds)]
    gateway, plain = [ours for ours, _ in runs], [theirs for _, theirs in runs]
    ratios = [ours.per_second / theirs.per_second for ours, theirs in runs]
    compared = Compared(
        alerts_per_webhook=alerts,
        gateway=_median(gateway),
        plain=_median(plain),
        rate_ratio=statistics.median(ratios),
        rate_ratios=[round(ratio, 3) for ratio in ratios],
        p99_ratio=statistics.median(ours.p99 / theirs.p99 for ours, theirs in runs),
        cpu_ratio=_ratio([run.cpu for run in plain], [run.cpu for run in gateway]),
    )
    return compared, alerts * sum(run.answers - run.refused for run in [warm[0], *gateway])


def _ratio(above: list[float], below: list[float]) -> float:
    return sum(above) / sum(below) if sum(below) else 0.0


def _median(runs: list[Measured]) -> Measured:
    return Measured(
        answers=sum(run.answers for run in runs),
        per_second=statistics.median(run.per_second for run in runs),
        p50=statistics.median(run.p50 for run in runs),
        p99=statistics.median(run.p99 for run in runs),
        refused=sum(run.refused for run in runs),
        broken=sum(run.broken for run in runs),
        cpu=statistics.median(run.cpu for run in runs),
    )


@contextmanager
def process(command: list[str], port: int, path: str, environment: Mapping[str, str]) -> Iterator[Server]:
    """A server that runs until the block ends. The block begins when `path` answers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    started = subprocess.Popen([sys.executable, *command], cwd=HERE.parent, env={**inherited, **environment})
    try:
        for _ in range(600):
            if started.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {started.returncode}")
            if _answers(f"http://127.0.0.1:{port}{path}"):
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"{' '.join(command)} did not answer within a minute")
        yield Server(port, started.pid)
    finally:
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False


async def facts_of(url: str) -> tuple[int, dict[str, str]]:
    """The notifications counted in the history, and the settings of Postgres that matter for the figures."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        counted: int = await connection.fetchval("SELECT coalesce(sum(count), 0)::bigint FROM alerts")
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        return counted, {name: await connection.fetchval(f"SHOW {name}") for name in names}
    finally:
        await connection.close()


def fsync_milliseconds(folder: Path) -> float:
    """The median time to write and fsync 8 KiB, of 50: the least that a commit costs on this disk."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(8192))
            before = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - before)
    return statistics.median(times) * 1e3


def machine(folder: Path) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "cpu": f"{os.cpu_count()} x {cpu}",
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "fsync_ms": round(fsync_milliseconds(folder), 2),
    }


def measure(rounds: int, seconds: int, folder: Path, loads: list[int]) -> dict[str, Any]:
    """The whole measurement, in `folder`. The caller removes it."""
    described = machine(folder)
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    postgres = start_postgres(folder / "data")
    try:
        valkey = start_valkey(folder / "data")
        try:
            asyncio.run(migrate.upgrade(postgres.url))
            ports = free_ports(2)
            environment = {
                "GATEWAY_DATABASE_URL": postgres.url,
                "GATEWAY_REDIS_URL": valkey.url,
                "GATEWAY_POLICY_FILE": str(policy),
                "GATEWAY_DATA_DIR": str(folder / "gateway"),
                "GATEWAY_PORT": str(ports[0]),
                "GATEWAY_LOG_LEVEL": "error",
            }
            gateway = ["-c", "from app.cli.main import main; main()", "serve"]
            with (
                process(gateway, ports[0], "/readyz", environment) as ours,
                process(["-m", "benchmarks.plain", str(ports[1])], ports[1], "/openapi.json", {}) as theirs,
            ):
                found = [compare((ours, theirs), alerts, rounds, seconds, folder) for alerts in loads]
            counted, database = asyncio.run(facts_of(postgres.url))
        finally:
            valkey.stop()
    finally:
        postgres.stop()
    acknowledged = sum(alerts for _, alerts in found)
    # When wrk ends, each of its connections may have one webhook under way. It is committed, and wrk misses the answer.
    unanswered = sum(CONNECTIONS * alerts * (rounds + 1) for alerts in loads)
    return {
        "machine": described | database,
        "loads": [asdict(compared) for compared, _ in found],
        "acknowledged": acknowledged,
        "counted": counted,
        "received_at_most": acknowledged + unanswered,
        "exact": acknowledged <= counted <= acknowledged + unanswered,
    }


def report(found: dict[str, Any]) -> str:
    """The figures as a person reads them."""
    lines = ["  ".join(f"{name}: {value}" for name, value in found["machine"].items()), ""]
    head = (
        f"{'':28}{'webhooks/s':>12}{'alerts/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'CPU us':>9}{'refused':>9}{'broken':>8}"
    )
    for load in found["loads"]:
        alerts = load["alerts_per_webhook"]
        lines += [f"{alerts} alert(s) a webhook, {CONNECTIONS} connections", head]
        for name, title in (("gateway", "durable intake"), ("plain", "plain FastAPI, nothing kept")):
            m = load[name]
            lines.append(
                f"{title:28}{m['per_second']:>12.0f}{m['per_second'] * alerts:>12.0f}{m['p50']:>10.1f}{m['p99']:>10.1f}"
                f"{m['cpu']:>9.0f}{m['refused']:>9}{m['broken']:>8}"
            )
        rounds = ", ".join(f"{ratio:.2f}" for ratio in load["rate_ratios"])
        lines += [
            f"rate ratio {load['rate_ratio']:.2f} (rounds: {rounds})   p99 ratio {load['p99_ratio']:.2f}   "
            f"CPU ratio {load['cpu_ratio']:.2f}",
            "",
        ]
    lines.append(
        f"acknowledged {found['acknowledged']} <= counted {found['counted']} <= received {found['received_at_most']}: "
        f"{'yes' if found['exact'] else 'NO: alerts were lost or counted twice'}"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Durable intake against a plain FastAPI endpoint; about a minute.")
    parser.add_argument("--rounds", type=int, default=4, help="times that each load goes to both (default: 4)")
    parser.add_argument("--seconds", type=int, default=3, help="of one run of wrk (default: 3)")
    parser.add_argument("--alerts", type=int, nargs="+", default=[1, 100], help="alerts a webhook (default: 1 100)")
    parser.add_argument("--dir", type=Path, help="where the data goes, for another disk (default: the system's /tmp)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not here: on Debian and Ubuntu `apt install wrk` brings it")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=chosen.dir, ignore_cleanup_errors=True) as folder:
        found = measure(chosen.rounds, chosen.seconds, Path(folder), chosen.alerts)
    print(json.dumps(found, indent=2) if chosen.json else report(found))
    return 0 if found["exact"] else 1


if __name__ == "__main__":
    sys.exit(main())
