"""Dead man's switches and probes on real components: Prometheus stops, somebody retrains by hand, a DAG breaks."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.kit.clock import SystemClock
from app.kit.embedded.processes import free_ports
from demo.airflow import Airflow
from tests import plain
from tests.e2e.gateway import Gateway
from tests.e2e.processes import Process, eventually, require_binary, write_yaml

pytestmark = pytest.mark.slow

POLICY = """\
version: 1
airflow:
  - name: default
    url: __AIRFLOW__
    auth: {username: "${AIRFLOW_USERNAME}", password: "${AIRFLOW_PASSWORD}"}
  - {name: expired, url: __AIRFLOW__, auth: {token: "${EXPIRED_TOKEN}"}}
routes:
  - {name: quick, match: [alertname=quick], dag: {airflow: default, id: quick_dag}}
  - {name: breakable, match: [alertname=breakable], dag: {airflow: default, id: breakable}}
  - {name: canary, match: [alertname=Canary], cooldown: 1s, run_timeout: 10m, dag: {airflow: default, id: canary}}
schedules:
  - {name: canary, cron: "* * * * *", route: canary}
receivers:
  - {name: ops, webhook: {url: "__RECEIVER__", secret: "whsec_TWZLUTlyOEdLWXFyVHdqVVBEOElMUFppbzJMYUx3"}}
deadman:
  - {name: prometheus-alive, expect: heartbeat, match: [alertname=Watchdog], every: 6s, grace: 2s, receivers: [ops]}
  - {name: never-wired, expect: heartbeat, match: [alertname=Nobody], every: 5s, receivers: [ops]}
  - {name: by-hand, expect: {retrain: quick}, every: 1d}
  - {name: canary, expect: {retrain: canary, started_by: gateway}, every: 15m, grace: 15m}
"""
DAG = """\
from airflow.sdk import dag, task

@dag(schedule=None)
def breakable():
    @task
    def nothing(): ...
    nothing()

breakable()
"""


class Receiver:
    """Somebody who is told: `told` has the body of every request."""

    def __init__(self) -> None:
        bodies: list[dict[str, Any]] = []
        self.bodies = bodies

        class Page(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def of(self, switch: str) -> list[str]:
        """What was told of a switch, in order: `open` or `resolved`."""
        return [body["data"]["status"] for body in self.bodies if body["data"]["key"].endswith(f"deadman:{switch}")]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Watchdogs(Process):
    """An Alertmanager that repeats what fires every second, as a Watchdog's route should."""

    webhook: str

    def __post_init__(self) -> None:
        self.name, self.ready_path = "alertmanager", "/-/ready"

    def command(self) -> list[str | Path]:
        quick = {"group_wait": "100ms", "group_interval": "1s", "repeat_interval": "1s"}
        hook = {"url": self.webhook, "send_resolved": True}
        config = {
            "route": {"receiver": "gateway", **quick},
            "receivers": [{"name": "gateway", "webhook_configs": [hook]}],
        }
        file = write_yaml(self.folder / "alertmanager.yml", config)
        options = [f"--config.file={file}", f"--storage.path={self.folder / 'data'}", "--cluster.listen-address="]
        return [require_binary("prometheus-alertmanager"), *options, f"--web.listen-address=127.0.0.1:{self.port}"]


