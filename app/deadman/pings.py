"""Pings, as in Healthchecks: success, start, fail, exit code, run id. Each is durable before the answer."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.deadman import rules, store
from app.deadman.flips import Flips
from app.deadman.store import Record
from app.deadman.watch import Roster
from app.kit.db import with_retries
from app.kit.errors import Problem
from app.policy.core import Core

RUN_ID: Final = re.compile(r"[A-Za-z0-9._:~+-]{1,100}")

Kind = Literal["success", "start", "fail"]


@dataclass(frozen=True, slots=True)
class Ping:
    """One ping. `code` is an exit code, 0 for success. `run` is the id of a run, for runs that go on at the same time."""

    switch: str
    kind: Kind
    run: str | None
    code: int | None
    body: bytes


class Pings:
    """`take` records a ping. `max_body`: how many bytes of its body are kept."""

    def __init__(self, core: Core, flips: Flips, *, max_body: int) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._flips = flips
        self._max_body = max_body

    async def take(self, ping: Ping) -> None:
        """Change the switch and keep the ping, in one transaction. Raises Problem 404 for a switch that takes no pings."""

        async def write(conn: AsyncConnection) -> Record:
            return await self._write(conn, ping)

        self._flips.count(await with_retries(self._engine, write))
        self._metrics.pings.labels(ping.kind).inc()

    async def _write(self, conn: AsyncConnection, ping: Ping) -> Record:
        roster, now = Roster(self._policy()), self._clock.now()
        named = roster.named().get(ping.switch)
        if named is not None and named.switch.kind == "ping":
            await store.create(conn, named, now, named.name)  # Its row may be there already.
        record = await store.lock_one(conn, ping.switch)
        instance = roster.instance(record) if record is not None else None
        if record is None or instance is None or instance.switch.kind != "ping" or record.state == store.FORGOTTEN:
            raise Problem(404, "not_found", f"The policy has no switch {ping.switch[:200]!r} that expects a ping.")
        match ping.kind:
            case "start":
                rules.start(record.facts, now, ping.run)
            case "success":
                rules.succeed(record.facts, now, ping.run)
                record.last_event = "a ping"
            case "fail":
                rules.fail(record.facts, now, ping.run)
        # Only the watch declares a switch overdue, because it first adds our own outage to the time that is left.
        if ping.kind == "start":
            await store.save(conn, record)
        else:
            await self._flips.settle(conn, record, instance, now, judge=ping.kind == "fail")
        row = {"id": uuid7(), "switch": ping.switch, "at": now, "kind": ping.kind, "run": ping.run}
        await store.add_ping(conn, row | {"code": ping.code, "body": ping.body[: self._max_body]})
        return record
