"""What a person asks: resolve an incident, send its dead notices again, or test a receiver."""

import asyncio
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app import tables
from app.kit.clock import monotonic
from app.kit.db import with_retries
from app.kit.errors import Problem
from app.kit.outbox import store as outbox
from app.notices import store
from app.notices.incidents import NEWS_LASTS, Incidents
from app.notices.model import SWITCH_DOWN, TEST, Notice, Severity
from app.policy.core import Core
from app.tables import audit_log as audit

_LOOK_EVERY: Final = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Tested:
    """The result of a test: `state` is the one in the outbox, `detail` is what the receiver answered."""

    receiver: str
    kind: str
    state: str
    detail: str
    notice: UUID


class NoticeRequests:
    """Every method raises Problem: 404 for what does not exist, 409 when the state of the incident forbids the request.

    `patience`: seconds that a test waits for the first answer.
    """

    def __init__(self, core: Core, incidents: Incidents, *, patience: float) -> None:
        self._engine, self._clock = core.engine, core.clock
        self._policy = core.policies.current
        self._relay = core.bells.relay
        self._incidents = incidents
        self._patience = patience

    async def resolve(self, ident: UUID, reason: str, caller: str) -> None:
        """End an incident, and send the end to its receivers. When the fault goes on, its next sign opens a new incident."""

        async def resolve(conn: AsyncConnection) -> None:
            now, found = self._clock.now(), await store.notice(conn, ident)
            if found is None:
                raise Problem(404, "not_found", f"There is no notice {ident}.")
            detail = f"resolved by {caller}" + (f": {reason}" if reason else "")
            if found["event"] == SWITCH_DOWN and found["resolved_at"] is None:
                sentence = "It ends when the switch is up again; `trigger-gateway deadman pause` ends it at once."
                raise Problem(409, "wrong_state", sentence, state="open")
            if found["resolved_at"] is not None or not await self._incidents.resolve(conn, found["key"], now, detail):
                raise Problem(409, "wrong_state", "Only an open notice can be resolved.", state="resolved")
            await audit.write(conn, now, caller, "resolve", f"notice {ident}", {"reason": reason})

        await with_retries(self._engine, resolve)
        self._relay.ring()

    async def redrive(self, ident: UUID, caller: str) -> None:
        """Send the dead notices of an incident again, in the order in which they were written."""

        async def redrive(conn: AsyncConnection) -> None:
            now, found = self._clock.now(), await store.lock_notice(conn, ident)
            if found is None:
                raise Problem(404, "not_found", f"There is no notice {ident}.")
            items = await store.died(conn, ident)
            state = "open" if found["resolved_at"] is None else "resolved"
            if not items:
                raise Problem(409, "wrong_state", "No notice of this incident is dead.", state=state)
            if state == "resolved" and found["key"] in await store.open_keys(conn, found["key"]):
                sentence = "Its key is open again, as a newer incident: the end of this one would close that one too."
                raise Problem(409, "wrong_state", sentence, state=state)
            for item in items:
                await outbox.redrive(conn, item, now)
            await audit.write(conn, now, caller, "redrive", f"notice {ident}", {"items": len(items)})

        await with_retries(self._engine, redrive)
        self._relay.ring()

    async def test(self, name: str, caller: str) -> Tested:
        """Send a notice that is marked as a test to one receiver through the outbox, and wait for the first answer.

        The state is `pending` when no answer comes in time: no worker runs, or the receiver is away.
        """
        receiver = self._policy().receiver(name)
        if receiver is None:
            raise Problem(404, "not_found", f"The policy has no receiver named {name!r}.")
        notice = Notice(
            key=f"test:{uuid7()}",
            event=TEST,
            severity=Severity.INFO,
            title=f"Test of the receiver {name}: nothing is wrong",
            detail=f"{caller} asked whether notices of Trigger Gateway arrive here. They do.",
            labels={"receiver": name},
        )

        async def send(conn: AsyncConnection) -> None:
            now = self._clock.now()
            await self._incidents.open(conn, [name], notice, now)
            await self._incidents.resolve(conn, notice.key, now, "the test is over", after=NEWS_LASTS)
            await audit.write(conn, now, caller, "test", f"receiver {name}", {"notice": notice.key})

        await with_retries(self._engine, send)
        self._relay.ring()
        ident, state, detail = await self._answer(notice.key)
        return Tested(name, receiver.kind, state, detail, ident)

    async def _answer(self, key: str) -> tuple[UUID, str, str]:
        o, n, t = tables.outbox, tables.notices, tables.tellings
        wanted = (
            select(n.c.id, o.c.state, o.c.detail, o.c.attempts)
            .join(t, t.c.notice == n.c.id)
            .join(o, o.c.id == t.c.open_item)
            .where(n.c.key == key)
        )
        until = monotonic() + self._patience
        while True:
            async with self._engine.connect() as conn:
                row = (await conn.execute(wanted)).one()
            if row.attempts or monotonic() > until:
                detail = row.detail if row.attempts else "no attempt to send it was made yet: does a worker run?"
                return row.id, row.state, detail
            await asyncio.sleep(_LOOK_EVERY)