@dataclass
class Watched(Process):
    """A Prometheus with nothing but a Watchdog. By default it would be missed for four minutes: an alert ends four
    resend delays after it was last heard of."""

    alertmanager: str

    def __post_init__(self) -> None:
        self.name, self.ready_path = "prometheus", "/-/ready"

    def command(self) -> list[str | Path]:
        watchdog = {"alert": "Watchdog", "expr": "vector(1)", "labels": {"severity": "none"}}
        rules = write_yaml(self.folder / "rules.yml", {"groups": [{"name": "watchdog", "rules": [watchdog]}]})
        config = {
            "global": {"evaluation_interval": "500ms"},
            "rule_files": [str(rules)],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [self.alertmanager]}]}]},
        }
        file = write_yaml(self.folder / "prometheus.yml", config)
        options = [f"--config.file={file}", f"--storage.tsdb.path={self.folder / 'data'}"]
        options += ["--rules.alert.resend-delay=1s", f"--web.listen-address=127.0.0.1:{self.port}"]
        return [require_binary("prometheus"), *options]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def watching(real_airflow: Airflow, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with switches that leads to `real_airflow`."""
    file = real_airflow.dags_folder / "breakable.py"
    file.write_text(DAG)
    asyncio.run(real_airflow.wait_for_dag("breakable", 60, print))
    policy = POLICY.replace("__AIRFLOW__", real_airflow.url).replace("__RECEIVER__", receiver.url)
    login = {"AIRFLOW_USERNAME": real_airflow.username, "AIRFLOW_PASSWORD": real_airflow.password}
    variables = login | {"EXPIRED_TOKEN": expired_token(real_airflow), "GATEWAY_PROBE_CACHE": "0"}
    server = Gateway(tmp_path_factory.mktemp("watching"), free_ports(1)[0], policy, variables)
    server.start()
    yield server
    server.stop()
    file.unlink()


def expired_token(airflow: Airflow) -> str:
    """A token that Airflow made, were it made two days ago."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    secret = json.loads((airflow.dags_folder.with_name("home") / "secrets.json").read_text())["jwt"]
    made = int(SystemClock().now().timestamp()) - 2 * 86400
    claims = {
        "sub": airflow.username,
        "role": "user",
        "aud": "apache-airflow",
        "iat": made,
        "nbf": made,
        "exp": made + 3600,
    }
    signed = f"{part(json.dumps({'alg': 'HS512', 'typ': 'JWT'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.digest(secret.encode(), signed.encode(), hashlib.sha512))}"


def state(gateway: Gateway, name: str) -> str:
    return str(gateway.get(f"/deadman/{name}")["state"])


def health(gateway: Gateway, probe: str) -> tuple[int, dict[str, str]]:
    """The status, and what is not ok."""
    answer = plain.get(f"{gateway.url}/health/{probe}", timeout=30)
    return answer.status_code, {name: check for name, check in answer.json()["checks"].items() if check != "ok"}


def test_prometheus_stops_and_somebody_is_told_until_it_is_back(
    watching: Gateway, receiver: Receiver, tmp_path: Path
) -> None:
    alertmanager = Watchdogs(tmp_path / "alertmanager", free_ports(1)[0], watching.webhook)
    prometheus = Watched(tmp_path / "prometheus", free_ports(1)[0], f"127.0.0.1:{alertmanager.port}")
    alertmanager.start()
    try:
        eventually("the switch that nobody wired to be down", lambda: state(watching, "never-wired") == "down")
        eventually("its receiver to be told", lambda: receiver.of("never-wired"))
        watching.post("/deadman/never-wired/pause", {"reason": "seen"})
        prometheus.start()
        eventually("the Watchdog to be heard", lambda: state(watching, "prometheus-alive") == "up")
        assert eventually("the probe to be well", lambda: health(watching, "deadman")[0] == 200)
        # It may have been down already while Prometheus started.
        eventually("the end of that to be told", lambda: receiver.of("prometheus-alive")[-1:] != ["open"])
        prometheus.stop()
        eventually("its silence to be noticed", lambda: state(watching, "prometheus-alive") == "down", within=60)
        status, found = health(watching, "deadman")
        assert (status, list(found)) == (503, ["prometheus-alive"])
        eventually("the receiver to be told", lambda: receiver.of("prometheus-alive")[-1:] == ["open"])
        prometheus.start()
        eventually("the Watchdog to be heard again", lambda: state(watching, "prometheus-alive") == "up")
        eventually("its end to be told", lambda: receiver.of("prometheus-alive")[-1:] == ["resolved"])
        assert health(watching, "deadman")[0] == 200
    finally:
        prometheus.stop()
        alertmanager.stop()


def test_a_retrain_that_somebody_starts_in_airflow_keeps_the_switch_up(
    watching: Gateway, real_airflow: Airflow
) -> None:
    eventually("its switch", lambda: plain.get(f"{watching.url}/api/v1/deadman/by-hand").status_code == 200)
    before = watching.get("/deadman/by-hand")["last_at"]
    airflow(real_airflow, "POST", "/dags/quick_dag/dagRuns", {"dag_run_id": "by-hand-1", "logical_date": None})
    shown = eventually(
        "the run to be counted",
        lambda: next((s for s in [watching.get("/deadman/by-hand")] if s["last_at"] != before), None),
        within=60,
    )
    assert (shown["state"], shown["last_event"]) == ("up", "DAG run by-hand-1 ended with success")
    assert shown["dag"] | {"read_at": None} == {"airflow": "default", "id": "quick_dag", "read_at": None, "error": ""}


def test_what_keeps_airflow_from_running_is_named(watching: Gateway, real_airflow: Airflow) -> None:
    def found() -> dict[str, str]:
        return health(watching, "orchestrator")[1]

    status, always = health(watching, "orchestrator")
    assert (status, list(always)) == (503, ["expired login"])
    assert "Token Expired" in always["expired login"]
    airflow(real_airflow, "PATCH", "/dags/quick_dag?update_mask=is_paused", {"is_paused": True})
    try:
        assert found() == always | {"default dag quick_dag": "paused: unpause it in Airflow"}
    finally:
        airflow(real_airflow, "PATCH", "/dags/quick_dag?update_mask=is_paused", {"is_paused": False})
    assert found() == always
    (real_airflow.dags_folder / "breakable.py").write_text("import no_such_module\n" + DAG)
    error = eventually("the import error", lambda: found().get("default dag breakable"), within=90)
    assert "no_such_module" in error


def test_a_scheduler_that_stands_still_is_named_until_it_goes_on(watching: Gateway, real_airflow: Airflow) -> None:
    def scheduler() -> str | None:
        return health(watching, "orchestrator")[1].get("default scheduler")

    assert scheduler() is None
    os.kill(real_airflow.pid("scheduler"), signal.SIGSTOP)
    try:
        assert eventually("its silence to be noticed", scheduler, within=60) == "unhealthy"
    finally:
        os.kill(real_airflow.pid("scheduler"), signal.SIGCONT)
    eventually("it to be well again", lambda: scheduler() is None, within=60)


def test_a_canary_comes_through_the_whole_path_by_itself_and_its_time_is_shown(watching: Gateway) -> None:
    trigger = watching.settled(
        "canary", within=90
    )  # The schedule began it, a minute after the gateway's start at most.
    assert (trigger["reason"], trigger["requested_by"], trigger["state"], trigger["dag_run_state"]) == (
        ("scheduled", "the schedule canary", "succeeded", "success")
    )
    eventually("it to be counted", lambda: state(watching, "canary") == "up", within=60)
    pattern = r'gateway_last_success_duration_seconds\{route="canary"\} ([0-9.]+)'
    found = eventually("its time", lambda: re.search(pattern, plain.get(f"{watching.url}/metrics").text), within=60)
    assert 0 < float(found[1]) < 90


def airflow(server: Airflow, method: str, path: str, body: Any) -> None:
    """What a person does in Airflow itself."""
    login = {"username": server.username, "password": server.password}
    token = plain.post(f"{server.url}/auth/token", json=login).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    answer = plain.request(method, f"{server.url}/api/v2{path}", json=body, headers=headers)
    assert answer.is_success, answer.text
