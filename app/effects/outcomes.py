"""The news that a DAG run ended well: its time, and the metrics of the model version that it made beside the champion's.

The end of the run writes when the news is due. It waits until the version is known, or MLflow was read since, but no longer
than PATIENCE. No transaction is open while MLflow is read. Any number of replicas may run the loop: each takes what is due,
and the one that clears `announce_at` sends.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.deliver.ending import run_time
from app.kit.db import transaction, with_retries
from app.kit.errors import TargetError
from app.kit.loop import each_alone
from app.lineage.store import SURVEY
from app.notices.incidents import Incidents
from app.notices.model import Notice, Severity
from app.policy.core import Core
from app.policy.language.durations import format_duration
from app.policy.receivers import RUN_SUCCEEDED
from app.policy.schema import Policy
from app.promotion.beside import Metrics, beside, in_words
from app.promotion.model import Registry

log = logging.getLogger(__name__)

#: How long the news waits for a version that nobody has seen yet.
PATIENCE: Final = timedelta(minutes=30)
LOOK: Final = timedelta(minutes=1)
MOST: Final = 10  # of one step, all at the same time
READ_WITHIN: Final = 20.0  # seconds for all reads of one version

# The time of the next look is written first: when this process dies, another one looks later.
_CLAIM = text("""
    UPDATE effects SET announce_at = :later WHERE trigger_id IN (
        SELECT trigger_id FROM effects WHERE announce_at <= :now ORDER BY announce_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) RETURNING trigger_id
""").columns(trigger_id=Uuid())
_DONE = text("UPDATE effects SET announce_at = NULL WHERE trigger_id = :id AND announce_at = :claimed")

# The newest version of its runs, and what the gate kept of it when somebody asked for its promotion.
_NEWS = text("""
    SELECT t.id, t.route, t.group_labels, t.accepted_at, t.started_at, t.ended_at, v.model, v.version,
        p.mark AS alias, p.state, p.previous, p.metrics,
        EXISTS (SELECT FROM surveys WHERE name = :survey AND began_at >= t.ended_at AND ended_at >= began_at) AS surveyed
    FROM triggers t
    LEFT JOIN LATERAL (
        SELECT v.model, v.version FROM runs r JOIN versions v ON v.run_id = r.run_id
        WHERE r.trigger_id = t.id AND NOT r.deleted ORDER BY v.created_at DESC, v.model, v.version DESC LIMIT 1
    ) seen ON true
    LEFT JOIN LATERAL (
        SELECT * FROM promotions p WHERE p.trigger_id = t.id AND p.metrics IS NOT NULL AND NOT p.dry_run
        ORDER BY p.state = 'promoted' DESC, p.ended_at DESC LIMIT 1
    ) p ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(p.model, seen.model) AS model, coalesce(p.version, seen.version) AS version
    ) v
    WHERE t.id = ANY(CAST(:ids AS uuid[]))
""").columns(id=Uuid(), group_labels=JSONB(), metrics=JSONB())


@dataclass(frozen=True, slots=True)
class _Made:
    """The version beside the champion. `before`: the version that holds the alias, or held it before this one."""

    metrics: Metrics
    before: str | None
    alias: str | None


class Outcomes:
    """`step()` announces the DAG runs that ended well to the receivers of `run_succeeded`."""

    def __init__(self, core: Core, incidents: Incidents, registry: Registry) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._incidents = incidents
        self._registry = registry

    async def step(self) -> bool:
        """One round. True: something was due, so more may be."""
        now = self._clock.now()
        later = now + LOOK
        asked = {"now": now, "later": later, "most": MOST}
        due = await with_retries(self._engine, lambda conn: _claim(conn, asked))
        if not due:
            return False
        async with transaction(self._engine) as conn:  # It only reads.
            rows = (await conn.execute(_NEWS, {"ids": due, "survey": SURVEY})).mappings().all()

        async def announce(row: RowMapping) -> None:
            await self._announce(row, later, now)

        problem = "the good end of a trigger cannot be announced"
        failed = await each_alone(rows, announce, _named, problem, at_once=MOST)
        if failed:
            self._metrics.items_failed.labels("outcomes").inc(len(failed))
            raise ExceptionGroup("outcomes that could not be announced", [error for _, error in failed])
        return True

    async def _announce(self, row: RowMapping, claimed: datetime, now: datetime) -> None:
        policy = self._policy()
        receivers = policy.receivers_of(RUN_SUCCEEDED, row["route"])
        last = now >= row["ended_at"] + PATIENCE
        registers = policy.mlflow is not None and policy.reports(row["route"])
        if receivers and registers and row["model"] is None and not row["surveyed"] and not last:
            return  # Its version may be seen yet.
        try:
            made = await self._made(row, policy) if receivers and row["model"] is not None else None
        except TargetError as error:
            if not last:
                return
            log.warning("news without metrics", extra={"trigger_id": str(row["id"]), "detail": error.detail})
            made = None

        async def write(conn: AsyncConnection) -> None:
            done = await conn.execute(_DONE, {"id": row["id"], "claimed": claimed})
            if done.rowcount:
                await self._incidents.announce(conn, receivers, _news(row, made), now)

        await with_retries(self._engine, write)

    async def _made(self, row: RowMapping, policy: Policy) -> _Made | None:
        """What the gate kept when it judged the version, else what the registry shows now. Raises TargetError."""
        model, version = row["model"], row["version"]
        if row["metrics"] is not None:
            return _Made(row["metrics"], row["previous"], row["alias"])
        alias = next(iter(sorted(policy.gates(model))), None)
        try:
            async with asyncio.timeout(READ_WITHIN):
                found = await self._registry.version(model, version)
                holder = await self._registry.holder(model, alias) if alias is not None else None
                before = await self._registry.version(model, holder) if holder not in (None, version) else None
        except TimeoutError:
            raise TargetError("timeout", "the registry was too slow") from None
        return _Made(beside(found, before), holder, alias) if found is not None else None


def _named(row: RowMapping) -> dict[str, str]:
    return {"trigger_id": str(row["id"])}


async def _claim(conn: AsyncConnection, asked: Mapping[str, Any]) -> list[UUID]:
    return list((await conn.execute(_CLAIM, asked)).scalars())


def _news(row: RowMapping, made: _Made | None) -> Notice:
    group = ", ".join([row["route"], *(f"{name}={value}" for name, value in row["group_labels"].items())])
    version = {"model": row["model"], "version": row["version"]} if row["model"] is not None else {}
    return Notice(
        key=f"{RUN_SUCCEEDED}:{row['id']}",
        event=RUN_SUCCEEDED,
        severity=Severity.INFO,
        title=f"The retraining of {group} succeeded",
        detail=" ".join([f"Its DAG run took {format_duration(run_time(row))}.", *_sentences(row, made)]),
        labels={**version, **row["group_labels"], "route": row["route"]},
        link=f"/api/v1/explain/{row['id']}",
    )


def _sentences(row: RowMapping, made: _Made | None) -> list[str]:
    """What it made, in words."""
    if row["model"] is None:
        return ["No model version of it is known."]
    named = f"version {row['version']} of {row['model']}"
    metrics = in_words(made.metrics, made.before) if made is not None else ""
    found = [f"It made {named}: {metrics}." if metrics else f"It made {named}."]
    if made is None or made.alias is None:
        return found
    if row["state"] == "promoted" or made.before == row["version"]:
        return [*found, f"That version is {made.alias}."]
    return [*found, f"Version {made.before} is {made.alias}." if made.before else f"No version is {made.alias}."]
