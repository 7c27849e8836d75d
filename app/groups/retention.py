"""History ends: what is over and older than GATEWAY_RETENTION is deleted, in small batches that wait for nobody.

A pass goes through the stages below in their order. Each walks along an index from where it stopped, a page at a time: one
short transaction that locks what it deletes, skips what somebody else has locked, and judges the rows again under the
lock. Any number of replicas may do it at once.

What is open is never deleted: an open alert, whatever is behind an open trigger, an open trigger. Nor is the newest trigger
of a group, which the group's state names, nor a trigger that a decision still names: alerts go first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.db import transaction
from app.policy.core import Core

Place = Mapping[str, Any]  # of a walk: where the next page begins

_YOUNG = "(t.ended_at IS NULL OR t.ended_at >= :before)"  # open, or ended within the retention

# A sender that never says "resolved" leaves its alert open. Stale for that long it is over: closed now, deleted one
# retention later.
_SILENT_PAGE = text("""
    SELECT id, fingerprint FROM alerts WHERE closed_at IS NULL AND fingerprint > :fingerprint
    ORDER BY fingerprint LIMIT :most
""")
_SILENT = text(f"""
    UPDATE alerts SET closed_at = :now, status = 'resolved' WHERE id IN (
        SELECT id FROM alerts a WHERE id = ANY(CAST(:ids AS uuid[])) AND closed_at IS NULL AND last_seen_at < :stale
          AND NOT EXISTS (
            SELECT FROM decisions d JOIN triggers t ON t.id = d.trigger_id WHERE d.alert = a.id AND {_YOUNG}
          ) FOR UPDATE SKIP LOCKED
    ) RETURNING id
""")

_QUIET = "greatest(closed_at, resolved_at, late_at)"
_ALERTS_PAGE = text(f"""
    SELECT id, {_QUIET} AS at FROM alerts
    WHERE closed_at IS NOT NULL AND {_QUIET} < :before AND ({_QUIET}, id) > (:at, :id)
    ORDER BY {_QUIET}, id LIMIT :most
""")
_ALERTS_LOCK = text(f"""
    SELECT id FROM alerts a
    WHERE id = ANY(CAST(:ids AS uuid[])) AND closed_at IS NOT NULL AND late_at IS NULL AND {_QUIET} < :before
      AND NOT EXISTS (
        SELECT FROM decisions d JOIN triggers t ON t.id = d.trigger_id WHERE d.alert = a.id AND {_YOUNG}
      ) FOR UPDATE SKIP LOCKED
""")

# Ids sort by their making, so that the old ones come first. What an open alert was decided at last, and what is told of
# its trigger, stays.
_DECISIONS_PAGE = text("SELECT id, first_at AS at FROM decisions WHERE id > :id ORDER BY id LIMIT :most")
_DECISIONS_LOCK = text(f"""
    SELECT d.id FROM decisions d LEFT JOIN alerts a ON a.id = d.alert
    WHERE d.id = ANY(CAST(:ids AS uuid[])) AND d.last_at < :before
      AND (a.id IS NULL OR a.decision_id <> d.id)
      AND (d.trigger_id IS NULL OR a.trigger_id IS NULL OR d.trigger_id <> a.trigger_id)
      AND NOT EXISTS (SELECT FROM triggers t WHERE t.id = d.trigger_id AND {_YOUNG})
    FOR UPDATE OF d SKIP LOCKED
""")

_TRIGGERS_PAGE = text("""
    SELECT id, ended_at AS at FROM triggers
    WHERE ended_at IS NOT NULL AND ended_at < :before AND (ended_at, id) > (:at, :id)
    ORDER BY ended_at, id LIMIT :most
""")
_TRIGGERS_LOCK = text("""
    SELECT id FROM triggers t WHERE id = ANY(CAST(:ids AS uuid[])) AND ended_at < :before
      AND NOT EXISTS (SELECT FROM decisions d WHERE d.trigger_id = t.id)
      AND NOT EXISTS (SELECT FROM alerts a WHERE a.trigger_id = t.id)
      AND NOT EXISTS (SELECT FROM groups g WHERE g.key = t.group_key AND t.id IN (g.last_trigger, g.open_trigger))
    FOR UPDATE SKIP LOCKED
""")

_AUDIT_PAGE = text("SELECT id, at FROM audit WHERE id > :id ORDER BY id LIMIT :most")
_AUDIT_LOCK = text("SELECT id FROM audit WHERE id = ANY(CAST(:ids AS uuid[])) AND at < :before FOR UPDATE SKIP LOCKED")

_QUARANTINE_PAGE = text("""
    SELECT sha256 AS id, last_at AS at FROM quarantine WHERE last_at < :before AND (last_at, sha256) > (:at, :id)
    ORDER BY last_at, sha256 LIMIT :most
""")
_QUARANTINE_LOCK = text("""
    SELECT sha256 AS id FROM quarantine WHERE sha256 = ANY(CAST(:ids AS text[])) AND last_at < :before FOR UPDATE SKIP LOCKED
