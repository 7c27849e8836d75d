"""The incidents of orphans: one a kind, so that the first walk through an old MLflow sends six notices, not thousands."""

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.links import page
from app.lineage import store
from app.lineage.rules import Kind
from app.notices.incidents import Incidents
from app.notices.model import Notice, Severity
from app.policy.core import Core

EVENT: Final = "orphan"
_TITLES: Final = {
    Kind.VERSION_WITHOUT_RUN: "Model versions whose run does not exist",
    Kind.RUN_WITHOUT_DAG_RUN: "Runs in MLflow without a known DAG run",
    Kind.RUN_WITHOUT_GIT_COMMIT: "Runs in MLflow without a git commit",
    Kind.RUN_WITHOUT_METRICS: "Runs in MLflow without a metric",
    Kind.TRIGGER_WITHOUT_RUN: "DAG runs that succeeded without a run in MLflow",
    Kind.ALIAS_TO_DELETED_VERSION: "Aliases of a version that does not exist",
}


class OrphanIncidents:
    """Opens one incident for each kind that has orphans, and resolves it when there are none left."""

    def __init__(self, core: Core, notices: Incidents) -> None:
        self._policy = core.policies.current
        self._notices = notices

    async def open_or_resolve(self, conn: AsyncConnection, now: datetime) -> None:
        """Call this in the transaction that ends a round of the survey: its lock keeps every other replica out."""
        for kind, count in (await store.count_orphans(conn)).items():
            key = f"{EVENT}:{kind}"
            if not count:
                await self._notices.resolve(conn, key, now, "no orphan of this kind is left")
                continue
            (first,) = await store.list_orphans(conn, kind, None, 1)
            detail = f"{count} found, such as: {first['detail']}. `trigger-gateway lineage --orphans` lists them."
            notice = Notice(key, EVENT, Severity.WARNING, _TITLES[kind], detail, {"kind": kind}, page("house"))
            await self._notices.open(conn, self._policy().receivers_of(EVENT), notice, now)
