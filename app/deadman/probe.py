"""Is a switch down? The checks of /health/deadman."""

import asyncio
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from app.deadman import store
from app.groups.wakes import GAP
from app.kit.clock import Clock
from app.kit.db import log_a_bug
from app.kit.times import at
from app.policy.schema import Policy

_PATIENCE: Final = 3.0  # seconds that a probe waits for Postgres


async def look(engine: AsyncEngine, policy: Policy, clock: Clock) -> dict[str, str]:
    """By name: for the watch "ok" or what is wrong, and for each switch that is down since when."""
    try:
        async with asyncio.timeout(_PATIENCE), engine.connect() as conn:
            watched = await store.read_watch(conn)
            down = await store.down(conn)
    except Exception as error:  # A probe answers, whatever the error.
        log_a_bug(error)
        return {"watch": f"postgres does not answer ({type(error).__name__})"}
    found = {"watch": "ok"}
    if policy.deadman and watched is None:
        found["watch"] = "nobody has watched yet: is a worker running?"
    elif policy.deadman and watched is not None and clock.now() - watched.until > GAP:
        found["watch"] = f"nobody has watched since {at(watched.until)}: is a worker running?"
    return found | {record.name: f"down since {at(record.since)}" for record in down}
