"""What a walk through MLflow opens and ends. Orphans have one incident a kind, so that the first walk through an old MLflow
sends six notices, not thousands. The incidents of a promotion end when somebody moved its alias in MLflow itself."""

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
    """Opens one incident for each kind that has orphans, and resolves it when there are none left. Each method runs in the
    transaction that ends a round of the survey: its lock keeps every other replica out."""

    def __init__(self, core: Core, notices: Incidents) -> None:
        self._policy = core.policies.current
        self._notices = notices

    async def open_or_resolve(self, conn: AsyncConnection, now: datetime) -> None:
        """Judge each kind, as the round has left it."""
        for kind, count in (await store.count_orphans(conn)).items():
            key = f"{EVENT}:{kind}"
            if not count:
                await self._notices.resolve(conn, key, now, "no orphan of this kind is left")
                continue
            (first,) = await store.list_orphans(conn, kind, None, 1)
            detail = f"{count} found, such as: {first['detail']}. `trigger-gateway lineage --orphans` lists them."
            notice = Notice(key, EVENT, Severity.WARNING, _TITLES[kind], detail, {"kind": kind}, page("house"))
            await self._notices.open(conn, self._policy().receivers_of(EVENT), notice, now)

    async def end_moved(self, conn: AsyncConnection, began: datetime, now: datetime) -> None:
        """Resolve the incidents of promotions whose alias somebody moved in MLflow itself, as a round that left nothing out
        saw it. It began at `began`."""
        for row in await store.moved(conn, began):
            holder = f"version {row['holder']}" if row["holder"] else "no version"
            detail = f"{holder} holds {row['alias']} in MLflow: somebody moved it there"
            await self._notices.resolve(conn, row["key"], now, detail)
