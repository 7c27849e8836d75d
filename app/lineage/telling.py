"""Who is told of orphans: one incident a kind, so that the first walk over an old MLflow is six messages, not thousands."""

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.lineage import store
from app.lineage.rules import Kind
from app.notices.incidents import Incidents
from app.notices.model import Notice, Severity
from app.policy.core import Core

EVENT: Final = "orphan"
_TITLES: Final = {
    Kind.VERSION_WITHOUT_RUN: "Model versions whose run is not there",
    Kind.RUN_WITHOUT_DAG_RUN: "Runs in MLflow that no DAG run is known of",
    Kind.RUN_WITHOUT_GIT_COMMIT: "Runs in MLflow without a git commit",
    Kind.RUN_WITHOUT_METRICS: "Runs in MLflow without a metric",
    Kind.TRIGGER_WITHOUT_RUN: "DAG runs that succeeded and left no run in MLflow",
    Kind.ALIAS_TO_DELETED_VERSION: "Aliases that name a version which is not there",
}


class Telling:
    """`round_ended` opens an incident of each kind that has orphans, told again every `repeat`, and resolves those that have
    none any more."""

    def __init__(self, core: Core, notices: Incidents) -> None:
        self._policy = core.policies.current
        self._notices = notices

    async def round_ended(self, conn: AsyncConnection, now: datetime) -> None:
        """In the transaction that ends a round of the survey, whose lock makes it the only one."""
        for kind, count in (await store.count_orphans(conn)).items():
            key = f"{EVENT}:{kind}"
            if not count:
                await self._notices.resolve(conn, key, now, "nothing of this kind lacks its lineage any more")
                continue
            (first,) = await store.list_orphans(conn, kind, None, 1)
            detail = f"{count}; for one, {first['detail']}. `trigger-gateway lineage --orphans` lists them."
            notice = Notice(key, EVENT, Severity.WARNING, _TITLES[kind], detail, {"kind": kind})
            await self._notices.open(conn, self._policy().receivers_of(EVENT), notice, now)
