"""What people and metrics are told of a promotion, in the transaction that ended it."""

import hashlib
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.notices.incidents import Incidents
from app.notices.model import Notice, Severity
from app.policy.core import Core
from app.promotion import store
from app.promotion.store import Promotion

EVENT: Final = "promotion_blocked"
_DONE: Final = ("promoted", "rolled_back", "unchanged")


class Telling:
    """A refusal opens an incident of its version, mark and reason, told again every `repeat`, in the place of one for
    another reason; the next promotion to that mark resolves all of them."""

    def __init__(self, core: Core, notices: Incidents) -> None:
        self._policy = core.policies.current
        self._metrics = core.metrics
        self._notices = notices

    async def ended(self, conn: AsyncConnection, row: Promotion, now: datetime, *, quiet: bool = False) -> None:
        """Tell of a row that is not open any more. Rehearsals are nobody's incident. `quiet`: this refusal is a normal day,
        told as `info`."""
        self._metrics.promotions.labels(row.state).inc()
        if row.dry_run or row.mode == "shadow":
            return
        if row.state in store.REFUSED:
            notice = _notice(row, Severity.INFO if quiet else Severity.WARNING)
            await self._notices.resolve_below(conn, _of_version(row), now, row.detail, but=notice.key)
            await self._notices.open(conn, self._policy().receivers_of("promotion_blocked"), notice, now)
        elif row.state in _DONE:
            await self._notices.resolve_below(conn, _of_mark(row), now, row.detail)


def _of_mark(row: Promotion) -> str:
    """How the keys of all incidents about a mark begin."""
    return f"promotion:{_hash(row.registry, row.model, row.mark)}:"


def _of_version(row: Promotion) -> str:
    return f"{_of_mark(row)}{_hash(row.version)}:"


def _hash(*parts: str) -> str:
    """Names and rules may be long."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _notice(row: Promotion, severity: Severity) -> Notice:
    failed = [f"{one['rule']}: {one['detail']}" for one in row.verdicts if not one["passed"]]
    words = {"blocked": "blocked", "lost": "overtaken", "undone": "undone", "unreadable": "not judged"}
    return Notice(
        key=_of_version(row) + _hash(row.state, *(one["rule"] for one in row.verdicts if not one["passed"])),
        event=EVENT,
        severity=severity,
        title=f"The promotion of {row.model} {row.version} to {row.mark} was {words[row.state]}",
        detail="; ".join(failed)[:1000] or row.detail,
        labels={"model": row.model, "version": row.version, "to": row.mark, "promotion": str(row.id)},
    )
