"""The whole gateway in this process: real Postgres and Valkey, a fake Airflow, and a clock that the test moves.

    async with World(servers, database, POLICY) as world:
        await world.push(alert("ModelAccuracyLow", model="churn"))     # what Alertmanager would post
        await world.pass_by(minutes=10)                                # time passes, the loops run until nothing is due
        assert len(world.airflow.posts) == 1

Loops never run by themselves: `settle()` steps them until nothing is due. `replicas` gateways share the servers; `push(...,
to=1)` posts to the second.
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import httpx
from fastapi import FastAPI
from pydantic import SecretStr
from redis import asyncio as redis
from sqlalchemy import text

from app.bootstrap.core import Urls
from app.bootstrap.parts import Services, open_services
from app.bootstrap.settings import read_settings
from app.kit.db import one_statement
from app.kit.http import open_http
from app.policy.file.load import parse_policy
from app.web.main import create_app
from tests.fakes import server
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.faults import Fault, meanwhile
from tests.servers import TestServers

#: Loops that only measure and tidy up: a test that means them steps them itself.
RESTLESS = ("gauges", "retention", "watchman", "backtests")
ZERO = "0001-01-01T00:00:00Z"

POLICY = """
version: 1
airflow:
  - {name: default, url: "http://airflow.test:8080", auth: {username: gateway, password: gateway}}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    cooldown: 24h
    failure_backoff: 30m
    dag: {id: retrain_model}
"""


@dataclass(frozen=True)
class FakeAlert:
    """One alert as an Alertmanager tells it. `resolved(at)` is its end, `moved(by)` another replica's view of it."""

    labels: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        return {
            "status": "resolved" if self.ends_at else "firing",
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "startsAt": self.starts_at.isoformat(),
            "endsAt": self.ends_at.isoformat() if self.ends_at else ZERO,
            "generatorURL": "http://prometheus.test/graph",
            "fingerprint": hashlib.sha256(repr(sorted(self.labels.items())).encode()).hexdigest()[:16],
        }

    def resolved(self, at: datetime) -> "FakeAlert":
        return FakeAlert(self.labels, self.starts_at, at, self.annotations)

    def moved(self, by: timedelta) -> "FakeAlert":
        return FakeAlert(self.labels, self.starts_at + by, self.ends_at, self.annotations)


class FakeServer(Protocol):
    """Somebody else's server, in this process."""

    def transport(self) -> httpx.AsyncBaseTransport: ...


class _ByHost(httpx.AsyncBaseTransport):
    """Each request to the server whose host it names; to the usual Airflow otherwise."""

    def __init__(self, usual: FakeAirflow, others: Mapping[str, FakeServer]) -> None:
        self._usual = usual.transport()
        self._others = {host: fake.transport() for host, fake in others.items()}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._others.get(request.url.host, self._usual).handle_async_request(request)


