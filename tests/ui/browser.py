"""A real Chromium, Debian's, in front of a gateway of this process."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote
from uuid import UUID

import uvicorn
from playwright.async_api import Browser, async_playwright

from app import tables
from app.decide.state import group_key
from app.kit.db import insert_rows
from app.promotion import store
from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.servers import TestServers
from tests.ui.history import HOSTILE, POLICY, hostile, promotions, rich
from tests.ui.tried import ENDED, RUNNING, tried

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
#: Without these it asks hosts of its maker at every start.
_QUIET = (
    "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """One browser, as root and without a screen."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET.split())
        yield browser
        await browser.close()


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    """The address of the gateway of a World, on loopback."""
    config = uvicorn.Config(world.apps[0], host="127.0.0.1", port=0, lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
        assert not serving.done(), "the server did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def rich_world(
    servers: TestServers, database: str, *, models: int, nasty: bool = True, **settings: Any
) -> AsyncIterator[World]:
    """A gateway with a rich history, and with hostile labels unless `nasty` is False."""
    async with World(servers, database, POLICY, **settings) as world:
        engine = world.services[0].core.engine
        await rich(NOON, models=models).write(engine)
        async with engine.begin() as conn:
            await insert_rows(conn, tables.backtests, tried(NOON))
        if nasty:
            await hostile(NOON).write(engine)
            async with engine.begin() as conn:
                for row in promotions(NOON):
                    await store.add(conn, row)
        await world.services[0].loop("watch").step()
        await world.post("/api/v1/alerts", b'[{"alert_id": "x", "severity": "low", "timestamp": "soon"}]')
        yield world


async def addresses(world: World) -> dict[str, str]:
    """A page of every kind, by a name."""
    triggers = await world.triggers()
    made = next(t for t in triggers if t["runs"] and t["alerts"])
    held = next(t for t in triggers if t["state"] == "held")
    evil = group_key("accuracy", "live", {"model": HOSTILE[3]})
    return {
        "fleet": "/ui",
        "fleet-nothing": "/ui?label=model%3Dnobody",
        "group": f"/ui/groups/{group_key(made['route'], 'live', made['group'])}",
        "group-hostile": f"/ui/groups/{evil}",
        "alert": f"/ui/alerts/{made['alerts'][0]['id']}",
        "trigger": f"/ui/triggers/{made['id']}",
        "trigger-held": f"/ui/triggers/{held['id']}",
        "promotions": "/ui/promotions?model=churn",
        "house": "/ui/house",
        "switch": f"/ui/switches/{quote('m00-retrained')}",
        "policy": "/ui/policy",
        "box": "/ui/policy/backtests",
        "backtest": f"/ui/policy/backtests/{ENDED}",
        "backtest-running": f"/ui/policy/backtests/{RUNNING}",
        "action": "/ui/actions/pause?route=accuracy",
        "missing": f"/ui/alerts/{UUID(int=0)}",
    }
