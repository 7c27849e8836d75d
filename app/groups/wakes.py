"""Groups that are due: at the end of a debounce, cooldown, backoff or run they are decided without a notification."""

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app import tables
from app.decide.books import Books
from app.decide.placing import successor
from app.decide.state import Confirmation, Group, HeardAnswer
from app.groups import pauses, store
from app.groups.aftermath import Aftermath
from app.groups.prometheus import Prometheus
from app.kit.db import insert_rows, is_temporary, one_statement, transaction, with_retries
from app.kit.loop import all_of, each_alone
from app.kit.prune import Prune, by_id
from app.policy.core import Core
from app.policy.in_force import is_behind
from app.policy.language.promql import render_query
from app.policy.schema import Policy

log = logging.getLogger(__name__)

# -- holds over an outage of the gateway: no end of an alert could arrive meanwhile, so each hold is made longer ------------

# The wakes keep the time until which they ran, in a row of their own. They need nothing of the dead man's watch.

#: A longer silence was an outage of the gateway.
GAP: Final = timedelta(seconds=60)
#: How often a process writes that it ran.
EVERY: Final = timedelta(seconds=5)

_ROW: Final = 2  # of the table `watch`; the dead man's watch has the first row
# An older version of the gateway knew the watch's row alone: it ran as long as that says.
_BEGIN_HOLDS = text(f"""
    INSERT INTO watch (id, watched_until)
    SELECT {_ROW}, least(:now, (SELECT watched_until FROM watch WHERE id = 1)) ON CONFLICT (id) DO NOTHING
""")
_READ_HOLDS = text(f"SELECT watched_until FROM watch WHERE id = {_ROW} FOR UPDATE SKIP LOCKED")
_KEEP_HOLDS = text(f"UPDATE watch SET watched_until = greatest(watched_until, :now) WHERE id = {_ROW}")

#: A condition in SQL: the holds have been made longer since the newest outage. `:watched` is now - GAP.
KEPT: Final = f"NOT EXISTS (SELECT FROM watch WHERE id = {_ROW} AND watched_until < :watched)"

# The start of the hold moves, so that every place that computes its end from it agrees. The version changes too, so that
# memory's copy of the group counts as stale. Rows are locked in the order that every flow uses.
_MOVE_HOLDS = text("""
    UPDATE groups SET held_since = held_since + (:now - greatest(held_since, :since)), wake_at = :now,
        version = version + 1, nonce = :nonce
    WHERE key IN (
        SELECT key FROM groups WHERE key IN (SELECT group_key FROM triggers WHERE state = 'held')
          AND held_since < :now ORDER BY key FOR UPDATE
    )
""")


async def keep_holds(conn: AsyncConnection, now: datetime) -> None:
    """Note that the gateway runs. After an outage of it, make every hold longer by that time first."""
    await conn.execute(_BEGIN_HOLDS, {"now": now})
    until: datetime | None = (await conn.execute(_READ_HOLDS)).scalar_one_or_none()
    if until is None:  # Another replica is at it.
        return
    if now - until > GAP:
        moved = await _move_holds(conn, until, now)
        log.warning(
            "holds end later by an outage", extra={"seconds": (now - until).total_seconds(), "holds_moved": moved}
        )
    await conn.execute(_KEEP_HOLDS, {"now": now})


async def _move_holds(conn: AsyncConnection, since: datetime, now: datetime) -> int:
    """Make every hold longer by the outage: from `since`, when it began, or from the hold's own beginning, until
    `now`. Each held group is due now, so that its next wake is computed anew. Returns the number of groups."""
    parameters = {"since": since, "now": now, "nonce": secrets.token_hex(4)}
    return (await conn.execute(_MOVE_HOLDS, parameters)).rowcount


# -- groups that are due --------------------------------------------------------------------------------------------

# After an outage of the gateway a held group waits until its hold has been made longer (above).
_DUE = text(f"""
    SELECT key, route, mode, labels FROM groups WHERE wake_at <= :now AND (route = ANY(CAST(:asking AS text[]))) = :ask
      AND (held_since IS NULL OR {KEPT})
      AND (CAST(:only AS text) IS NULL OR key = :only)
      AND (CAST(:known AS text[]) IS NULL OR mode || ' ' || route = ANY(CAST(:known AS text[])))
    ORDER BY wake_at LIMIT :most
""")

# A locked group is being decided by another replica or a batch, so it is skipped.
_TAKE = text("""
    SELECT key FROM groups WHERE key = ANY(CAST(:keys AS text[])) AND (wake_at <= :now OR key = ANY(CAST(:others AS text[])))
    ORDER BY key FOR UPDATE SKIP LOCKED
""")

