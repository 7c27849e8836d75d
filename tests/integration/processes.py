"""Real `trigger-gateway` processes, and senders that behave as Alertmanager does."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from app.kit.clock import SystemClock, monotonic
from app.kit.embedded import unprivileged
from app.kit.embedded.processes import free_ports
from demo.processes import Server, clean_environment, launch, stop, wait_until
from tests import plain
from tests.fakes.airflow import FakeAirflow

WEBHOOK = "/api/v1/webhooks/alertmanager"
START_SECONDS = 90.0  # A machine that runs other tests as well, and a PostgreSQL that is made anew.

POLICY = """
version: 1
airflow:
  - {{name: default, url: "{airflow}", auth: {{username: gateway, password: gateway}}}}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    dag: {{id: retrain_model}}
"""


@dataclass
class Process:
    """One `trigger-gateway` process in `folder`. `variables` are GATEWAY_ settings without the prefix, lower case."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    arguments: Sequence[str] = ("serve",)
    airflow: str = "http://127.0.0.1:1"  # Nobody listens there: triggers stay pending.
    uid: int | None = None
    port: int = field(default_factory=lambda: free_ports(1)[0])
    server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.server is not None
        return self.server.process.pid

    def write_policy(self) -> None:
        """Unless there is one."""
        policy = self.folder / "policy.yaml"
        if not policy.exists():
            policy.write_text(POLICY.format(airflow=self.airflow))

    def begin(self) -> None:
        """Start it without waiting."""
        self.write_policy()
        program: list[str | Path] = [Path(sys.executable).with_name("trigger-gateway"), *self.arguments]
        if self.uid is not None:
            become = [unprivileged.__file__, str(self.uid), str(self.uid), str(self.folder)]
            program = [sys.executable, "-I", "-S", *become, sys.executable, *program]
        log = self.folder / f"{self.arguments[0]}-{self.port}.log"
        self.server = launch("trigger-gateway", program, env=self.environment(), log=log, cwd=self.folder)

    def environment(self) -> dict[str, str]:
        given = {f"GATEWAY_{name.upper()}": value for name, value in self.variables.items()}
        return clean_environment(GATEWAY_PORT=str(self.port), **given)

    async def ready(self, path: str = "/readyz", status: int = 200) -> None:
        """Wait until it answers so."""
        assert self.server is not None
        async with plain.client(base_url=self.url, timeout=15) as client:

            async def answers() -> bool:
                try:
                    return (await client.get(path)).status_code == status
                except httpx.TransportError:
                    return False

            await wait_until(f"{status} of {path}", answers, within=START_SECONDS, servers=[self.server], interval=0.05)

    def kill(self) -> None:
        """kill -9 of this process alone."""
        assert self.server is not None
        os.kill(self.pid, signal.SIGKILL)
        self.server.process.wait(timeout=10)

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.server is not None
        os.kill(self.pid, signal.SIGTERM)
        return self.server.process.wait(timeout=30)

    def get(self, path: str, **parameters: Any) -> Any:
        """The body of a GET; anything but 200 fails the test."""
        answer = plain.get(f"{self.url}{path}", params=parameters, timeout=15)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def push(self, *alerts: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One notification; the decisions."""
        answer = plain.post(f"{self.url}{WEBHOOK}", json={"alerts": list(alerts)}, timeout=15)
        assert answer.status_code == 202, answer.text
        decisions: list[dict[str, Any]] = answer.json()["decisions"]
        return decisions


@asynccontextmanager
async def running(*processes: Process, path: str = "/readyz", status: int = 200) -> AsyncIterator[None]:
    """Start the processes, wait until each answers, and end them."""
    try:
        for process in processes:
            process.begin()
        await asyncio.gather(*(process.ready(path, status) for process in processes if "serve" in process.arguments))
        yield
    finally:
        await stop([p.server for p in processes if p.server is not None])


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `trigger-gateway` with these arguments to its end."""
    program = Path(sys.executable).with_name("trigger-gateway")
    return subprocess.run(
        [program, *arguments],
        cwd=folder,
        env=clean_environment(COLUMNS="200", **{f"GATEWAY_{k.upper()}": v for k, v in variables.items()}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def serve_airflow() -> Iterator[tuple[FakeAirflow, str]]:
    """A fake Airflow at a real port, in a thread of this process; its URL."""
    fake = FakeAirflow(SystemClock())
    fake.users["gateway"] = "gateway"
    [port] = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(fake, port=port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield fake, f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def alert(model: str, *, instance: str = "0", starts_at: datetime | None = None) -> dict[str, Any]:
    """A firing alert as Alertmanager tells it, with a fingerprint that is `model/instance`."""
    begin = starts_at or datetime.now(UTC).replace(microsecond=0)
    return {
        "status": "firing",
        "labels": {"alertname": "ModelAccuracyLow", "severity": "critical", "model": model, "instance": instance},
        "annotations": {},
        "startsAt": begin.isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": f"{model}/{instance}",
    }


@dataclass
class Storm:
    """Senders that come again after 503 and lost connections, as Alertmanager does, to any of `urls`; it takes a 4xx for
    the end. `attempted` and `acknowledged` count alerts by fingerprint."""

    urls: list[str]
    chance: random.Random
    begun: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    attempted: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds, of a single request

    def body(self, groups: int, instances: int, prefix: str = "model") -> dict[str, Any]:
        """One notification of a random group: one to three of its alerts, told by either of two Prometheus replicas."""
        model = f"{prefix}-{self.chance.randrange(groups)}"
        chosen = self.chance.sample(range(instances), self.chance.randrange(1, min(instances, 3) + 1))
        shift = timedelta(seconds=self.chance.choice((0, 0, -15, 12)))
        return {"version": "4", "alerts": [alert(model, instance=f"{i}", starts_at=self.begun + shift) for i in chosen]}

    async def send(self, client: httpx.AsyncClient, body: Mapping[str, Any], *, within: float = 60.0) -> None:
        """Until it is acknowledged; raises TimeoutError when that takes longer than `within` seconds."""
        prints = [a["fingerprint"] for a in body["alerts"]]
        pause = 0.02
        async with asyncio.timeout(within):
            while True:
                began = monotonic()
                answer: httpx.Response | None = None
                try:
                    answer = await client.post(self.chance.choice(self.urls) + WEBHOOK, json=body)
                    status = str(answer.status_code)
                except httpx.TransportError as error:
                    status = type(error).__name__
                self.statuses[status] += 1
                self.slowest = max(self.slowest, monotonic() - began)
                if status != "ConnectError":  # Otherwise nothing has left.
                    self.attempted.update(prints)
                if status == "202":
                    self.acknowledged.update(prints)
                    return
                assert answer is None or answer.status_code == 503, answer.text
                await asyncio.sleep(pause)  # A sender's backoff, not a test's wait.
                pause = min(pause * 2, 1.0)

    async def rage(self, bodies: Iterable[Mapping[str, Any]], senders: int = 16) -> None:
        """Send all bodies with so many senders at once."""
        left = iter(bodies)

        async def sender() -> None:
            async with plain.client(timeout=12) as client:
                for body in left:
                    await self.send(client, body)

        await asyncio.gather(*(sender() for _ in range(senders)))

    def done(self) -> int:
        return self.statuses["202"]
