"""What people and metrics are told of a promotion, in the transaction that ended it."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.metrics import Metrics
from app.notices.model import Notice, Severity
from app.notices.telling import Notices
from app.promotion import store
from app.promotion.store import Promotion

EVENT: Final = "promotion_blocked"
_DONE: Final = ("promoted", "rolled_back", "unchanged")


class Telling:
    """A refusal opens an incident of its version and mark, told again every `repeat`; the next promotion to that mark
    resolves it."""

    def __init__(
        self,
        notices: Notices,
        receivers: Callable[[], tuple[str, ...]],
        metrics: Metrics,
        repeat: timedelta | None,
    ) -> None:
        self._notices = notices
        self._receivers = receivers
        self._metrics = metrics
        self._repeat = repeat

    async def ended(self, conn: AsyncConnection, row: Promotion, now: datetime) -> None:
        """Tell of a row that is not open any more. Rehearsals are nobody's incident."""
        self._metrics.promotions.labels(row.state).inc()
        if row.dry_run or row.mode == "shadow":
            return
        if row.state in store.REFUSED:
            await self._notices.open(conn, self._receivers(), _notice(row), now, self._repeat)
        elif row.state in _DONE:
            keys = [key_of(row, version) for version in await store.refused_versions(conn, row)]
            if keys:
                await self._notices.resolve_all(conn, keys, now, row.detail)

    def open_now(self, number: int) -> None:
        """How many changes are not settled."""
        self._metrics.promotions_open.set(number)


def key_of(row: Promotion, version: str) -> str:
    """The key of the incident that a version was refused a mark. Names may be long, so they are hashed."""
    named = "\0".join((row.registry, row.model, row.mark, version))
    return f"promotion:{hashlib.sha256(named.encode()).hexdigest()[:32]}"


def _notice(row: Promotion) -> Notice:
    failed = [f"{one['rule']}: {one['detail']}" for one in row.verdicts if not one["passed"]]
    words = {"blocked": "blocked", "lost": "overtaken", "undone": "undone", "unreadable": "not judged"}
    return Notice(
        key=key_of(row, row.version),
        event=EVENT,
        severity=Severity.WARNING,
        title=f"The promotion of {row.model} {row.version} to {row.mark} was {words[row.state]}",
        detail="; ".join(failed)[:1000] or row.detail,
        labels={"model": row.model, "version": row.version, "to": row.mark, "promotion": str(row.id)},
    )