# The wake of a group was set under an earlier policy. A group without a wake may have alerts that policy did not want.
# The keys are locked in the order that every flow uses. Each Waker makes only its own groups due: it decides them next.
_REVIEW = text("""
    UPDATE groups SET wake_at = :now WHERE key IN (
        SELECT key FROM groups g
        WHERE key > :after AND (route = ANY(CAST(:asking AS text[]))) = :ask AND (wake_at > :now OR (
            wake_at IS NULL AND open_trigger IS NULL
            AND EXISTS (SELECT FROM alerts WHERE group_key = g.key AND closed_at IS NULL)
        )) ORDER BY key LIMIT :most FOR UPDATE
    ) RETURNING key
""")

# Ids grow with time, so the oldest rows come first.
_ANSWERS_PAGE = text("SELECT id, at FROM confirms WHERE id > :id ORDER BY id LIMIT :most")
_ANSWERS_LOCK = text("""
    SELECT id FROM confirms WHERE id = ANY(CAST(:ids AS uuid[])) AND at < :before FOR UPDATE SKIP LOCKED
""")
PRUNE: Final = Prune("confirms", _ANSWERS_PAGE, _ANSWERS_LOCK, (by_id("confirms"),))

_PUT_OFF = text("UPDATE groups SET wake_at = :later WHERE key = :key AND wake_at <= :now")

_ROUND = 20
_REVIEWED = 500  # groups brought forward in one transaction
_PAUSE = timedelta(minutes=1)  # until a group that could not be decided is tried again


async def _take(conn: AsyncConnection, books: Books, due: Sequence[Row[Any]]) -> list[str]:
    """Lock and read the due groups that are not locked elsewhere. Returns their keys. When the route of a group has changed
    its mode, the group that takes its alerts over is locked too."""
    found = ((row.key, successor(row.route, row.mode, row.labels, books.policy)) for row in due)
    homes = {key: home for key, home in found if home is not None}
    others = dict(homes.values())
    await store.make_groups(conn, others)
    wanted = {"keys": [*(row.key for row in due), *others], "others": list(others), "now": books.now}
    taken = {row.key for row in await conn.execute(_TAKE, wanted)}
    keys = [row.key for row in due if row.key in taken and (row.key not in homes or homes[row.key][0] in taken)]
    await store.load_groups(conn, books, [*keys, *(homes[key][0] for key in keys if key in homes)])
    return sorted(keys)


async def _keep_answers(conn: AsyncConnection, books: Books, heard: Iterable[str]) -> None:
    """Keep the answers of Prometheus that counted, for a replay: Prometheus itself forgets."""
    counted = [(books.groups[key], books.confirmations[key]) for key in heard if key in books.confirmations]
    rows = [
        {
            "id": uuid7(),
            "at": books.now,
            "route": group.route,
            "group_labels": group.labels,
            "confirmed": answer.confirmed if answer.answered else None,
            "detail": answer.detail,
        }
        for group, answer in counted
    ]
    await insert_rows(conn, tables.confirms, rows)


