"""/livez: 503 when a loop is stuck, for then a restart helps; 200 whatever else is wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from app.bootstrap.core import Urls
from app.bootstrap.parts import Services, open_services
from app.bootstrap.settings import read_settings
from app.kit.loop import Loop
from app.policy.file.load import parse_policy
from app.web.main import create_app
from tests.acceptance.world import POLICY
from tests.servers import TestServers


class Step:
    """A step of a loop that hangs until it is let go, or fails."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.let_go = asyncio.Event()
        self.fails = False

    async def __call__(self) -> bool:
        self.began.set()
        if self.fails:
            raise RuntimeError("a broken step")
        await self.let_go.wait()
        return False


@asynccontextmanager
async def served(servers: TestServers, database: str, folder: Path, loop: Loop) -> AsyncIterator[httpx.AsyncClient]:
    """The application with one more loop."""
    redis_url = servers.valkey.url
    settings = read_settings(data_dir=folder, database_url=SecretStr(database), redis_url=SecretStr(redis_url))
    policy = parse_policy(POLICY, "policy.yaml", {})

    @asynccontextmanager
    async def opened() -> AsyncIterator[Services]:
        async with open_services(settings, policy, Urls(database, redis_url)) as services:
            yield replace(services, loops=(*services.loops, loop))

    app = create_app(settings, opened)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


@pytest.mark.parametrize(
    ("patience", "status"),
    [pytest.param(-1.0, 503, id="longer than its patience"), pytest.param(60.0, 200, id="not for long yet")],
)
async def test_a_step_that_does_not_come_back_is_told(
    servers: TestServers, database: str, tmp_path: Path, patience: float, status: int
) -> None:
    step = Step()
    async with served(servers, database, tmp_path, Loop("extra", step, idle=1.0, patience=patience)) as client:
        await step.began.wait()
        answer = await client.get("/livez")
        assert answer.status_code == status
        checks = answer.json()["checks"]
        assert checks.pop("extra") == ("stuck" if status == 503 else "ok")
        assert {"waker", "relay", "follower", "clock"} <= checks.keys()
        assert set(checks.values()) == {"ok"}
        assert (await client.get("/readyz")).status_code == 200
        step.let_go.set()


async def test_a_loop_whose_steps_fail_is_not_stuck(servers: TestServers, database: str, tmp_path: Path) -> None:
    """It waits and tries again: Postgres may be away, and a restart would not bring it back."""
    step = Step()
    step.fails = True
    loop = Loop("extra", step, idle=60.0, patience=30.0)
    async with served(servers, database, tmp_path, loop) as client:
        await step.began.wait()
        assert (await client.get("/livez")).status_code == 200
        assert loop.failures == 1
