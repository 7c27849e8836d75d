"""The chain: alert -> decision -> trigger -> DAG run -> MLflow's runs -> versions -> promotions, from any end.

The answer comes from Postgres, by index. Before that, MLflow is asked about the subject, so that a run of a minute ago is in
the answer. When MLflow does not answer, the answer has what was seen before, and says so.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.explain import history
from app.kit.db import with_retries
from app.kit.errors import Rejected, TargetError
from app.kit.mlflow.answers import quoted, tags_of
from app.kit.mlflow.client import Mlflow
from app.lineage import rules, store
from app.lineage.model import TRIGGER_TAG, SeenAlias, SeenRun, SeenVersion, read_aliases, read_run, read_version
from app.policy.core import Core

log = logging.getLogger(__name__)

MOST_CHAINS: Final = 20  # in one answer, of the newest triggers: one alert can be behind several
MOST_RUNS: Final = 200  # in one answer; as many versions
MOST_PROMOTIONS: Final = 20  # of one version, the newest
PATIENCE: Final = 5.0  # seconds for MLflow; after that the answer has what was seen before

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a question. Exactly one field is set, or `model` and `version` together."""

    trigger: UUID | None = None
    alert: UUID | None = None
    dag_run: str | None = None
    run: str | None = None
    model: str | None = None
    version: str | None = None

    def shown(self) -> dict[str, str]:
        """The fields that are set."""
        names = ("trigger", "alert", "dag_run", "run", "model", "version")
        return {name: str(value) for name in names if (value := getattr(self, name)) is not None}


class Lineage:
    """Finds the chains of a subject. It keeps what MLflow answers, so it needs the primary database."""

    def __init__(self, core: Core, mlflow: Callable[[], Mlflow | None]) -> None:
        self._engine, self._clock = core.engine, core.clock
        self._policy = core.policies.current
        self._mlflow = mlflow

    async def find(self, subject: Subject) -> Row | None:
        """The chains that contain the subject. None: neither the gateway nor MLflow knows it."""
        mlflow = self._mlflow()
        state, detail = "not_configured", "the policy has no `mlflow`"
        if mlflow is not None:
            state, detail = await self._refresh(mlflow, subject)
        async with self._engine.connect() as conn:
            triggers = await _triggers_of(conn, subject)
            chains = [await _chain_of(conn, trigger) for trigger in triggers]
            chains += await _without_trigger(conn, subject)
        if not chains and state == "asked":
            return None
        links = [link for chain in chains for link in rules.gaps(chain, self._policy().reports)]
        if state != "asked":
            links.append({"link": "mlflow", "of": "", "detail": f"{detail}: MLflow's side is as it was last seen"})
        return {
            "subject": subject.shown(),
            "chains": chains,
            "missing": links,
            "mlflow": {"state": state, "detail": detail},
        }

    # -- asking MLflow --------------------------------------------------------------------------------------------------

    async def _refresh(self, mlflow: Mlflow, subject: Subject) -> tuple[str, str]:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ask(mlflow, subject)
        except TimeoutError:
            return "away", f"MLflow did not answer within {PATIENCE:.0f} s"
        except TargetError as error:
            return "away", error.detail
        return "asked", ""

    async def _ask(self, mlflow: Mlflow, subject: Subject) -> None:
        """Read from MLflow and keep: first the subject, when it is a version or a run; then the runs of each trigger."""
        if subject.model is not None and subject.version is not None:
            version = await mlflow.version(subject.model, subject.version)
            if version is None:
                model, number = subject.model, subject.version
                await with_retries(self._engine, lambda conn: store.forget_version(conn, model, number))
            elif run_id := read_version(version).run_id:
                await self._ask_run(mlflow, run_id)
            if version is not None:
                await self._keep([], [read_version(version)], await _aliases(mlflow, {subject.model}), {subject.model})
        if subject.run is not None:
            await self._ask_run(mlflow, subject.run)
        async with self._engine.connect() as conn:
            triggers = [row["id"] for row in await _triggers_of(conn, subject)]
        if triggers:
            experiments = [str(item["experiment_id"]) for item in await mlflow.experiments()]
            for trigger in triggers:
                where = f"tags.`{TRIGGER_TAG}` = {quoted(str(trigger))}"
                found = [_read(item) async for item in mlflow.runs(experiments, where)] if experiments else []
                await self._ask_versions(mlflow, found)
                async with self._engine.connect() as conn:
                    seen = await store.runs_of(conn, [trigger], MOST_RUNS)
                for gone in {run.run_id for run in seen} - {run.run_id for run in found}:
                    await self._ask_run(mlflow, gone)  # MLflow does not list deleted runs.

    async def _ask_run(self, mlflow: Mlflow, run_id: str) -> None:
        try:
            item = await mlflow.run(run_id)
        except Rejected:  # MLflow refuses text that cannot be an id.
            item = None
        if item is None:
            now = self._clock.now()
            await with_retries(self._engine, lambda conn: store.forget_run(conn, run_id, now))
        else:
            await self._ask_versions(mlflow, [_read(item)])

    async def _ask_versions(self, mlflow: Mlflow, runs: list[SeenRun]) -> None:
        versions = [
            read_version(item) for run in runs async for item in mlflow.versions(f"run_id = {quoted(run.run_id)}")
        ]
        models = {version.model for version in versions}
        await self._keep(runs, versions, await _aliases(mlflow, models), models)

    async def _keep(
        self, runs: list[SeenRun], versions: list[SeenVersion], aliases: list[SeenAlias], models: set[str]
    ) -> None:
        now = self._clock.now()

        async def keep(conn: AsyncConnection) -> None:
            await store.keep_runs(conn, runs, now)
            await store.keep_versions(conn, versions, now, of=[run.run_id for run in runs])
            await store.keep_aliases(conn, models, aliases, now)

        await with_retries(self._engine, keep)


