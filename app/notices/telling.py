"""Opening, repeating and resolving: who is told goes into the outbox in the transaction that found out.

A crash between a flip and its message cannot lose the message: there is one transaction for both. The items of one
incident and receiver, and of the incidents of its key before and after, share a lane of the outbox, so that they arrive in
the order in which they happened: a resolve never overtakes its open, nor a new open the resolve before it.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.clock import Clock
from app.db import transaction
from app.notices import store
from app.notices.model import Action, Notice
from app.outbox.model import new_item

KIND: Final = "notice"  # of an item in the outbox
_MOST: Final = 100  # told again in one step


class Notices:
    """`open` and `resolve` run in the caller's transaction; `step()` tells again what is still open.

    `refresh(receiver)` is how often a receiver wants to hear of an open incident whatever its `repeat`, None: never.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        new_id: Callable[[], UUID],
        refresh: Callable[[str], timedelta | None] = lambda _receiver: None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._new_id = new_id
        self._refresh = refresh

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
        ident = self._new_id()
        if not await store.insert_notice(conn, ident, notice, now):
            return False
        items = [self._item(ident, receiver, notice.key, Action.OPEN, now) for receiver in dict.fromkeys(receivers)]
        if items:
            await store.send(conn, items)
            await store.insert_tellings(conn, [self._telling(ident, item, repeat, now) for item in items])
        return True

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
            if due:
                await store.send_again(conn, [row["open_item"] for row in due], now)
                await store.book_next(conn, [{"item": r["open_item"], "next": self._next(r, now)} for r in due])
        return len(due) == _MOST

    def _next(self, row: Any, now: datetime) -> datetime | None:
        every = [timedelta(seconds=row["repeat"])] if row["repeat"] else []
        refresh = self._refresh(row["receiver"])
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
        return new_item(self._new_id(), KIND, f"receiver:{receiver}", payload, now, lane=f"{receiver}:{key}")
