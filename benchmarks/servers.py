"""What the benchmarks start on loopback, and wrk, which loads it."""

import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app.kit.embedded.processes import free_port
from benchmarks.bodies import NEW_GROUPS, PATHS

CONNECTIONS: Final = 64
ALERTMANAGER: Final = "prometheus-alertmanager"  # Debian's name of the program
HERE: Final = Path(__file__).parent
SERVE: Final = ("-c", "from app.cli.main import main; main()", "serve")
_LEAST: Final = 2 * CONNECTIONS  # requests: when the last of them leaves, each connection has had an answer

# Without a receiver nothing is sent. It still groups the alerts, as the gateway does.
_ROUTES: Final = "route: {receiver: nobody, group_by: [model]}\nreceivers: [{name: nobody}]\n"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that this benchmark started on loopback."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time so far of this process and of all that it started."""
        return cpu_seconds(self.pid)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of wrk. Times in milliseconds."""

    answers: int
    per_second: float
    p50: float
    p99: float
    refused: int  # answers of 400 and more
    broken: int  # connections refused, reset or timed out


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of all that it started, also of those that have ended. 0 where there is no
    /proc. Source: proc(5), fields 4 and 14 to 17 of /proc/PID/stat."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(") ")[2].split()
        except OSError:  # It has just ended.
            continue
        parents[int(entry.parent.name)] = int(fields[1])
        ticks[int(entry.parent.name)] = sum(int(field) for field in fields[11:15])
    family, found = {pid}, 0
    while found < len(family):
        found = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    return sum(ticks.get(member, 0) for member in family) / os.sysconf("SC_CLK_TCK")


def wrk(
    server: Server, file: Path, seconds: int, path: str = PATHS["alertmanager"], *, first: int = 0, enough: int = 0
) -> Measured:
    """Load a server with the bodies of `file`, for so many seconds, or until `enough` requests have left (0: no end but the
    time). New alerts have the numbers from `first` on."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout=10s", "-s", str(HERE / "webhooks.lua")]
    enough = max(enough, _LEAST) if enough else 0
    command += [f"http://127.0.0.1:{server.port}{path}", "--", str(file), str(first), str(enough), str(NEW_GROUPS)]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        timer = threading.Timer(seconds + 30, running.kill)
        timer.start()
        try:
            for line in running.stdout:
                lines.append(line)
                if line == "ENOUGH\n":
                    running.send_signal(signal.SIGINT)
        finally:
            timer.cancel()
    found = [line for line in lines if line.startswith("RESULT ")]
    if running.returncode or not found:
        raise SystemExit(f"wrk failed:\n{''.join(lines)}")
    result = json.loads(found[0].removeprefix("RESULT "))
    return Measured(
        answers=result["answers"],
        per_second=result["answers"] / (result["microseconds"] / 1e6),
        p50=result["p50"] / 1e3,
        p99=result["p99"] / 1e3,
        refused=result["refused"],
        broken=result["broken"],
    )


@contextmanager
def process(command: list[str], port: int, path: str, environment: Mapping[str, str]) -> Iterator[Server]:
    """A server that runs until the block ends. The block begins when `path` answers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    started = subprocess.Popen(command, cwd=HERE.parent, env={**inherited, **environment})
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


@contextmanager
def gateway(environment: Mapping[str, str], folder: Path, policy: str, *options: str) -> Iterator[Server]:
    """`trigger-gateway serve` with a policy, and its files in `folder`. `environment` names its servers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(policy)
    port = free_port()
    own = {
        "GATEWAY_POLICY_FILE": str(folder / "policy.yaml"),
        "GATEWAY_DATA_DIR": str(folder / "data"),
        "GATEWAY_PORT": str(port),
        "GATEWAY_LOG_LEVEL": "error",
        "GATEWAY_RATE_LIMIT": "0",
        "GATEWAY_RETENTION": "0",
    }
    with process([sys.executable, *SERVE, *options], port, "/readyz", {**own, **environment}) as server:
        yield server


@contextmanager
def plain() -> Iterator[Server]:
    """The yardstick: benchmarks.plain."""
    port = free_port()
    with process([sys.executable, "-m", "benchmarks.plain", str(port)], port, "/openapi.json", {}) as server:
        yield server


@contextmanager
def alertmanager(folder: Path) -> Iterator[Server | None]:
    """Debian's Alertmanager, which takes the same alerts from Prometheus and keeps them in memory. None where it is not
    installed."""
    if shutil.which(ALERTMANAGER) is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alertmanager.yml").write_text(_ROUTES)
    port = free_port()
    options = [f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}", "--log.level=error"]
    # Without an empty cluster address it opens a port to everybody.
    options += ["--cluster.listen-address=", f"--web.listen-address=127.0.0.1:{port}"]
    with process([ALERTMANAGER, *options], port, "/-/ready", {}) as server:
        yield server


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False


def machine(folder: Path) -> dict[str, Any]:
    """Where the figures come from."""
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
