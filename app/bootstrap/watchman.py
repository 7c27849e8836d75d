"""Who watches the watchman."""

from collections.abc import Callable, Sequence

from app.bootstrap.base import Base
from app.deadman.watchman import Watchman
from app.kit.loop import Loop


def watchman(base: Base, loops: Callable[[], Sequence[Loop]], intake_stuck: Callable[[], bool]) -> tuple[Loop, ...]:
    """The loop that pings the outside, if there is an address to ping."""
    settings = base.settings
    if settings.watchdog_url is None:
        return ()
    secret = settings.watchdog_authorization
    outside = Watchman(
        base.http,
        settings.watchdog_url.get_secret_value(),
        {"Authorization": secret.get_secret_value()} if secret else {},
        base.engine,
        base.clock,
        base.metrics,
        loops=loops,
        intake_stuck=intake_stuck,
    )
    return (Loop("watchman", outside.step, idle=settings.watchdog_interval),)
