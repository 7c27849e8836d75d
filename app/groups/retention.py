"""Retention: delete history that is over and older than GATEWAY_RETENTION, in small batches that never wait for a lock.

A pass goes through the kinds of rows in order. For each kind it walks along an index, one page and one short transaction at
a time (app.kit.prune). Any number of replicas may do it at once.

Open things stay: an open alert, an open trigger, and the alerts and decisions of an open trigger. So do the newest trigger
of a group, because the group's row names it, the retrains that a group counts as without effect, and a trigger that a
decision still names. That is why alerts go first.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from app.kit.db import transaction
from app.kit.prune import Prune, by_id, one_batch
from app.policy.core import Core
from app.tables import QUIET_SINCE

# Open, or ended within the retention, or it is not known yet whether it helped.
_UNJUDGED = "EXISTS (SELECT FROM effects e WHERE e.trigger_id = t.id AND e.next_at IS NOT NULL)"
_YOUNG = f"(t.ended_at IS NULL OR t.ended_at >= :before OR {_UNJUDGED})"

# A sender that never sends "resolved" leaves its alert open. After a retention of silence the alert is closed, and it is
# deleted one retention later.
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

_ALERTS_PAGE = text(f"""
    SELECT id, {QUIET_SINCE} AS at FROM alerts
    WHERE closed_at IS NOT NULL AND {QUIET_SINCE} < :before AND ({QUIET_SINCE}, id) > (:at, :id)
    ORDER BY {QUIET_SINCE}, id LIMIT :most
""")
_ALERTS_LOCK = text(f"""
    SELECT id FROM alerts a
    WHERE id = ANY(CAST(:ids AS uuid[])) AND closed_at IS NOT NULL AND late_at IS NULL AND {QUIET_SINCE} < :before
      AND NOT EXISTS (
        SELECT FROM decisions d JOIN triggers t ON t.id = d.trigger_id WHERE d.alert = a.id AND {_YOUNG}
      ) AND NOT ({QUIET_SINCE} >= :watched AND EXISTS (
        SELECT FROM groups g WHERE g.key = a.group_key AND g.ineffective > 0
      )) FOR UPDATE SKIP LOCKED
""")

# Ids sort by time, so the old ones come first. The newest decision of an alert stays, and so do the decisions on the alert
# that name its trigger.
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
_TRIGGERS_LOCK = text(f"""
    SELECT id FROM triggers t WHERE id = ANY(CAST(:ids AS uuid[])) AND ended_at < :before
      AND NOT {_UNJUDGED} AND NOT EXISTS (SELECT FROM decisions d WHERE d.trigger_id = t.id)
      AND NOT EXISTS (SELECT FROM alerts a WHERE a.trigger_id = t.id)
      AND NOT EXISTS (
        SELECT FROM groups g WHERE g.key = t.group_key
          AND (t.id IN (g.last_trigger, g.open_trigger) OR (g.ineffective > 0 AND t.fired_at >= g.ineffective_since))
      )
    FOR UPDATE SKIP LOCKED
""")

_OF_A_TRIGGER = (by_id("attempts", "item"), by_id("outbox"), by_id("effects", "trigger_id"), by_id("triggers"))

#: In this order, because a trigger can go only when no other row names it.
PRUNES: Final = (
    Prune("silent alerts", _SILENT_PAGE, _SILENT, start={"fingerprint": ""}),
    Prune(
        "alerts", _ALERTS_PAGE, _ALERTS_LOCK, (by_id("decisions", "alert"), by_id("heard", "alert"), by_id("alerts"))
    ),
    Prune("decisions", _DECISIONS_PAGE, _DECISIONS_LOCK, (by_id("decisions"),)),
    Prune("triggers", _TRIGGERS_PAGE, _TRIGGERS_LOCK, _OF_A_TRIGGER),
)


class Retention:
    """`step()` deletes one batch of one of `prunes`. `keep` is GATEWAY_RETENTION in seconds; zero means: delete nothing."""

    def __init__(
        self,
        core: Core,
        prunes: Sequence[Prune],
        *,
        keep: float,
        batch: int = 500,
    ) -> None:
        self._core = core
        self._prunes = prunes
        self._keep = timedelta(seconds=keep)
        self._batch = batch
        self._turn = 0
        self._place = prunes[0].start

    async def step(self) -> bool:
        """One batch. False: the pass is over. A walk that fails ends for this pass, and the next walk goes on."""
        if not self._keep:
            return False
        prune = self._prunes[self._turn]
        now = self._core.clock.now()
        routes = self._core.policy.routes
        # A limit counts triggers of its whole period. An alert counts as open until `stale_after`, however long that is.
        keep = max([self._keep, *(route.limit.per for route in routes if route.limit)])
        stale = max([keep, *(route.stale_after for route in routes)])
        # A group that retraining does not help fires again when no alert of it began for so long.
        watched = now - max((route.effect.watch for route in routes), default=timedelta(0))
        times = {"now": now, "before": now - keep, "stale": now - stale, "watched": watched}
        try:
            async with transaction(self._core.engine) as conn:
                following, deleted = await one_batch(conn, prune, self._place, times, self._batch)
        except Exception as error:
            error.add_note(f"while old rows were pruned: {prune.name}")
            self._next()
            raise
        for table, rows in deleted.items():
            self._core.metrics.pruned.labels(table).inc(rows)
        if following is not None:
            self._place = following
            return True
        return self._next()

    def _next(self) -> bool:
        """Begin the next walk. False: the pass is over, and the next walk is the first of a new pass."""
        self._turn = (self._turn + 1) % len(self._prunes)
        self._place = self._prunes[self._turn].start
        return self._turn != 0
