"""Incidents open, are repeated and are resolved: each notice goes into the outbox in the transaction that found the fault.

One transaction holds a flip and its notice, so no crash can lose the notice. All notices of one key to one receiver share
a lane of the outbox, whichever incident of the key they belong to. So they arrive in the order in which things happened: a
resolve never overtakes its open, and a new open never overtakes the resolve before it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.kit.db import transaction
from app.kit.loop import each_alone
from app.kit.outbox.model import new_item
from app.notices import store
from app.notices.model import SWITCH_DOWN, TEST, Action, Notice
from app.notices.receivers.send import knows_again, refresh_of
from app.policy.core import Core
from app.policy.deadman import incident_keys
from app.policy.schema import Policy

_COUNTED: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('incidents:' || :prefix, 0))")

KIND: Final = "notice"  # of an item in the outbox
#: How long news stays open at a receiver. An Alertmanager that gets the end within its group_wait notifies nobody.
NEWS_LASTS: Final = timedelta(minutes=2)
_MOST: Final = 100  # repeats of one step
_PAUSE: Final = timedelta(minutes=1)  # until an incident that could not be repeated is tried again


class Incidents:
    """`open` and `resolve` run in the caller's transaction. `step()` repeats the incidents that are still open.

    `repeat` is how often an open incident is repeated when nothing else says so (GATEWAY_NOTICE_REPEAT); None: never.
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
        """Open an incident and send the notice to these receivers, again every `repeat` until it is resolved.

        False: an incident of this key is open already, and nothing is sent. The caller holds a lock that every opener and
        resolver of this key takes.
        """
        ident = uuid7()
        if not await store.insert_notice(conn, ident, notice, now):
            return False
        await self._begin(conn, ident, notice.key, list(dict.fromkeys(receivers)), repeat or self._repeat, now)
        return True

    async def announce(self, conn: AsyncConnection, receivers: Sequence[str], notice: Notice, now: datetime) -> None:
        """Send news, once for its key: it is over at once. A receiver that keeps incidents gets the end after NEWS_LASTS,
        any other receiver gets one message."""
        if not receivers or not await self.open(conn, receivers, notice, now):
            return
        closed = await store.close(conn, [notice.key], "it is news, and needs nobody", now)
        rows = await store.receiver_rows(conn, closed)
        await store.book_next(conn, [{"item": row["open_item"], "next": None} for row in rows])
        await self._end(conn, [row for row in rows if self._keeps(row["receiver"])], closed, now, NEWS_LASTS)

    def _keeps(self, receiver: str) -> bool:
        found = self._policy().receiver(receiver)
        return found is not None and knows_again(found)

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
            await store.insert_receiver_rows(conn, [self._receiver_row(ident, item, repeat, now) for item in items])

    async def resolve(
        self, conn: AsyncConnection, key: str, now: datetime, detail: str, after: timedelta = timedelta(0)
    ) -> bool:
        """Resolve the open incident of this key. Every receiver of its opening gets the end, `after` that time.

        False: no incident of this key is open.
        """
        return bool(await self.resolve_all(conn, [key], now, detail, after))

    async def resolve_all(
        self, conn: AsyncConnection, keys: Sequence[str], now: datetime, detail: str, after: timedelta = timedelta(0)
    ) -> int:
        """The same as `resolve` for several keys. Returns how many incidents were open."""
        closed = await store.close(conn, keys, detail, now)
        if not closed:
            return 0
        await self._end(conn, await store.receiver_rows(conn, closed), closed, now, after)
        return len(closed)

    async def _end(
        self,
        conn: AsyncConnection,
        rows: Sequence[RowMapping],
        closed: Mapping[UUID, str],
        now: datetime,
        after: timedelta,
    ) -> None:
        """Send the end of incidents to these receivers. `closed`: the key of each incident."""
        items, ends = [], []
        for row in rows:
            item = self._item(row["notice"], row["receiver"], closed[row["notice"]], Action.RESOLVE, now)
            item["available_at"] = now + after
            items.append(item)
            ends.append({"opened": row["open_item"], "resolved": item["id"]})
        if items:
            await store.send(conn, items)
            await store.book_ends(conn, ends)

    async def open_below(self, conn: AsyncConnection, prefix: str) -> set[str]:
        """The keys of the open incidents that begin with `prefix`. Whoever asks for this prefix next waits until the
        transaction ends: of two that each end one incident, the second finds that none is left."""
        await conn.execute(_COUNTED, {"prefix": prefix})
        return set(await store.open_keys(conn, prefix))

    async def resolve_below(
        self, conn: AsyncConnection, prefix: str, now: datetime, detail: str, *, but: str | None = None
    ) -> int:
        """The same as `resolve_all` for every key that begins with `prefix`, except the key `but`."""
        keys = [key for key in await store.open_keys(conn, prefix) if key != but]
        return await self.resolve_all(conn, keys, now, detail) if keys else 0

    async def step(self) -> bool:
        """Repeat the incidents that are due. True when more may be due."""
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            due = await store.due(conn, now, _MOST)
            # lock_open skips an incident that another transaction is resolving. That transaction locks the incident first
            # and its receivers after it, so waiting for it here could deadlock.
            incidents = await store.lock_open(conn, {row["notice"] for row in due})

            async def repeat(incident: RowMapping) -> None:
                receivers = {row["receiver"] for row in due if row["notice"] == incident["id"]}
                async with conn.begin_nested():
                    await self._send_again(conn, incident, receivers, now)

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

    async def _send_again(self, conn: AsyncConnection, incident: RowMapping, due: set[str], now: datetime) -> None:
        """Repeat to the receivers that the policy names now. A receiver that it no longer names gets only the end."""
        rows = {row["receiver"]: row for row in await store.receiver_rows(conn, [incident["id"]])}
        wanted = self.audience(incident)
        names = set(rows) if wanted is None else set(wanted)
        silent = {name for name, row in rows.items() if row["repeat"] and row["next_at"] is None}
        again = [rows[name] for name in sorted(rows.keys() & names & (due | silent))]
        booked = [{"item": row["open_item"], "next": self._next(row, now)} for row in again]
        booked += [{"item": rows[name]["open_item"], "next": None} for name in due - names]
        await store.send_again(conn, [row["open_item"] for row in again], now)
        await store.book_next(conn, booked)
        every = next((row["repeat"] for row in rows.values()), None)
        repeat = timedelta(seconds=every) if every else None
        await self._begin(conn, incident["id"], incident["key"], sorted(names - rows.keys()), repeat, now)

    def audience(self, incident: RowMapping) -> Sequence[str] | None:
        return audience(self._policy(), incident["event"], incident["key"], incident["labels"])

    def refresh(self, receiver: str) -> timedelta | None:
        """How often a receiver must get an open incident again, whatever `repeat` says; None: once is enough."""
        return refresh_of(self._policy().receiver(receiver))

    def _next(self, row: Any, now: datetime) -> datetime | None:
        every = [timedelta(seconds=row["repeat"])] if row["repeat"] else []
        refresh = self.refresh(row["receiver"])
        every += [refresh] if refresh else []
        return now + min(every) if every else None

    def _receiver_row(
        self, ident: UUID, item: dict[str, Any], repeat: timedelta | None, now: datetime
    ) -> dict[str, Any]:
        row = {
            "notice": ident,
            "receiver": item["payload"]["receiver"],
            "open_item": item["id"],
            "repeat": repeat.total_seconds() if repeat else None,
        }
        return row | {"next_at": self._next(row, now)}

    def _item(self, ident: UUID, receiver: str, key: str, action: Action, now: datetime) -> dict[str, Any]:
        payload = {"notice": str(ident), "receiver": receiver, "action": action, "times": 1}
        return new_item(uuid7(), KIND, f"receiver:{receiver}", payload, now, lane=f"{receiver}:{key}")


def audience(policy: Policy, event: str, key: str, labels: Mapping[str, str]) -> Sequence[str] | None:
    """The receivers that a policy names for an incident; for a switch, those of its entry.

    None for a test, which goes to the receiver that it tests, whatever the policy says.
    """
    if event == TEST:
        return None
    if event == SWITCH_DOWN:
        return next((switch.receivers for switch in policy.deadman if key in incident_keys(switch, labels)), ())
    return policy.receivers_of(event, labels.get("route"))
