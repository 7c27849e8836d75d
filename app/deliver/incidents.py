"""The incidents of triggers. Each is opened and resolved in the transaction that finds out.

An incident is one event of one group, `<event>:<route>:<group>`. What goes wrong again while it is open is the same
incident. docs/contract.md says what ends each.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.notices.model import Notice, Severity
from app.notices.telling import Notices
from app.policy.schema import Policy

TRIGGER_DEAD: Final = "trigger_dead"
TRIGGER_WAITING: Final = "trigger_waiting"
TRIGGER_LOST: Final = "trigger_lost"
RUN_FAILED: Final = "run_failed"

_TITLES: Final[Mapping[str, tuple[Severity, str]]] = {
    TRIGGER_DEAD: (Severity.CRITICAL, "No retraining of {group}: its trigger is dead"),
    TRIGGER_WAITING: (Severity.ERROR, "The retraining of {group} waits for Airflow"),
    TRIGGER_LOST: (Severity.ERROR, "The retraining of {group} does not end"),
    RUN_FAILED: (Severity.WARNING, "The retraining of {group} failed"),
}
EVENTS: Final = tuple(_TITLES)


class Incidents:
    """Opens and resolves the incidents of triggers. `trigger` is a row with at least id, route, group_key, group_labels."""

    def __init__(self, notices: Notices, policy: Callable[[], Policy], repeat: timedelta | None) -> None:
        self._notices = notices
        self._policy = policy
        self._repeat = repeat

    async def open(self, conn: AsyncConnection, event: str, trigger: Any, detail: str, now: datetime) -> None:
        """Open the incident of this event for the trigger's group, unless it is open already."""
        severity, title = _TITLES[event]
        route, labels = trigger["route"], trigger["group_labels"]
        group = ", ".join([route, *(f"{name}={value}" for name, value in labels.items())])
        notice = Notice(
            key=_key(event, trigger),
            event=event,
            severity=severity,
            title=title.format(group=group),
            detail=detail,
            labels={**labels, "route": route},
            link=f"/api/v1/explain/{trigger['id']}",
        )
        await self._notices.open(conn, self._policy().told(event, route), notice, now, self._repeat)

    async def resolve(
        self, conn: AsyncConnection, events: tuple[str, ...], trigger: Any, detail: str, now: datetime
    ) -> None:
        """Resolve the incidents of these events that are open for the trigger's group."""
        await self._notices.resolve_all(conn, [_key(event, trigger) for event in events], now, detail)


def _key(event: str, trigger: Any) -> str:
    return f"{event}:{trigger['route']}:{trigger['group_key'][:16]}"