async def _aliases(mlflow: Mlflow, models: set[str]) -> list[SeenAlias]:
    found = [await mlflow.model(name) for name in sorted(models)]
    return [alias for model in found if model for alias in read_aliases(model)]


def _read(item: Row) -> SeenRun:
    return read_run(item, tags_of(item.get("data") or {}))


# -- answering from Postgres ------------------------------------------------------------------------------------------------


async def _triggers_of(conn: AsyncConnection, subject: Subject) -> list[Row]:
    """The triggers whose chains contain the subject, the newest first."""
    t, d, r, v = tables.triggers, tables.decisions, tables.runs, tables.versions
    if subject.trigger is not None:
        wanted = t.c.id == subject.trigger
    elif subject.alert is not None:
        behind = select(d.c.trigger_id).where(d.c.alert == subject.alert, d.c.action.in_(("fire", "hold")))
        wanted = t.c.id.in_(behind)
    elif subject.dag_run is not None:
        wanted = t.c.dag_run_id == subject.dag_run
    elif subject.run is not None:
        wanted = t.c.id.in_(select(r.c.trigger_id).where(r.c.run_id == subject.run))
    else:
        made = select(r.c.trigger_id).join(v, v.c.run_id == r.c.run_id)
        wanted = t.c.id.in_(made.where(v.c.model == subject.model, v.c.version == subject.version))
    statement = select(t.c.id).where(wanted).order_by(t.c.id.desc()).limit(MOST_CHAINS)
    return await history.get_triggers(conn, (await conn.execute(statement)).scalars().all())


async def _chain_of(conn: AsyncConnection, trigger: Row) -> Row:
    d = tables.decisions
    led = d.c.action.in_(("hold", "fire", "cancel"))  # What was suppressed because of this trigger did not cause it.
    statement = select(d).where(d.c.trigger_id == trigger["id"], led).order_by(d.c.id).limit(history.SHOWN)
    names = ("alert", "action", "reason", "until", "detail", "count", "first_at", "last_at", "policy")
    decisions = [{name: row[name] for name in names} for row in (await conn.execute(statement)).mappings()]
    runs = await store.runs_of(conn, [trigger["id"]], MOST_RUNS)
    started = trigger["accepted_at"] is not None
    return {
        "alerts": trigger["alerts"],
        "decisions": decisions,
        "trigger": {name: value for name, value in trigger.items() if name not in ("alerts", "runs")},
        "dag_run": _dag_run(trigger) if started else None,
        "runs": await _with_versions(conn, runs),
        "versions": [],
    }


