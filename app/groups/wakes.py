"""Groups that are due: the end of a debounce, of a cooldown, of a backoff or of a run decides without a notification."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.decide.ledger import Ledger, NewLedger
from app.decide.placing import GroupName
from app.decide.state import Confirmation, Group, group_key
from app.groups import holds, limits, logs, pauses, store
from app.groups.prometheus import Prometheus
from app.intake.memory import Memory
from app.kit.clock import Clock
from app.kit.db import one_statement, passes, transaction
from app.kit.loop import all_of
from app.kit.metrics import Metrics
from app.policy.language.promql import render_query
from app.policy.schema import Policy

log = logging.getLogger(__name__)

# After an outage of ours a hold waits until the watch has given the time back (app.groups.holds).
_DUE = text("""
    SELECT key, route, mode, labels FROM groups WHERE wake_at <= :now AND (route = ANY(CAST(:asking AS text[]))) = :ask
      AND (held_since IS NULL OR NOT EXISTS (SELECT FROM watch WHERE watched_until < :watched))
      AND (CAST(:only AS text) IS NULL OR key = :only)
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
        SELECT key FROM groups g WHERE key > :after AND (wake_at > :now OR (
            wake_at IS NULL AND open_trigger IS NULL
            AND EXISTS (SELECT FROM alerts WHERE group_key = g.key AND closed_at IS NULL)
        )) ORDER BY key LIMIT :most FOR UPDATE
    ) RETURNING key
""")

_PUT_OFF = text("UPDATE groups SET wake_at = :later WHERE key = :key AND wake_at <= :now")

_ROUND = 20
_REVIEWED = 500  # groups brought forward in one transaction
_PAUSE = timedelta(minutes=1)  # until a group that could not be decided is tried again


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question about a group of this version."""

    version: tuple[int, str]
    answer: Confirmation


