"""From an alert to its DAG run: the time until Airflow has made the run, beside a sender that posts to Airflow directly.

Airflow itself says when it made a run (`queued_at`), so that nobody's questions are in the way. Each alert begins a group of
its own and finds the gateway at rest.
"""

import asyncio
import http.client
import json
import math
import secrets
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app.kit.embedded import Postgres
from benchmarks.bodies import PATHS
from benchmarks.servers import Server
from demo.airflow import Airflow
from demo.environment import AIRFLOW, repository
from tests.integration.processes import serve_airflow

DAG: Final = "quick_dag"
POLICY: Final = """
version: 1
airflow:
  - {{name: default, url: "{url}", auth: {{token: "{token}"}}}}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    dag: {{id: quick_dag}}
"""
_PAUSE: Final = 0.05  # seconds between two questions whether the run is there
_PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """An Airflow, as a sender knows it. `ends`: its runs do real work, and the next alert waits for their end."""

    name: str
    url: str
    token: str
    ends: bool


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds from the sending of an alert, the medians and the 99th percentiles: to the answer, and to the run."""

    airflow: str
    way: str  # gateway, or direct
    runs: int
    answer_p50: float
    answer_p99: float
    run_p50: float
    run_p99: float


@contextmanager
def fake_airflow() -> Iterator[Target]:
    """The fake of the tests, at a port."""
    with serve_airflow() as (fake, url):
        fake.add_dag(DAG)
        yield Target("fake", url, fake.mint(), ends=False)


@contextmanager
def real_airflow(folder: Path, postgres: Postgres) -> Iterator[Target]:
    """An Airflow 3 with one DAG, installed first where it is missing."""
    root = repository()
    dags = folder / "dags"
    dags.mkdir(parents=True)
    shutil.copy(root / "tests" / "e2e" / "dags" / f"{DAG}.py", dags)
    airflow = Airflow(
        environment=asyncio.run(AIRFLOW.install(root, _say)),
        home=folder / "home",
        dags_folder=dags,
        database_url=postgres.create_database("airflow"),
    )

    async def start() -> None:
        await airflow.start(_say)
        await airflow.wait_for_dag(DAG, 60, _say)

    asyncio.run(start())
    try:
        login = {"username": airflow.username, "password": airflow.password}
        token = _ask(_connection(airflow.url), "POST", "/auth/token", login)[1]["access_token"]
        yield Target("Airflow 3", airflow.url, token, ends=True)
    finally:
        asyncio.run(airflow.stop())


def measure(server: Server, target: Target, runs: int) -> list[Times]:
    """So many runs through the gateway and so many posted directly, in turn."""
    gateway, airflow = _connection(f"http://127.0.0.1:{server.port}"), _connection(target.url)
    found: dict[str, list[tuple[float, float]]] = {"gateway": [], "direct": []}
    for number in range(runs + 1):
        for connection in (gateway, airflow):  # A server closes a connection that was idle.
            connection.close()
            connection.connect()
        through, direct = _through(gateway, airflow, target), _directly(airflow, target)
        if number:  # With the first pair both log in and read the DAG.
            found["gateway"].append(through)
            found["direct"].append(direct)
    return [_times(target, way, times) for way, times in found.items()]


def _through(
    gateway: http.client.HTTPConnection, airflow: http.client.HTTPConnection, target: Target
) -> tuple[float, float]:
    labels = {"alertname": "ModelAccuracyLow", "severity": "critical", "model": f"model-{secrets.token_hex(6)}"}
    alert = {"status": "firing", "labels": labels, "startsAt": datetime.now(UTC).isoformat()}
    sent = time.time()
    status, body = _ask(gateway, "POST", PATHS["alertmanager"], {"version": "4", "alerts": [alert]})
    answered = time.time() - sent
    if status != 202 or body["decisions"][0]["action"] != "fire":
        raise SystemExit(f"the gateway fired nothing: {status} {body}")
    return answered, _made(airflow, target, f"gateway__accuracy__{body['decisions'][0]['trigger_id']}") - sent


def _directly(airflow: http.client.HTTPConnection, target: Target) -> tuple[float, float]:
    run = f"direct__{secrets.token_hex(8)}"
    wanted: dict[str, Any] = {"dag_run_id": run, "logical_date": None, "conf": {}}
    sent = time.time()
    status, body = _ask(airflow, "POST", f"/api/v2/dags/{DAG}/dagRuns", wanted, target)
    answered = time.time() - sent
    if status != 200:
        raise SystemExit(f"Airflow took no run: {status} {body}")
    return answered, _made(airflow, target, run) - sent


def _made(airflow: http.client.HTTPConnection, target: Target, run: str) -> float:
    """When Airflow has made this run."""
    for _ in range(int(_PATIENCE / _PAUSE)):
        time.sleep(_PAUSE)
        status, body = _ask(airflow, "GET", f"/api/v2/dags/{DAG}/dagRuns/{run}", None, target)
        if status == 200 and (not target.ends or body["state"] in ("success", "failed")):
            return datetime.fromisoformat(body["queued_at"]).timestamp()
    raise SystemExit(f"Airflow has no run {run} after {_PATIENCE:.0f} s")


def _times(target: Target, way: str, times: list[tuple[float, float]]) -> Times:
    answers, made = [answer * 1e3 for answer, _ in times], [run * 1e3 for _, run in times]
    return Times(
        airflow=target.name,
        way=way,
        runs=len(times),
        answer_p50=statistics.median(answers),
        answer_p99=_p99(answers),
        run_p50=statistics.median(made),
        run_p99=_p99(made),
    )


def _p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def _connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    to: Target | None = None,
) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {to.token}"} if to else {})
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


def _say(_line: str) -> None:
    """The report stands alone."""