class World:
    """See the module's docstring."""

    def __init__(
        self,
        servers: TestServers,
        database: str,
        policy: str = POLICY,
        *,
        replicas: int = 1,
        airflow: FakeAirflow | None = None,
        others: Mapping[str, FakeServer] | None = None,
        clock: ManualClock | None = None,
        redis_url: str | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.airflow = airflow or FakeAirflow(self.clock, auto_finish=timedelta(minutes=20))
        self.airflow.users["gateway"] = "gateway"
        self.others = dict(others or {})  # further servers by the host of their address
        self.database = database
        self._redis_url = redis_url or servers.valkey.url
        self._policy = policy
        self._replicas = replicas
        # A database of its own needs keys of its own in the Redis that all tests share.
        self._settings = {"redis_prefix": database.rpartition("/")[2].partition("?")[0]} | settings
        self._stack = AsyncExitStack()
        self._folder = TemporaryDirectory()
        self._data = Path(self._folder.name)
        self.services: list[Services] = []
        self.clients: list[httpx.AsyncClient] = []
        self.apps: list[FastAPI] = []

    async def __aenter__(self) -> Self:
        for _ in range(self._replicas):
            await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        self._folder.cleanup()

    async def start(self, policy: str | None = None) -> Services:
        """One more replica; with another policy it is as if the file had been changed and the gateway restarted."""
        settings = read_settings(
            data_dir=self._data,
            database_url=SecretStr(self.database),
            redis_url=SecretStr(self._redis_url),
            policy_file=self.policy_file(len(self.services)),
            **self._settings,
        )
        parsed = parse_policy(policy or self._policy, "policy.yaml", {})
        self.policy_file(len(self.services)).write_text(policy or self._policy)
        urls = Urls(self.database, self._redis_url)

        @asynccontextmanager
        async def opened() -> Any:
            http = open_http(transport=_ByHost(self.airflow, self.others))
            async with open_services(settings, parsed, urls, clock=self.clock, http=http) as services:
                self.services.append(services)
                yield replace(services, constant=())  # Nothing looks at the file unless the test does.
            await http.aclose()

        app = create_app(settings, opened, worker=False)
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        self.apps.append(app)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        self.clients.append(await self._stack.enter_async_context(client))
        return self.services[-1]

    async def restart(self, policy: str) -> Services:
        """Every replica ends, and one begins with this policy."""
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        self.services.clear()
        self.clients.clear()
        self.apps.clear()
        return await self.start(policy)

    def policy_file(self, replica: int = 0) -> Path:
        """The file of one replica."""
        return self._data / f"policy-{replica}.yaml"

    async def reload(self, policy: str, *, to: int = 0) -> httpx.Response:
        """The file of one replica is written anew and read again, as after SIGHUP, on request or by itself."""
        self.policy_file(to).write_text(policy)
        return await self.post("/-/reload", b"", to=to)

    def airflow_client(self) -> httpx.AsyncClient:
        """What somebody else sends to the same Airflow."""
        return httpx.AsyncClient(transport=self.airflow.transport(), base_url=self.airflow.url)

    # What monitors and people do.

    def alert(self, name: str = "ModelAccuracyLow", *, ago: timedelta = timedelta(0), **labels: str) -> FakeAlert:
        """An alert that began now, or `ago`."""
        return FakeAlert({"alertname": name, "severity": "critical", **labels}, self.clock.now() - ago)

    async def post(self, path: str, body: Any, *, to: int = 0) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.clients[to].post(path, content=content, headers={"Content-Type": "application/json"})

    async def push(self, *alerts: FakeAlert, to: int = 0) -> list[dict[str, Any]]:
        """One notification of Alertmanager with these alerts; the decisions on them."""
        body = {
            "version": "4",
            "status": "firing",
            "alerts": [a.body() for a in alerts],
            "groupKey": secrets.token_hex(4),
        }
        answer = await self.post("/api/v1/webhooks/alertmanager", body, to=to)
        assert answer.status_code == 202, answer.text
        decisions: list[dict[str, Any]] = answer.json()["decisions"]
        return decisions

    async def get(self, path: str, *, to: int = 0, **params: Any) -> Any:
        answer = await self.clients[to].get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def explain(self, subject: str, *, to: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = await self.get(f"/api/v1/explain/{subject}", to=to)
        return found

    async def alerts(self, **params: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.get("/api/v1/alerts", limit=1000, **params))["items"]
        return items

    async def trigger(self) -> dict[str, Any]:
        """The only trigger."""
        [found] = await self.triggers()
        return found

    async def triggers(self, **params: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.get("/api/v1/triggers", limit=1000, **params))["items"]
        return items

    # Faults of our own.

    async def flush_redis(self) -> None:
        """Redis forgets everything."""
        async with redis.Redis.from_url(self._redis_url) as valkey:
            await valkey.flushall()

    async def redis_content(self) -> dict[Any, Any]:
        """Everything that Redis holds."""
        async with redis.Redis.from_url(self._redis_url) as valkey:
            names = [name async for name in valkey.scan_iter(f"{self._settings['redis_prefix']}:*")]
            return dict(zip(names, await valkey.mget(names), strict=True)) if names else {}

    async def restore_redis(self, content: Mapping[Any, Any]) -> None:
        """Redis holds what it held before, as after a failover to a replica that lagged behind."""
        async with redis.Redis.from_url(self._redis_url) as valkey:
            await valkey.flushall()
            for name, value in content.items():
                await valkey.set(name, value)

    async def die_during(
        self,
        op: str,
        *,
        replica: int = 0,
        loop: Literal["relay", "follower", "outcomes"] = "relay",
        fault: Fault | None = None,
        at: server.FakeServer | None = None,
    ) -> None:
        """This replica dies at the next request `op` of its loop to Airflow (or the server `at`): what it has claimed
        is never settled, what it has read never written. The request arrives, unless `fault` says otherwise."""
        services = self.services[replica]
        step = asyncio.create_task(services.loop(loop).step())

        def die() -> None:
            step.cancel()

        (at or self.airflow).disturb(replace(fault or meanwhile(die), action=die), on=op)
        with suppress(asyncio.CancelledError):
            await step
        assert step.cancelled(), f"the {loop} never asked for {op}"

    # Time.

    async def settle(self) -> None:
        """Step every loop of every replica until nothing is due at this moment: each has found nothing since one of them
        did something."""
        loops = [loop for s in self.services for loop in s.loops if loop.name not in RESTLESS]
        idle = 0
        for loop in islice(cycle(loops), 1000 * len(loops)):
            idle = 0 if await loop.step() else idle + 1
            if idle == len(loops):
                return
        raise AssertionError("the loops never came to rest")

    async def pass_by(self, *, steps: int = 1, **time: float) -> None:
        """Let time pass, in `steps` equal parts, and the loops run after each. However long a part is, the switches are
        watched meanwhile; `outage` is what lets nobody watch."""
        for _ in range(steps):
            self.clock.pass_by(timedelta(**time) / steps)
            await self.watched()
            await self.settle()

    async def watched(self) -> None:
        """Somebody watched until now, and read every DAG."""
        now = {"now": self.clock.now()}
        both = "WITH watched AS (UPDATE watch SET watched_until = :now) UPDATE dag_reads SET next_at = :now"
        async with one_statement(self.services[0].core.engine) as conn:
            await conn.execute(text(both), now)

    def outage(self, **time: float) -> None:
        """Time passes, and no gateway runs."""
        self.clock.pass_by(timedelta(**time))


def policy(route: str = "", *, airflow: str = "", group_by: str = "[model]", cooldown: str = "24h") -> str:
    """POLICY with other values, with more lines in its route, and with more keys of its Airflow (`key: value`)."""
    text = POLICY.replace("group_by: [model]", f"group_by: {group_by}").replace(
        "cooldown: 24h", f"cooldown: {cooldown}"
    )
    if airflow:
        text = text.replace("password: gateway}}", "password: gateway}, " + airflow + "}")
    return text + "".join(f"    {line.strip()}\n" for line in route.strip().splitlines())


def reasons(decisions: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(action, reason) of each."""
    return [(d["action"], d["reason"]) for d in decisions]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