class Waker:
    """`step()` decides the groups that are due: with `prometheus` those whose route asks it, without it all others, so that
    a Prometheus that hangs holds up nobody else."""

    def __init__(
        self,
        engine: AsyncEngine,
        memory: Memory,
        policy: Callable[[], Policy],
        clock: Clock,
        metrics: Metrics,
        *,
        ledger: NewLedger,
        fired: Callable[[], None],
        prometheus: Prometheus | None = None,
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._policy = policy
        self._clock = clock
        self._metrics = metrics
        self._ledger = ledger
        self._fired = fired
        self._prometheus = prometheus
        self._reviewed: object = None  # the policy and the pauses under which every wake was looked at

    async def step(self) -> bool:
        """One round. True when more may be due."""
        policy = self._policy()
        await self._review(policy)
        try:
            return await self._round(policy)
        except Exception as error:
            if passes(error) or not await self._one_at_a_time(policy):
                raise
            return True

    async def _review(self, policy: Policy) -> None:
        """The first round under a policy, or under other pauses, brings every wake forward: a cooldown or a pause that
        became shorter counts at once, and so does a route that came back. In transactions of its own, for deciding locks
        routes before groups."""
        async with one_statement(self._engine) as conn:
            reviewed = policy.hash, frozenset((await pauses.read(conn)).values())
        if self._reviewed == reviewed:
            return
        about: dict[str, Any] = {"now": self._clock.now(), "most": _REVIEWED}
        after: str | None = ""
        while after is not None:
            async with transaction(self._engine) as conn:
                keys = (await conn.execute(_REVIEW, about | {"after": after})).scalars().all()
            after = max(keys) if len(keys) == _REVIEWED else None
        self._reviewed = reviewed

    async def _one_at_a_time(self, policy: Policy) -> bool:
        """Decide what is due group by group, after a round that went wrong: one that cannot be decided must not hold up
        the others. It is told, and tried again later. False: each went well alone."""
        async with transaction(self._engine) as conn:
            due = [row.key for row in await self._are_due(conn, policy, self._clock.now())]
        failed = False
        for key in due:
            try:
                await self._round(policy, key)
            except Exception as error:
                if passes(error):
                    raise
                failed = True
                log.exception("a group cannot be decided", extra={"group_key": key})
                now = self._clock.now()
                async with transaction(self._engine) as conn:
                    await conn.execute(_PUT_OFF, {"key": key, "now": now, "later": now + _PAUSE})
        return failed

    async def _round(self, policy: Policy, only: str | None = None) -> bool:
        asked = await self._ask(policy, only) if self._prometheus is not None else {}
        if self._policy().hash != policy.hash:
            return True  # What was asked is of a file that is no longer in force.
        return await self._decide(policy, asked, only)

    async def _ask(self, policy: Policy, only: str | None) -> dict[str, _Asked]:
        """Ask Prometheus about the groups that would fire if it said yes, with no transaction open."""
        ledger = self._ledger(policy, self._clock.now())
        async with transaction(self._engine) as conn:  # Nothing of it is written.
            ledger.take_pauses(await pauses.in_force(conn))
            keys = await self._due(conn, ledger, only)
            versions = {key: (ledger.groups[key].version, ledger.groups[key].nonce) for key in keys}
            ledger.answers = dict.fromkeys(keys, Confirmation(True, "if Prometheus says yes"))
            for key in keys:
                ledger.wake(key)
        fires = [t.group for t in ledger.triggers.values() if t.fired and t.group.key in versions]
        answers = await all_of(self._answer(policy, group) for group in fires)
        return {g.key: _Asked(versions[g.key], answer) for g, answer in zip(fires, answers, strict=True)}

    async def _answer(self, policy: Policy, group: Group) -> Confirmation:
        route = policy.route(group.route)
        if route is None or route.confirm is None or self._prometheus is None:
            raise ValueError(f"the route {group.route} asks nobody")
        said, answer = await self._prometheus.ask(route.confirm, render_query(route.confirm.query, group.labels))
        self._metrics.confirms.labels(route.name, said).inc()
        return answer

    async def _are_due(
        self, conn: AsyncConnection, policy: Policy, now: datetime, only: str | None = None
    ) -> Sequence[Row[Any]]:
        asking = [route.name for route in policy.routes if route.confirm is not None]
        about = {"now": now, "watched": now - holds.GAP, "most": _ROUND, "only": only}
        return (await conn.execute(_DUE, about | {"asking": asking, "ask": self._prometheus is not None})).all()

    async def _due(self, conn: AsyncConnection, ledger: Ledger, only: str | None) -> list[str]:
        """Lock and read the groups that are due here; their keys."""
        due = await self._are_due(conn, ledger.policy, ledger.now, only)
        # Routes are locked before groups, as every flow does.
        ledger.fires = await limits.lock(conn, ledger.policy, (row.route for row in due), ledger.now)
        return await _take(conn, ledger, due)

    async def _decide(self, policy: Policy, asked: Mapping[str, _Asked], only: str | None) -> bool:
        """Decide in one transaction."""
        ledger = self._ledger(policy, self._clock.now())
        async with transaction(self._engine) as conn:
            ledger.take_pauses(await pauses.in_force(conn))
            keys = await self._due(conn, ledger, only)
            if not keys:
                return False
            for key in keys:
                group = ledger.groups[key]
                # An answer older than the facts is none: it is asked again.
                if key in asked and asked[key].version == (group.version, group.nonce):
                    ledger.answers[key] = asked[key].answer
            for key in keys:
                ledger.wake(key)
            await store.save(conn, ledger)
        await self._after(ledger)
        still_due = any((at := ledger.groups[key].wake_at) is not None and at <= ledger.now for key in keys)
        return len(keys) == _ROUND or still_due

    async def _after(self, ledger: Ledger) -> None:
        self._metrics.decided((d.route, d.action, d.reason) for d in ledger.decisions)
        logs.decided(ledger)
        self._metrics.rehearsed(t.group.route for t in ledger.triggers.values() if t.rehearsed)
        if any(t.state == "pending" for t in ledger.triggers.values()):
            self._fired()
        episodes = [(e, ledger.groups[e.group_key].version) for e in ledger.latest.values() if e.group_key]
        await self._memory.remember(ledger.groups.values(), episodes)
