"""The loops that belong to no room: the database's time, the newest policy, and the ping to an address outside."""

from app.bootstrap.core import Foundation
from app.deadman.watchdog import Watchdog
from app.intake.batcher import Batcher
from app.kit.clock import SystemClock
from app.kit.db import database_now
from app.kit.loop import Loop
from app.policy.core import Core
from app.policy.reload import LOOK_EVERY, Reloader


def constant_loops(core: Core, reloader: Reloader) -> tuple[Loop, ...]:
    """The loops that every process runs, with the worker's loops or without: the database's time and the newest policy."""

    async def synchronise() -> bool:
        if isinstance(core.clock, SystemClock):
            await core.clock.synchronise(lambda: database_now(core.engine))
        return False

    return Loop("clock", synchronise, idle=60.0), Loop("policy", reloader.step, idle=LOOK_EVERY)


def watchdog_loops(base: Foundation, loops: tuple[Loop, ...], batcher: Batcher) -> tuple[Loop, ...]:
    """The loop that pings an address outside, if one is set."""
    settings = base.settings
    if settings.watchdog_url is None:
        return ()
    secret = settings.watchdog_authorization
    headers = {"Authorization": secret.get_secret_value()} if secret else {}
    watchdog = Watchdog(base.core, base.http, settings.watchdog_url.get_secret_value(), headers, loops, batcher)
    return (Loop("watchman", watchdog.step, idle=settings.watchdog_interval),)
