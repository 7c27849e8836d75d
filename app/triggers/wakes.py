"""Groups that are due: the end of a debounce, of a cooldown, of a backoff or of a run decides without a notification."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.clock import Clock
from app.db import transaction
from app.metrics import Metrics
from app.policy.schema import Policy
from app.triggers import holds, limits, logs, pauses, store
from app.triggers.ledger import Ledger
from app.triggers.memory import Memory
from app.triggers.placing import GroupName
from app.triggers.state import group_key

# After an outage of ours a hold waits until the watch has given the time back (app.triggers.holds).
_DUE = text("""
    SELECT key, route, mode, labels FROM groups WHERE wake_at <= :now
      AND (held_since IS NULL OR NOT EXISTS (SELECT FROM watch WHERE watched_until < :watched))
    ORDER BY wake_at LIMIT :most
""")

# A group that another replica or a batch has locked is being decided there.
_TAKE = text("""
    SELECT key FROM groups WHERE key = ANY(CAST(:keys AS text[])) AND (wake_at <= :now OR key = ANY(CAST(:others AS text[])))
    ORDER BY key FOR UPDATE SKIP LOCKED
""")

# A wake was set by the policy of its day. A group without one may have alerts that the policy of a while ago did not want.
# The keys are locked in the order of every flow.
_REVIEW = text("""
    UPDATE groups SET wake_at = :now WHERE key IN (
        SELECT key FROM groups g WHERE wake_at > :now OR (
            wake_at IS NULL AND open_trigger IS NULL
            AND EXISTS (SELECT FROM alerts WHERE group_key = g.key AND closed_at IS NULL)
        ) ORDER BY key FOR UPDATE
    )
""")

_ROUND = 20


async def _take(conn: AsyncConnection, ledger: Ledger, due: Sequence[Row[Any]]) -> list[str]:
    """Lock and read what can be woken of the groups that are due; their keys. One whose route has changed its mode comes
    with the group that takes its alerts over."""
    homes: dict[str, tuple[str, GroupName]] = {}
    for row in due:
        route = ledger.policy.route(row.route)
        if route is not None and route.mode != row.mode:
            homes[row.key] = group_key(row.route, route.mode, row.labels), (row.route, route.mode, row.labels)
    others = dict(homes.values())
    await store.make_groups(conn, others)
    wanted = {"keys": [*(row.key for row in due), *others], "others": list(others), "now": ledger.now}
    taken = {row.key for row in await conn.execute(_TAKE, wanted)}
    keys = [row.key for row in due if row.key in taken and (row.key not in homes or homes[row.key][0] in taken)]
    await store.load_groups(conn, ledger, [*keys, *(homes[key][0] for key in keys if key in homes)])
    return sorted(keys)


class Waker:
    """`step()` decides the groups that are due."""

    def __init__(
        self,
        engine: AsyncEngine,
        memory: Memory,
        policy: Callable[[], Policy],
        clock: Clock,
        metrics: Metrics,
        *,
        new_id: Callable[[], UUID],
        reorder: timedelta,
        fired: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._policy = policy
        self._clock = clock
        self._metrics = metrics
        self._new_id = new_id
        self._reorder = reorder
        self._fired = fired
        self._reviewed: object = None  # the policy and the pauses under which every wake was looked at

    async def step(self) -> bool:
        """One round in one transaction. True when more may be due. The first round under a policy, or under other pauses,
        brings every wake forward: a cooldown or a pause that became shorter counts at once, a route that came back too."""
        ledger = Ledger(self._policy(), self._clock.now(), self._reorder, self._new_id)
        async with transaction(self._engine) as conn:
            ledger.take_pauses(await pauses.in_force(conn))
            reviewed = ledger.policy.hash, frozenset(ledger.pauses.values())
            if self._reviewed != reviewed:
                await conn.execute(_REVIEW, {"now": ledger.now})
            parameters = {"now": ledger.now, "watched": ledger.now - holds.GAP, "most": _ROUND}
            due = (await conn.execute(_DUE, parameters)).all()
            # Routes are locked before groups, as every flow does.
            ledger.fires = await limits.lock(conn, ledger.policy, (row.route for row in due), ledger.now)
            keys = await _take(conn, ledger, due)
            if not keys:
                self._reviewed = reviewed
                return False
            for key in keys:
                ledger.wake(key)
            await store.save(conn, ledger)
        self._reviewed = reviewed
        self._metrics.decided((d.route, d.action, d.reason) for d in ledger.decisions)
        logs.decided(ledger)
        self._metrics.rehearsed(t.group.route for t in ledger.triggers.values() if t.rehearsed)
        if any(t.state == "pending" for t in ledger.triggers.values()):
            self._fired()
        episodes = [(e, ledger.groups[e.group_key].version) for e in ledger.latest.values() if e.group_key]
        await self._memory.remember(ledger.groups.values(), episodes)
        return len(keys) == _ROUND
