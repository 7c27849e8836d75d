"""What follows a commit that decided something, on every path: log, metrics, bells, memory.

    intake  wakes  requests  cancels  schedules  redrives
       \\      \\       |        |        /         /
                  Aftermath.committed(ledger)

The metric of decisions counts the rows that the pass wrote into `decisions`: a new decision on an alert, or the answer to a
request or a schedule. A repeat only raises the count of its row, so the metric does not count it again.
"""

import logging
from collections import Counter

from app.decide.books import Books
from app.decide.ledger import Ledger
from app.decide.state import TriggerState
from app.groups.memory import Memory
from app.policy.core import Core

log = logging.getLogger(__name__)


class Aftermath:
    """All paths of a process share one."""

    def __init__(self, core: Core, memory: Memory) -> None:
        self._core = core
        self._memory = memory

    async def committed(self, ledger: Ledger) -> None:
        """Do everything that follows the commit of this ledger. Never raises: the decision is durable, and must not be taken
        again because a line of the log failed."""
        try:
            _log(ledger.books)
            self._count(ledger.books)
            self._ring(ledger.books)
            await self._remember(ledger.books)
        except Exception:
            log.exception("a decision is committed, but its log, metrics, bells or memory failed")

    def _count(self, books: Books) -> None:
        metrics = self._core.metrics
        alike = Counter((row.route or "", row.action, row.reason) for row in books.decisions)
        for labels, number in alike.items():
            metrics.decisions.labels(*labels).inc(number)
        for trigger in books.triggers.values():
            if trigger.rehearsed:
                metrics.shadow_triggers.labels(trigger.group.route).inc()

    def _ring(self, books: Books) -> None:
        bells = self._core.bells
        if any(trigger.state is TriggerState.PENDING for trigger in books.triggers.values()):
            bells.relay.ring()
        if any(group.wake_at is not None and group.wake_at <= books.now for group in books.groups.values()):
            bells.waker.ring()
            bells.confirmer.ring()

    async def _remember(self, books: Books) -> None:
        if books.groups or books.latest:
            versions = {key: group.version for key, group in books.groups.items()}
            episodes = [(e, versions.get(e.group_key or "", 0)) for e in books.latest.values()]
            await self._memory.remember(books.groups.values(), episodes)


def _log(books: Books) -> None:
    """One line for each trigger that the pass made, fired or cancelled. A search for its id finds its whole story."""
    for trigger in books.triggers.values():
        extra = {
            "trigger_id": str(trigger.id),
            "route": trigger.group.route,
            "group": trigger.group.labels,
            "reason": str(trigger.reason),
            "detail": trigger.detail,
        }
        log.info("trigger %s", trigger.state, extra=extra)
