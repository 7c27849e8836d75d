"""Opening, repeating and resolving: who is told goes into the outbox in the transaction that found out.

A crash between a flip and its message cannot lose the message: there is one transaction for both. The items of one
incident and receiver, and of the incidents of its key before and after, share a lane of the outbox, so that they arrive in
the order in which they happened: a resolve never overtakes its open, nor a new open the resolve before it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.kit.db import transaction
from app.kit.loop import each_alone
from app.kit.outbox.model import new_item
from app.notices import store
from app.notices.model import SWITCH_DOWN, TEST, Action, Notice
from app.notices.receivers.send import refresh_of
from app.policy.core import Core
from app.policy.deadman import incident_key
from app.policy.schema import Policy

KIND: Final = "notice"  # of an item in the outbox
_MOST: Final = 100  # told again in one step
_PAUSE: Final = timedelta(minutes=1)  # until an incident that could not be repeated is tried again


class Notices:
    """`open` and `resolve` run in the caller's transaction; `step()` tells again what is still open.

    `repeat` is how often an open incident goes out again where nothing else says so (GATEWAY_NOTICE_REPEAT); None: once.
    """

    def __init__(self, core: Core, repeat: timedelta | None = None) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._repeat = repeat

    async def open(
        self,
        conn: AsyncConnection,
        receivers: Sequence[str],
        notice: Notice,
        now: datetime,
        repeat: timedelta | None = None,
    ) -> bool:
        """Tell these receivers, and with `repeat` again and again until it is resolved. False: an incident of this key is
        open, and nobody is told anew. Whoever opens and resolves a key does both under one lock of its own."""
        ident = uuid7()
        if not await store.insert_notice(conn, ident, notice, now):
            return False
        await self._begin(conn, ident, notice.key, list(dict.fromkeys(receivers)), repeat or self._repeat, now)
        return True

    async def _begin(
        self,
        conn: AsyncConnection,
        ident: UUID,
        key: str,
        receivers: Sequence[str],
        repeat: timedelta | None,
        now: datetime,
    ) -> None:
        items = [self._item(ident, receiver, key, Action.OPEN, now) for receiver in receivers]
        if items:
            await store.send(conn, items)
            await store.insert_tellings(conn, [self._telling(ident, item, repeat, now) for item in items])

    async def resolve(
        self, conn: AsyncConnection, key: str, now: datetime, detail: str, after: timedelta = timedelta(0)
    ) -> bool:
        """It is over: whoever was told is told, `after` that time. False: nothing of this key is open."""
        return bool(await self.resolve_all(conn, [key], now, detail, after))

    async def resolve_all(
        self, conn: AsyncConnection, keys: Sequence[str], now: datetime, detail: str, after: timedelta = timedelta(0)
    ) -> int:
        """As `resolve`, of several keys; how many were open."""
        closed = await store.close(conn, keys, detail, now)
        if not closed:
            return 0
        items, ends = [], []
        for row in await store.tellings_of(conn, closed):
            item = self._item(row["notice"], row["receiver"], closed[row["notice"]], Action.RESOLVE, now)
            item["available_at"] = now + after
            items.append(item)
            ends.append({"opened": row["open_item"], "resolved": item["id"]})
        if items:
            await store.send(conn, items)
            await store.end_tellings(conn, ends)
        return len(closed)

    async def resolve_below(
        self, conn: AsyncConnection, prefix: str, now: datetime, detail: str, *, but: str | None = None
    ) -> int:
        """As `resolve_all`, of every key that begins so, without the key `but`."""
        keys = [key for key in await store.open_keys(conn, prefix) if key != but]
        return await self.resolve_all(conn, keys, now, detail) if keys else 0

    async def step(self) -> bool:
        """Tell again who is due. True when there may be more."""
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            due = await store.due(conn, now, _MOST)
            # An incident that is just being resolved is left to whoever does that: its tellings are locked after it there.
            incidents = await store.lock_open(conn, {row["notice"] for row in due})

            async def repeat(incident: RowMapping) -> None:
                receivers = {row["receiver"] for row in due if row["notice"] == incident["id"]}
                async with conn.begin_nested():
                    await self._tell_again(conn, incident, receivers, now)

            failed = await each_alone(
                incidents, repeat, lambda incident: {"notice": str(incident["id"])}, "an incident cannot be repeated"
            )
            broken = {incident["id"] for incident, _ in failed}
            later = [{"item": r["open_item"], "next": now + _PAUSE} for r in due if r["notice"] in broken]
            await store.book_next(conn, later)
        if failed:
            self._metrics.items_failed.labels("notices").inc(len(failed))
            raise ExceptionGroup("incidents that could not be repeated", [error for _, error in failed])
        return len(due) == _MOST

    async def _tell_again(self, conn: AsyncConnection, incident: RowMapping, due: set[str], now: datetime) -> None:
        """Whomever the policy names by now; one that it names no more hears of the end alone."""
        told = {row["receiver"]: row for row in await store.tellings_of(conn, [incident["id"]])}
        wanted = self.audience(incident)
        names = set(told) if wanted is None else set(wanted)
        silent = {name for name, row in told.items() if row["repeat"] and row["next_at"] is None}
        again = [told[name] for name in sorted(told.keys() & names & (due | silent))]
        booked = [{"item": row["open_item"], "next": self._next(row, now)} for row in again]
        booked += [{"item": told[name]["open_item"], "next": None} for name in due - names]
        await store.send_again(conn, [row["open_item"] for row in again], now)
        await store.book_next(conn, booked)
        every = next((row["repeat"] for row in told.values()), None)
        repeat = timedelta(seconds=every) if every else None
        await self._begin(conn, incident["id"], incident["key"], sorted(names - told.keys()), repeat, now)

    def audience(self, incident: RowMapping) -> Sequence[str] | None:
        return audience(self._policy(), incident["event"], incident["key"], incident["labels"])

    def refresh(self, receiver: str) -> timedelta | None:
        """How often a receiver must hear of what is open, whatever `repeat` says; None: once is enough."""
        return refresh_of(self._policy().receiver(receiver))

    def _next(self, row: Any, now: datetime) -> datetime | None:
        every = [timedelta(seconds=row["repeat"])] if row["repeat"] else []
        refresh = self.refresh(row["receiver"])
        every += [refresh] if refresh else []
        return now + min(every) if every else None

    def _telling(self, ident: UUID, item: dict[str, Any], repeat: timedelta | None, now: datetime) -> dict[str, Any]:
        receiver = item["payload"]["receiver"]
        row = {
            "notice": ident,
            "receiver": receiver,
            "open_item": item["id"],
            "repeat": repeat.total_seconds() if repeat else None,
        }
        return row | {"next_at": self._next(row, now)}

    def _item(self, ident: UUID, receiver: str, key: str, action: Action, now: datetime) -> dict[str, Any]:
        payload = {"notice": str(ident), "receiver": receiver, "action": action, "times": 1}
        return new_item(uuid7(), KIND, f"receiver:{receiver}", payload, now, lane=f"{receiver}:{key}")


def audience(policy: Policy, event: str, key: str, labels: Mapping[str, str]) -> Sequence[str] | None:
    """The receivers that a policy names for an incident; for a switch, those of its entry. None for a test: it names
    its own receiver."""
    if event == TEST:
        return None
    if event == SWITCH_DOWN:
        named = ((switch.seen(labels), switch.receivers) for switch in policy.deadman)
        return next((names for seen, names in named if seen is not None and incident_key(seen.name) == key), ())
    return policy.told(event, labels.get("route"))
