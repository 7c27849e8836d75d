"""The gateway pings an address outside while it is well. When the pings stop, the service at that address pages.

Healthchecks, Dead Man's Snitch and Opsgenie's heartbeats take such a request. Their period should be a few times our
interval.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from app.intake.batcher import Batcher
from app.kit.db import log_a_bug
from app.kit.errors import TargetError
from app.kit.http import Http
from app.kit.loop import Loop
from app.policy.core import Core

log = logging.getLogger(__name__)

_FAILURES: Final = 3  # failed steps in a row after which a loop is not well
_STALE: Final = timedelta(seconds=60)

# The watch writes this row every few seconds. A fresh row shows that Postgres takes writes and that a replica watches.
_WATCHED = text("SELECT watched_until, pg_is_in_recovery() AS standby FROM watch WHERE id = 1")


class Watchdog:
    """`step()` pings once, or logs why it does not. `loops` and `batcher` are those of this process."""

    def __init__(
        self,
        core: Core,
        http: Http,
        url: str,
        headers: Mapping[str, str],
        loops: Sequence[Loop],
        batcher: Batcher,
    ) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._http = http
        self._url = url
        self._headers = headers
        self._loops = loops
        self._batcher = batcher

    async def step(self) -> bool:
        ill = await self._ill()
        if ill:
            self._metrics.watchdog_pings.labels("withheld").inc()
            log.error("the gateway is not well: it sends no ping to the outside", extra={"faults": ill})
            return False
        try:
            answer = await self._http.request("GET", self._url, headers=self._headers, body_needed=False)
        except TargetError as error:
            self._metrics.watchdog_pings.labels("failed").inc()
            log.warning("the ping to the outside failed", extra={"code": error.code, "detail": error.detail})
            return False
        good = answer.status < 300
        self._metrics.watchdog_pings.labels("sent" if good else "failed").inc()
        if not good:
            log.warning("the ping to the outside was refused", extra={"status": answer.status})
        return False

    async def _ill(self) -> list[str]:
        """What is wrong with this gateway."""
        running = [loop for loop in self._loops if loop.started]
        found = [f"the loop {loop.name} is stuck" for loop in running if loop.stuck()]
        found += [f"the loop {loop.name} fails" for loop in running if loop.failures >= _FAILURES]
        if self._batcher.stuck():
            found.append("intake is stuck")
        try:
            async with self._engine.connect() as conn:
                row = (await conn.execute(_WATCHED)).one_or_none()
        except Exception as error:  # Any error is a fault.
            log_a_bug(error)
            return [*found, f"postgres does not answer ({type(error).__name__})"]
        if row is None or self._clock.now() - row.watched_until > _STALE:
            found.append("nobody watches the switches")
        elif row.standby:
            found.append("postgres is read-only")
        return found
