"""What outlasts one life of a simulation: the database, and the processes of the gateway, which begin anew in each life."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
from pydantic import SecretStr
from redis import asyncio as redis

from app.bootstrap.core import Urls
from app.bootstrap.parts import Services, open_services
from app.bootstrap.settings import read_settings
from app.kit.columns import metadata
from app.kit.embedded.processes import command_line
from app.kit.http import open_http
from app.policy.file.load import parse_policy
from app.policy.schema import Policy
from app.web.main import create_app
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.simulation.border import Border
from tests.simulation.schedule import POLICIES, REPLICAS, Fault

#: Real seconds after which a step that does not go on is asked whether it waits for a lock.
_PATIENCE: Final = 0.02
_NAME: Final = "simulation"  # of our own connections
#: Lives after which the tables are truncated: rows that were deleted leave their places behind.
_TRUNCATED: Final = 50


@cache
def _policy(name: str) -> Policy:
    return parse_policy(POLICIES[name], "policy.yaml", {})


class Replica:
    """One process. `act` does something in it, until that has ended or stands still."""

    def __init__(self, number: int, site: "Site", folder: Path) -> None:
        self.border = Border()
        self.clock: ManualClock | None = None
        self.policy = ""  # the name of that in its file
        self.running: asyncio.Task[Any] | None = None
        self.services: Services | None = None
        self._site = site
        self._file = folder / f"policy-{number}.yaml"
        self._urls = Urls(site.database, site.redis_url)
        self._settings = read_settings(
            data_dir=folder,
            database_url=SecretStr(site.database),
            redis_url=SecretStr(site.redis_url),
            policy_file=self._file,
            redis_prefix="simulation",
            follow_interval=30,
            delivery_parallel=2,
        )
        self._app = create_app(self._settings, self._open, worker=False)
        self._stack = AsyncExitStack()

    async def start(self, policy: str, clock: ManualClock) -> None:
        """A new process with this policy. Its memory is empty."""
        self.border, self.clock = Border(), clock
        self.write(policy)
        await self._stack.enter_async_context(self._app.router.lifespan_context(self._app))

    def write(self, policy: str) -> None:
        self.policy = policy
        self._file.write_text(POLICIES[policy])

    async def stop(self) -> None:
        """The process dies in the middle of what it is at."""
        self.border.dead = True
        await self.finish()
        await self._stack.aclose()
        self.services = None

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Services]:
        assert self.clock is not None
        http = open_http(transport=self.border.transport(self._site.airflow.transport()))
        policy = _policy(self.policy)
        async with open_services(self._settings, policy, self._urls, clock=self.clock, http=http) as services:
            self.services = services
            for engine in {services.core.engine, services.foundation.intake.engine}:
                self.border.watch(engine)
            # No loop runs by itself.
            yield replace(services, constant=())
        await http.aclose()

    # What somebody does to it.

    async def send(self, method: str, path: str, body: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            content = None if body is None else json.dumps(body).encode()
            return await client.request(method, path, content=content, headers={"Content-Type": "application/json"})

    async def finish(self) -> None:
        """What stands still in this process goes on to its end."""
        if self.running is not None:
            self.border.resume()
            await self._site.until_rest(self)


class Site:
    """Real servers, two replicas, and a fake Airflow that is new in each life."""

    def __init__(self, database: str, redis_url: str, folder: Path) -> None:
        self.database, self.redis_url = database, redis_url
        self.clock = ManualClock()
        self.airflow = FakeAirflow(self.clock)
        self.replicas = [Replica(number, self, folder) for number in range(REPLICAS)]
        self._lives = 0
        self._watcher: Any = None
        self._reader: Any = None  # of steps, which ask while others are watched
        self._valkey = redis.Redis.from_url(redis_url)
        tables = [f'"{table.name}"' for table in metadata.sorted_tables]
        self._truncate = f"TRUNCATE {', '.join(tables)}"
        self._delete = "; ".join(f"DELETE FROM {table}" for table in tables)

    async def __aenter__(self) -> "Site":
        mine = {"application_name": _NAME}
        self._watcher = await asyncpg.connect(self.database, server_settings=mine)
        self._reader = await asyncpg.connect(self.database, server_settings=mine)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end_life()
        await self._watcher.close()
        await self._reader.close()
        await self._valkey.aclose()

    async def begin_life(self, policy: str, clock: ManualClock, airflow: FakeAirflow) -> None:
        """Everything is as at a first start."""
        await self.end_life()
        self.clock, self.airflow = clock, airflow
        await self._watcher.execute(self._delete if self._lives % _TRUNCATED else self._truncate)
        self._lives += 1
        await self.redis_holds({})
        for replica in self.replicas:
            await replica.start(policy, clock)

    async def end_life(self) -> None:
        for replica in self.replicas:
            if replica.services is not None:
                await replica.stop()

    async def fetch(self, statement: str, *arguments: Any) -> list[Mapping[str, Any]]:
        """Rows, as somebody outside reads them."""
        rows: list[Mapping[str, Any]] = await self._reader.fetch(statement, *arguments)
        return rows

    # Steps that may stand still.

    async def until_rest(self, replica: Replica) -> None:
        """Wait until what runs in the replica has ended or stands still. When it waits for a lock of another replica that
        stands still, that one goes on first."""
        task, border = replica.running, replica.border
        assert task is not None
        while not task.done() and not border.parked:
            border.news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(border.news.wait(), _PATIENCE)
                continue
            if await self._somebody_waits():
                for other in self.replicas:
                    if other is not replica and other.border.parked:
                        await other.finish()
        if task.done():
            replica.running = None
            await self._sessions_end(border)
            task.result()

    async def act(self, replica: Replica, work: Coroutine[Any, Any, None], fault: Fault | None) -> None:
        """Do `work` in the replica until it has ended or stands still."""
        assert replica.running is None
        border = replica.border
        border.begin(fault)
        border.news.clear()
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _task: border.news.set())
        replica.running = task
        await self.until_rest(replica)

    async def _somebody_waits(self) -> bool:
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' LIMIT 1"
        )
        return bool(await self._watcher.fetch(waiting))

    async def _sessions_end(self, border: Border) -> None:
        """Postgres has noticed that the connections which broke are gone, and gave up their locks."""
        pids, border.cut_sessions = border.cut_sessions, []
        statement = "SELECT 1 FROM pg_stat_activity WHERE pid = ANY($1::int[]) LIMIT 1"
        for _ in range(500):
            if not pids or not await self._watcher.fetch(statement, pids):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("Postgres kept the session of a broken connection")

    # What happens to the servers.

    async def redis_content(self) -> dict[Any, Any]:
        """Everything that Redis holds."""
        names = [name async for name in self._valkey.scan_iter("simulation:*")]
        return dict(zip(names, await self._valkey.mget(names), strict=True)) if names else {}

    async def redis_holds(self, content: Mapping[Any, Any]) -> None:
        """It holds this and nothing else."""
        await self._valkey.flushall()
        for name, value in content.items():
            if value is not None:
                await self._valkey.set(name, value)

    async def postgres_ends_every_session(self) -> None:
        """As in a failover that keeps what was acknowledged. It ends when every gateway can see that, because what a
        gateway does depends on when it sees it."""
        ended = await self._watcher.fetch(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND application_name <> '{_NAME}'"
        )
        while any(command_line(row["pid"]) for row in ended):  # noqa: ASYNC110 (Nobody tells.)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)  # The loop reads what their sockets still hold, and their ends.

    async def pass_by(self, seconds: float, *, watched: bool) -> None:
        """Time passes, and a gateway runs meanwhile, or none does."""
        self.clock.pass_by(timedelta(seconds=seconds))
        if watched:
            # A process that stands still may have locked the row.
            free = "SELECT id FROM watch ORDER BY id FOR UPDATE SKIP LOCKED"
            await self._watcher.execute(f"UPDATE watch SET watched_until = $1 WHERE id IN ({free})", self.now())

    def now(self) -> datetime:
        return self.clock.now()
