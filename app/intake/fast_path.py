"""The fast path: memory answers the alerts whose decision is unchanged. One statement counts them and proves that memory
was up to date.

This statement runs alone, before the transaction that decides the rest of the batch. If that transaction also counted the
repeats, it would lock alerts out of order. Then two batches could wait for each other until Postgres ends one of them.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError

from app.decide.batch import AlertDecision, Fold
from app.decide.ledger import Ledger
from app.decide.repeats import known_of
from app.decide.state import Episode, Group
from app.groups.heard import KEEP_REPEATS
from app.groups.memory import Memory
from app.intake.stages import Stages
from app.kit.db import LOCK_TIMEOUT, TRY_AGAIN, one_statement, sqlstate
from app.policy.core import Core

_COUNTED = """
    WITH v AS (
        SELECT * FROM unnest(
            CAST(:ids AS uuid[]), CAST(:decisions AS uuid[]), CAST(:spent AS boolean[]), CAST(:times AS bigint[])
        ) AS v(id, decision_id, spent, times)
    ), locked AS (
        SELECT a.id, v.times, a.last_seen_at, a.first_seen_at, a.firing_since
        FROM alerts a JOIN v USING (id, decision_id, spent)
        WHERE a.closed_at IS NULL ORDER BY a.fingerprint FOR NO KEY UPDATE OF a
    ), fresh AS (
        SELECT (SELECT count(*) FROM locked) = (SELECT count(*) FROM v) AND NOT EXISTS (
            SELECT FROM unnest(CAST(:keys AS text[]), CAST(:versions AS bigint[]), CAST(:nonces AS text[]))
            AS m(key, version, nonce)
            LEFT JOIN groups g ON g.key = m.key AND g.version = m.version AND g.nonce = m.nonce WHERE g.key IS NULL
        ) AS yes
    ), counted AS (
        UPDATE alerts a SET count = a.count + l.times, decision_count = a.decision_count + l.times, last_seen_at = :now
        FROM locked l WHERE a.id = l.id AND (SELECT yes FROM fresh)
    )
"""
_COUNT = text(f"{_COUNTED} SELECT yes FROM fresh")
_COUNT_AND_KEEP = text(f"{_COUNTED}, kept AS ({KEEP_REPEATS}) SELECT yes FROM fresh")
_MOST_COUNTED = 100_000


class FastPath:
    """Call `answer(folds, ledger)` before anything of a batch is decided in Postgres."""

    def __init__(self, core: Core, memory: Memory, stages: Stages) -> None:
        self._engine, self._metrics = core.engine, core.metrics
        self._memory = memory
        self._stages = stages
        self._minute = 0
        self._counted: set[tuple[UUID, datetime]] = set()  # the episodes that were counted in this minute

    async def answer(self, folds: Sequence[Fold], ledger: Ledger) -> dict[int, AlertDecision]:
        """The answers that memory has, by their position in the batch; their repeats are counted and durable. Empty when
        memory was behind Postgres or the statement lost a race: then the whole batch must be decided. Raises the errors of
        Postgres."""
        keys = list({f.intent.key for f in folds if f.intent.key is not None})
        prints = list({f.intent.alert.fingerprint for f in folds})
        self._stages.enter("memory")
        groups, episodes = await self._memory.read(keys, prints)
        self._stages.enter("decide")
        known = known_of(folds, groups, episodes, ledger) if episodes else []
        if not known:
            return {}
        try:
            if not await self._count([fold for fold, _ in known], groups, episodes, ledger):
                self._metrics.memory_stale.inc()
                return {}
        except DBAPIError as error:
            if sqlstate(error) == LOCK_TIMEOUT:
                self._stages.was_a_lock()
            if sqlstate(error) not in TRY_AGAIN:
                raise
            self._stages.in_doubt = False
            self._metrics.batch_retries.inc()
            return {}
        return {at: answer for fold, answer in known for at in fold.positions}

    async def _count(
        self, folds: list[Fold], groups: dict[str, Group], episodes: dict[str, Episode], ledger: Ledger
    ) -> bool:
        """Count all of the repeats, or none: so it needs no transaction around it. False: nothing is counted, because an
        episode is closed, is spent meanwhile or has another decision now, or a group has another version."""
        times: Counter[tuple[UUID, UUID | None, bool]] = Counter()
        for fold in folds:
            episode = episodes[fold.intent.alert.fingerprint]
            times[episode.id, episode.decision_id, episode.spent] += len(fold.positions)
        named = {(e.id, e.firing_since) for e in (episodes[fold.intent.alert.fingerprint] for fold in folds)}
        used = [groups[key] for key in {fold.intent.key for fold in folds} if key is not None]
        self._stages.enter("pool")
        async with one_statement(self._engine) as conn:
            self._stages.enter("statement", conn)
            self._stages.in_doubt = True  # The statement is a transaction by itself.
            counted = await conn.execute(
                self._statement(named, ledger),
                {
                    "ids": [episode for episode, _, _ in times],
                    "decisions": [decision_id for _, decision_id, _ in times],
                    "spent": [spent for _, _, spent in times],
                    "times": list(times.values()),
                    "now": ledger.now,
                    "keys": [g.key for g in used],
                    "versions": [g.version for g in used],
                    "nonces": [g.nonce for g in used],
                },
            )
            fresh = bool(counted.scalar_one())
        self._stages.enter("decide")
        self._stages.in_doubt = fresh
        if fresh:
            self._counted |= named
        return fresh

    def _statement(self, named: set[tuple[UUID, datetime]], ledger: Ledger) -> TextClause:
        """Within a minute the rows of these episodes forget nothing that a replay needs: counting them is enough."""
        minute = int(ledger.now.timestamp()) // 60
        if minute != self._minute or len(self._counted) > _MOST_COUNTED:
            self._minute, self._counted = minute, set()
        return _COUNT if not ledger.books.records or named <= self._counted else _COUNT_AND_KEEP