""")


# An incident whose end was not told yet stays, however long its receiver is away.
_NOTICES_PAGE = text("""
    SELECT id, resolved_at AS at FROM notices
    WHERE resolved_at IS NOT NULL AND resolved_at < :before AND (resolved_at, id) > (:at, :id)
    ORDER BY resolved_at, id LIMIT :most
""")
_NOTICES_LOCK = text("""
    SELECT id FROM notices n WHERE id = ANY(CAST(:ids AS uuid[])) AND resolved_at < :before
      AND NOT EXISTS (
        SELECT FROM tellings t JOIN outbox o ON o.id IN (t.open_item, t.resolve_item)
        WHERE t.notice = n.id AND o.state = 'pending'
      ) FOR UPDATE SKIP LOCKED
""")
_ITEMS_OF_NOTICES = """(
    SELECT unnest(ARRAY[open_item, resolve_item]) FROM tellings WHERE notice = ANY(CAST(:ids AS uuid[]))
)"""


def _delete(table: str, column: str = "id", kind: str = "uuid") -> tuple[str, TextClause]:
    return table, text(f"DELETE FROM {table} WHERE {column} = ANY(CAST(:ids AS {kind}[]))")


@dataclass(frozen=True, slots=True)
class _Stage:
    """`page` reads the next rows of a walk that begins at `start`; `lock` locks those of them that may go; `deletes` are
    what goes with them, by their ids, the rows themselves last."""

    start: Place
    page: TextClause
    lock: TextClause
    deletes: tuple[tuple[str, TextClause], ...] = ()


_BEGINNING = {"at": datetime(1970, 1, 1, tzinfo=UTC), "id": UUID(int=0)}
_STAGES = (
    _Stage({"fingerprint": ""}, _SILENT_PAGE, _SILENT),
    _Stage(_BEGINNING, _ALERTS_PAGE, _ALERTS_LOCK, (_delete("decisions", "alert"), _delete("alerts"))),
    _Stage(_BEGINNING, _DECISIONS_PAGE, _DECISIONS_LOCK, (_delete("decisions"),)),
    _Stage(
        _BEGINNING,
        _TRIGGERS_PAGE,
        _TRIGGERS_LOCK,
        (_delete("attempts", "item"), _delete("outbox"), _delete("triggers")),
    ),
    _Stage(
        _BEGINNING,
        _NOTICES_PAGE,
        _NOTICES_LOCK,
        (
            ("attempts", text(f"DELETE FROM attempts WHERE item IN {_ITEMS_OF_NOTICES}")),
            ("outbox", text(f"DELETE FROM outbox WHERE id IN {_ITEMS_OF_NOTICES}")),
            _delete("tellings", "notice"),
            _delete("notices"),
        ),
    ),
    _Stage(_BEGINNING, _AUDIT_PAGE, _AUDIT_LOCK, (_delete("audit"),)),
    _Stage(
        _BEGINNING | {"id": ""}, _QUARANTINE_PAGE, _QUARANTINE_LOCK, (_delete("quarantine", "sha256", kind="text"),)
    ),
)


class Retention:
    """`step()` does one batch. `keep` is GATEWAY_RETENTION in seconds; zero keeps everything for ever."""

    def __init__(self, core: Core, *, keep: float, batch: int = 500) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._keep = timedelta(seconds=keep)
        self._batch = batch
        self._stage = 0
        self._place = _STAGES[0].start

    async def step(self) -> bool:
        """One batch of one stage. False: the pass is over."""
        if not self._keep:
            return False
        stage = _STAGES[self._stage]
        now = self._clock.now()
        routes = self._policy().routes
        # A limit counts triggers, and what still fires by the policy is open however long it has been silent.
        keep = max([self._keep, *(route.limit.per for route in routes if route.limit)])
        stale = max([keep, *(route.stale_after for route in routes)])
        times = {"now": now, "before": now - keep, "stale": now - stale}
        async with transaction(self._engine) as conn:
            following, deleted = await _prune(conn, stage, self._place, times, self._batch)
        for table, rows in deleted.items():
            self._metrics.pruned.labels(table).inc(rows)
        if following is not None:
            self._place = following
            return True
        self._stage = (self._stage + 1) % len(_STAGES)
        self._place = _STAGES[self._stage].start
        return self._stage != 0


async def _prune(
    conn: AsyncConnection, stage: _Stage, place: Place, times: Mapping[str, datetime], most: int
) -> tuple[Place | None, dict[str, int]]:
    """The place to go on from (None: nothing old is left) and the rows deleted by table."""
    names = stage.page.compile().params
    parameters = {name: value for name, value in {**times, **place, "most": most}.items() if name in names}
    page = (await conn.execute(stage.page, parameters)).mappings().all()
    if not page:
        return None, {}
    names = stage.lock.compile().params
    parameters = {name: value for name, value in times.items() if name in names}
    found = await conn.execute(stage.lock, parameters | {"ids": [row["id"] for row in page]})
    ids = found.scalars().all()
    deleted = {}
    if ids:
        for table, statement in stage.deletes:
            deleted[table] = (await conn.execute(statement, {"ids": ids})).rowcount
    last = page[-1]
    is_last = len(page) < most or ("at" in last and last["at"] >= times["before"])
    return (None if is_last else {name: last[name] for name in place}), deleted
