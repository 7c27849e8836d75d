"""A real Alertmanager as a receiver, and Slack, Opsgenie and a signed webhook as servers that listen."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.bootstrap.core import Urls
from app.bootstrap.parts import Services, open_services
from app.bootstrap.settings import read_settings
from app.kit.db import transaction
from app.kit.embedded.processes import free_ports
from app.notices.model import Notice, Severity
from app.policy.file.load import parse_policy
from app.web.signatures import StandardSignature, standard_key
from tests import plain
from tests.e2e.processes import Process, eventually, require_binary, write_yaml
from tests.fakes.clock import ManualClock
from tests.fakes.documented import OpsgenieAlert, OpsgenieClose, SlackMessage
from tests.servers import TestServers

SECRET = f"whsec_{'MfKQ9r8G' * 4}"
POLICY = """
version: 1
airflow: [{{name: default, url: "http://127.0.0.1:9"}}]
routes: []
receivers:
  - {{name: people, alertmanager: {{url: "{alertmanager}"}}}}
  - {{name: team, slack: {{url: "{ear}/services/T/B/x"}}}}
  - {{name: jsm, opsgenie: {{api_key: genie, url: "{ear}/jsm/ops/integration"}}}}
  - {{name: hook, webhook: {{url: "{ear}/hook?key=k", secret: "{secret}"}}}}
"""


@dataclass
class Ear:
    """Listens on loopback: (path, headers, body) of each POST, answered as the one whose path it is would."""

    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def at(self, path: str) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for p, headers, body in self.heard if p.startswith(path)]


@pytest.fixture
def ear() -> Iterator[Ear]:
    found = Ear()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.heard.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            is_slack = self.path.startswith("/services")
            answer = b"ok" if is_slack else b'{"result": "Request will be processed", "took": 0.1, "requestId": "r"}'
            self.send_response(202 if self.path.startswith("/jsm") else 200)
            self.send_header("Content-Type", "text/plain" if is_slack else "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class People(Process):
    """An Alertmanager that tells `hook` at once."""

    hook: str

    def __post_init__(self) -> None:
        self.name, self.ready_path = "alertmanager", "/-/ready"

    def command(self) -> list[str | Path]:
        config = {
            "route": {"receiver": "people", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"},
            "receivers": [{"name": "people", "webhook_configs": [{"url": self.hook, "send_resolved": True}]}],
        }
        file = write_yaml(self.folder / "people.yml", config)
        options = [f"--config.file={file}", f"--storage.path={self.folder / 'data'}", "--cluster.listen-address="]
        return [require_binary("prometheus-alertmanager"), *options, f"--web.listen-address=127.0.0.1:{self.port}"]

    def firing(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = plain.get(f"{self.url}/api/v2/alerts").json()
        return found


@pytest.fixture
def people(tmp_path: Path, ear: Ear) -> Iterator[People]:
    server = People(tmp_path, free_ports(1)[0], f"{ear.url}/people")
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def gateway(
    servers: TestServers, database: str, folder: Path, policy: str
) -> AsyncIterator[tuple[Services, ManualClock]]:
    """In this process, on the real network; its clock stays a little behind the real one, so that an end is over at once."""
    clock = ManualClock(datetime.now(UTC) - timedelta(minutes=5))
    settings = read_settings(data_dir=folder, database_url=SecretStr(database), redis_url=SecretStr(servers.valkey.url))
    urls = Urls(database, servers.valkey.url)
    async with open_services(settings, parse_policy(policy, "policy.yaml", {}), urls, clock=clock) as services:
        yield services, clock


async def settle(services: Services) -> None:
    loops = [services.loop(name) for name in ("notices", "relay")]
    while any([await loop.step() for loop in loops]):
        pass


def has_heard(ear: Ear, status: str) -> bool:
    return any(json.loads(body)["status"] == status for _, body in ear.at("/people"))


async def test_all_kinds_are_told_of_an_incident_and_of_its_end(
    servers: TestServers, database: str, tmp_path: Path, ear: Ear, people: People
) -> None:
    policy = POLICY.format(alertmanager=people.url, ear=ear.url, secret=SECRET)
    async with gateway(servers, database, tmp_path, policy) as (services, clock):
        notices = services.notices.requests._incidents
        notice = Notice(
            "run_failed:a:1", "run_failed", Severity.WARNING, "It failed", "the DAG run failed", {"model": "churn"}
        )
        async with transaction(services.core.engine) as conn:
            await notices.open(conn, ["people", "team", "jsm", "hook"], notice, clock.now())
        await settle(services)
        [alert] = people.firing()
        assert alert["labels"] == {
            "alertname": "TriggerGatewayRunFailed",
            "severity": "warning",
            "gateway": "trigger-gateway",
            "notice": "trigger-gateway/run_failed:a:1",
            "model": "churn",
        }
        eventually("people to be told", lambda: has_heard(ear, "firing"))
        await asyncio.to_thread(people.stop)
        await asyncio.to_thread(people.start)
        assert people.firing() == [], "an Alertmanager keeps alerts in memory alone"
        clock.pass_by(timedelta(minutes=1, seconds=1))
        await settle(services)
        assert len(people.firing()) == 1
        async with transaction(services.core.engine) as conn:
            await notices.resolve(conn, notice.key, clock.now(), "it goes again")
        await settle(services)
        clock.pass_by(timedelta(seconds=1))
        eventually("people to be told of the end", lambda: has_heard(ear, "resolved"), within=90)
        assert people.firing() == []
    slack = [SlackMessage.model_validate_json(body) for _, body in ear.at("/services/T/B/x")]
    assert [message.text for message in slack] == ["It failed", "Resolved: It failed"]
    ((_, made),) = ear.at("/jsm/ops/integration/v2/alerts")[:1]
    assert OpsgenieAlert.model_validate_json(made).alias == "trigger-gateway/run_failed:a:1"
    [(headers, closed)] = ear.at("/jsm/ops/integration/v2/alerts/trigger-gateway%2Frun_failed%3Aa%3A1/close")
    OpsgenieClose.model_validate_json(closed)
    assert headers["authorization"] == "GenieKey genie"
    signature = StandardSignature(standard_key(SECRET))
    hooks = ear.at("/hook?key=k")
    assert [json.loads(body)["type"] for _, body in hooks] == ["notice.opened", "notice.resolved"]
    for headers, body in hooks:
        signature.check(headers, body, clock.now())
