"""What a person asks: that an incident is over, that it is told again, or that a receiver is told something to see whether
it hears."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
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
from app.notices.model import SWITCH_DOWN, TEST, Notice, Severity
from app.notices.telling import Notices
from app.policy.core import Core
from app.tables import audit_log as audit

#: So long a test stays open at a receiver: an Alertmanager that is told of the end within its group_wait tells nobody.
TEST_LASTS: Final = timedelta(minutes=2)
_LOOK_EVERY: Final = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Tested:
    """What became of a test: `state` as in the outbox, `detail` what the receiver answered."""

    receiver: str
    kind: str
    state: str
    detail: str
    notice: UUID


class NoticeRequests:
    """Every method raises Problem: 404 unknown, 409 when its state forbids it. `patience` in seconds."""

    def __init__(self, core: Core, notices: Notices, *, patience: float) -> None:
        self._engine, self._clock = core.engine, core.clock
        self._policy = core.policies.current
        self._relay = core.bells.relay
        self._notices = notices
        self._patience = patience

    async def resolve(self, ident: UUID, reason: str, caller: str) -> None:
        """Receivers are told that it is over. If it is not, the next sign of it is a new incident."""

        async def resolve(conn: AsyncConnection) -> None:
            now, found = self._clock.now(), await store.notice(conn, ident)
            if found is None:
                raise Problem(404, "not_found", f"There is no notice {ident}.")
            detail = f"resolved by {caller}" + (f": {reason}" if reason else "")
            if found["event"] == SWITCH_DOWN and found["resolved_at"] is None:
                sentence = "It ends when the switch is heard of; `trigger-gateway deadman pause` silences it."
                raise Problem(409, "wrong_state", sentence, state="open")
            if found["resolved_at"] is not None or not await self._notices.resolve(conn, found["key"], now, detail):
                raise Problem(409, "wrong_state", "Only an open notice can be resolved.", state="resolved")
            await audit.write(conn, now, caller, "resolve", f"notice {ident}", {"reason": reason})

        await with_retries(self._engine, resolve)
        self._relay.ring()

    async def redrive(self, ident: UUID, caller: str) -> None:
        """Send again what of an incident a receiver refused for good, in the order in which it happened."""

        async def redrive(conn: AsyncConnection) -> None:
            now, found = self._clock.now(), await store.lock_notice(conn, ident)
            if found is None:
                raise Problem(404, "not_found", f"There is no notice {ident}.")
            items = await store.died(conn, ident)
            state = "open" if found["resolved_at"] is None else "resolved"
            if not items:
                raise Problem(409, "wrong_state", "Nothing of it died on its way to a receiver.", state=state)
            if state == "resolved" and found["key"] in await store.open_keys(conn, found["key"]):
                sentence = "It is open again, as a newer notice: what is told of this one now would end that."
                raise Problem(409, "wrong_state", sentence, state=state)
            for item in items:
                await outbox.redrive(conn, item, now)
            await audit.write(conn, now, caller, "redrive", f"notice {ident}", {"items": len(items)})

        await with_retries(self._engine, redrive)
        self._relay.ring()

    async def test(self, name: str, caller: str) -> Tested:
        """Tell one receiver something that is marked as a test, through the outbox, and wait for its first answer. A test
        that nobody delivers in time is `pending`: no worker runs, or the receiver is away."""
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
            await self._notices.open(conn, [name], notice, now)
            await self._notices.resolve(conn, notice.key, now, "the test is over", after=TEST_LASTS)
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
                waits = "nothing delivered it yet: does a worker run?" if not row.attempts else row.detail
                return row.id, row.state, waits
            await asyncio.sleep(_LOOK_EVERY)