def _dag_run(trigger: Row) -> Row:
    names = {"airflow": "airflow", "dag_id": "dag_id", "dag_run_id": "dag_run_id", "state": "dag_run_state"}
    return {shown: trigger[name] for shown, name in names.items()}


async def _without_trigger(conn: AsyncConnection, subject: Subject) -> list[Row]:
    """The chain of a run without a known trigger, or of a version whose run is gone, as far as it goes."""
    runs: dict[str, SeenRun] = {}
    bare: list[SeenVersion] = []
    if subject.dag_run is not None:
        runs = {run.run_id: run for run in await store.runs_of_dag_run(conn, subject.dag_run, MOST_RUNS)}
    elif subject.run is not None:
        runs = await store.runs_named(conn, [subject.run])
    elif subject.model is not None and subject.version is not None:
        key = (subject.model, subject.version)
        bare = list((await store.versions_named(conn, [key])).values())
        runs = await store.runs_named(conn, [version.run_id for version in bare if version.run_id])
    known = await store.trigger_facts(conn, {run.trigger_id for run in runs.values() if run.trigger_id})
    left = [run for run in runs.values() if run.trigger_id not in known]
    bare = [version for version in bare if version.run_id not in runs]
    if not left and not bare:
        return []
    named = [run.dag_run_id for run in left if run.dag_run_id]
    dag_run = {"airflow": None, "dag_id": None, "dag_run_id": named[0], "state": None} if named else None
    return [
        {
            "alerts": [],
            "decisions": [],
            "trigger": None,
            "dag_run": dag_run,
            "runs": await _with_versions(conn, left),
            "versions": await _shown_versions(conn, bare),
        }
    ]


async def _with_versions(conn: AsyncConnection, runs: list[SeenRun]) -> list[Row]:
    versions = await store.versions_of(conn, [run.run_id for run in runs], MOST_RUNS)
    shown = await _shown_versions(conn, versions)
    names = ("run_id", "experiment_id", "name", "status", "deleted", "git_commit", "metrics", "started_at", "ended_at")
    return [
        {name: getattr(run, name) for name in names}
        | {"trigger_id": run.trigger_id, "versions": [version for version in shown if version["run_id"] == run.run_id]}
        for run in runs
    ]


async def _shown_versions(conn: AsyncConnection, versions: list[SeenVersion]) -> list[Row]:
    aliases: dict[tuple[str, str], list[str]] = {}
    for alias in await store.aliases_of(conn, {version.model for version in versions}):
        aliases.setdefault((alias.model, alias.version), []).append(alias.alias)
    names = ("model", "version", "run_id", "status", "created_at")
    return [
        {name: getattr(version, name) for name in names}
        | {
            "aliases": aliases.get((version.model, version.version), []),
            "promotions": await _promotions_of(conn, version.model, version.version),
        }
        for version in versions
    ]


async def _promotions_of(conn: AsyncConnection, model: str, version: str) -> list[Row]:
    """The promotions and rollbacks of a version, the oldest first; no dry runs."""
    p = tables.promotions
    statement = select(p).where(p.c.registry == "mlflow", p.c.model == model, p.c.version == version, ~p.c.dry_run)
    rows = (await conn.execute(statement.order_by(p.c.id.desc()).limit(MOST_PROMOTIONS))).mappings().all()
    names = ("id", "kind", "state", "previous", "requested_by", "detail", "created_at", "ended_at")
    return [{"to": row["mark"]} | {name: row[name] for name in names} for row in reversed(rows)]
