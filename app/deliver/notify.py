"""Who is told of what becomes of a trigger, and when it is over: written in the transaction that finds out.

An incident is one event of one group, `<event>:<route>:<group>`; what goes wrong again while it is open is the same
incident. docs/contract.md says what ends each.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.notices.incidents import Incidents
from app.notices.model import Notice, Severity
from app.policy.core import Core

TRIGGER_DEAD: Final = "trigger_dead"
TRIGGER_WAITING: Final = "trigger_waiting"
TRIGGER_LOST: Final = "trigger_lost"
RUN_FAILED: Final = "run_failed"

_WHAT: Final[Mapping[str, tuple[Severity, str]]] = {
    TRIGGER_DEAD: (Severity.CRITICAL, "No retraining of {what}: its trigger is dead"),
    TRIGGER_WAITING: (Severity.ERROR, "The retraining of {what} waits for Airflow"),
    TRIGGER_LOST: (Severity.ERROR, "The retraining of {what} does not end"),
    RUN_FAILED: (Severity.WARNING, "The retraining of {what} failed"),
}
EVENTS: Final = tuple(_WHAT)


class Tell:
    """Opens and resolves the incidents of triggers. `trigger` is a row with at least id, route, group_key, group_labels."""

    def __init__(self, core: Core, notices: Incidents) -> None:
        self._policy = core.policies.current
        self._notices = notices

    async def wrong(self, conn: AsyncConnection, event: str, trigger: Any, detail: str, now: datetime) -> None:
        """This went wrong with the trigger."""
        severity, title = _WHAT[event]
        route, labels = trigger["route"], trigger["group_labels"]
        what = ", ".join([route, *(f"{name}={value}" for name, value in labels.items())])
        notice = Notice(
            key=_key(event, trigger),
            event=event,
            severity=severity,
            title=title.format(what=what),
            detail=detail,
            labels={**labels, "route": route},
            link=f"/api/v1/explain/{trigger['id']}",
        )
        await self._notices.open(conn, self._policy().receivers_of(event, route), notice, now)

    async def over(
        self, conn: AsyncConnection, events: tuple[str, ...], trigger: Any, detail: str, now: datetime
    ) -> None:
        """These are over for the trigger's group."""
        await self._notices.resolve_all(conn, [_key(event, trigger) for event in events], now, detail)


def _key(event: str, trigger: Any) -> str:
    return f"{event}:{trigger['route']}:{trigger['group_key'][:16]}"