class Waker:
    """`step()` decides the groups that are due. With `prometheus` it takes the groups whose route asks Prometheus, without
    it all others. So a Prometheus that hangs delays no other group."""

    def __init__(self, core: Core, aftermath: Aftermath, prometheus: Prometheus | None = None) -> None:
        self._core = core
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._aftermath = aftermath
        self._prometheus = prometheus
        self._kept_at: datetime | None = None
        self._reviewed: object = None  # the policy and the pauses under which every wake was reviewed

    async def step(self) -> bool:
        """One round. True when more may be due."""
        policy = self._policy()
        if self._prometheus is not None and all(route.confirm is None for route in policy.routes):
            return False
        await self._keep_holds(self._clock.now())
        await self._review(policy)
        try:
            return await self._round(policy)
        except Exception as error:
            if is_temporary(error) or not await self._one_at_a_time(policy):
                raise
            return True

    async def _keep_holds(self, now: datetime) -> None:
        if self._kept_at is None or now - self._kept_at >= EVERY:
            await with_retries(self._engine, lambda conn: keep_holds(conn, now))
            self._kept_at = now

    async def _review(self, policy: Policy) -> None:
        """Make every group with a wake due, once for each policy and set of pauses. So a shorter cooldown or pause counts at
        once, and so does a route that came back. It has its own transactions, because a decision locks routes first."""
        async with one_statement(self._engine) as conn:
            reviewed = policy.hash, frozenset((await pauses.read(conn)).values())
        if self._reviewed == reviewed:
            return
        parameters: dict[str, Any] = {"now": self._clock.now(), "most": _REVIEWED} | self._own(policy)
        after: str | None = ""
        while after is not None:
            async with transaction(self._engine) as conn:
                keys = (await conn.execute(_REVIEW, parameters | {"after": after})).scalars().all()
            after = max(keys) if len(keys) == _REVIEWED else None
        self._reviewed = reviewed

    async def _one_at_a_time(self, policy: Policy) -> bool:
        """After a failed round, decide the due groups one by one: a group that cannot be decided must not stop the others.
        It is tried again after a minute. False: no group failed alone."""
        async with transaction(self._engine) as conn:
            due = [row.key for row in await self._are_due(conn, policy, self._clock.now())]

        async def decide(key: str) -> None:
            await self._round(policy, key)

        failed = await each_alone(due, decide, lambda key: {"group_key": key}, "a group cannot be decided")
        if failed:
            loop = "waker" if self._prometheus is None else "confirmer"
            self._core.metrics.items_failed.labels(loop).inc(len(failed))
            now = self._clock.now()
            async with transaction(self._engine) as conn:
                for key, _ in failed:
                    await conn.execute(_PUT_OFF, {"key": key, "now": now, "later": now + _PAUSE})
        return bool(failed)

    async def _round(self, policy: Policy, only: str | None = None) -> bool:
        heard = await self._ask(policy, only) if self._prometheus is not None else {}
        if self._policy().hash != policy.hash:
            return True  # The policy changed meanwhile: ask again under the new one.
        await self._keep_holds(self._clock.now())  # The question may have taken long.
        return await self._decide(policy, heard, only)

    async def _ask(self, policy: Policy, only: str | None) -> dict[str, HeardAnswer]:
        """Ask Prometheus about the groups that would fire if it confirmed them. No transaction is open meanwhile."""
        ledger = store.new_ledger(self._core, policy, self._clock.now())
        async with transaction(self._engine) as conn:  # It only reads.
            groups = ledger.questions(await self._due(conn, ledger.books, only))
        answers = await all_of(self._answer(policy, group) for group in groups)
        return {g.key: HeardAnswer(g.facts_version, answer) for g, answer in zip(groups, answers, strict=True)}

    async def _answer(self, policy: Policy, group: Group) -> Confirmation:
        route = policy.route(group.route)
        if route is None or route.confirm is None or self._prometheus is None:
            raise ValueError(f"the route {group.route} has no `confirm`")
        outcome, answer = await self._prometheus.ask(route.confirm, render_query(route.confirm.query, group.labels))
        self._metrics.confirms.labels(route.name, outcome).inc()
        return answer

    async def _are_due(
        self, conn: AsyncConnection, policy: Policy, now: datetime, only: str | None = None
    ) -> Sequence[Row[Any]]:
        """The groups that are due. A route that this policy lacks may be new: then a replica that knows it decides."""
        parameters = {"now": now, "watched": now - GAP, "most": _ROUND, "only": only, "known": None} | self._own(policy)
        due = (await conn.execute(_DUE, parameters)).all()
        known = {f"{route.mode} {route.name}" for route in policy.routes}
        if all(f"{row.mode} {row.route}" in known for row in due) or not await is_behind(conn, self._core, now):
            return due
        return (await conn.execute(_DUE, parameters | {"known": sorted(known)})).all()

    def _own(self, policy: Policy) -> dict[str, Any]:
        """Which groups this Waker decides: those whose route asks Prometheus, or all others."""
        asking = [route.name for route in policy.routes if route.confirm is not None]
        return {"asking": asking, "ask": self._prometheus is not None}

    async def _due(self, conn: AsyncConnection, books: Books, only: str | None) -> list[str]:
        """Lock and read the groups that are due, and read the pauses. Returns their keys."""
        due = await self._are_due(conn, books.policy, books.now, only)
        if not due:
            return []
        books.pauses = await pauses.in_force(conn)
        # Every flow locks routes before groups.
        books.fires = await store.lock_routes(conn, books.policy, (row.route for row in due), books.now)
        return await _take(conn, books, due)

    async def _decide(self, policy: Policy, heard: Mapping[str, HeardAnswer], only: str | None) -> bool:
        """Decide the due groups in one transaction. True: more may be due."""
        ledger = store.new_ledger(self._core, policy, self._clock.now())
        books = ledger.books
        async with transaction(self._engine) as conn:
            keys = await self._due(conn, books, only)
            if not keys:
                return False
            for key in heard.keys() & keys:
                ledger.hear(key, heard[key])
            for key in keys:
                ledger.wake(key)
            await store.save(conn, books)
            await _keep_answers(conn, books, heard)
        await self._aftermath.committed(ledger)
        still_due = any((at := books.groups[key].wake_at) is not None and at <= books.now for key in keys)
        return len(keys) == _ROUND or still_due
