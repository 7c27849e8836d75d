"""The survey: a walk through all of MLflow, one page a step. It keeps what it sees, and finds what lacks its lineage.

A round goes through runs (experiment by experiment), versions, aliases and, in our own database, the triggers that ended.
Its place is in Postgres: after a crash, or when MLflow is back, any replica goes on from there. No transaction is open
while MLflow is asked.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.kit.db import transaction
from app.kit.errors import Rejected, TargetError
from app.kit.mlflow.answers import tags_of
from app.kit.mlflow.client import Mlflow
from app.lineage import rules, store
from app.lineage.incidents import OrphanIncidents
from app.lineage.model import SeenAlias, SeenRun, SeenVersion, read_aliases, read_run, read_version
from app.lineage.rules import Orphan, Patience
from app.policy.core import Core

log = logging.getLogger(__name__)

PAGE: Final = 200  # items of MLflow, or triggers, in one step
LEASE: Final = timedelta(minutes=10)  # longer than a step can take: it may ask for 200 runs, each by itself
#: So often one page may fail while MLflow answers another question. Then the round leaves out the rest of its phase.
MOST_FAILURES: Final = 5
_BEGINNING: Final = {"phase": "runs"}
_AFTER: Final = {"runs": "versions", "versions": "aliases", "aliases": "triggers"}
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)

Place = dict[str, Any]


@dataclass
class _Page:
    """What one step saw. `following` is the place of the next step; None: the round is over."""

    following: Place | None
    runs: list[SeenRun] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # runs that a version names and MLflow does not have
    versions: list[SeenVersion] = field(default_factory=list)
    sources: dict[str, SeenRun] = field(default_factory=dict)  # the runs that the versions name, by id
    models: list[str] = field(default_factory=list)
    aliases: list[tuple[SeenAlias, bool]] = field(default_factory=list)  # with whether its version exists
    triggers: list[rules.TriggerFacts] = field(default_factory=list)


class Survey:
    """Walks through MLflow: one page a `step()`. retention: GATEWAY_RETENTION in seconds."""

    def __init__(
        self,
        core: Core,
        mlflow: Callable[[], Mlflow | None],
        incidents: OrphanIncidents,
        *,
        retention: float,
        page: int = PAGE,
    ) -> None:
        self._engine, self._clock = core.engine, core.clock
        self._policy = core.policies.current
        self._mlflow = mlflow
        self._incidents = incidents
        self._retention = timedelta(seconds=retention)
        self._size = page

    async def step(self) -> bool:
        """Do one page, when a round is under way or due. True while a round is under way. False while MLflow is away: then
        the next step tries the same page again."""
        mlflow, now, token = self._mlflow(), self._clock.now(), uuid7()
        if mlflow is None:
            return False
        async with transaction(self._engine) as conn:
            row = await store.claim(conn, token, now, now + LEASE, now - self._policy().lineage.every)
        if row is None:
            return False
        began = row["began_at"] if row["place"] else now
        place: Place = row["place"] or _BEGINNING
        left_out = place.get("left_out", [])
        try:
            page = await self._look(mlflow, place, began)
        except TargetError as error:
            log.warning("the survey of MLflow waits", extra={"code": error.code, "detail": error.detail})
            # MLflow refuses this place, so this round ends here, and the next one begins from the start.
            again = None if isinstance(error, Rejected) else await _after_failure(mlflow, place)
            async with transaction(self._engine) as conn:
                await store.settle(conn, token, place=again, began_at=began)
            return False
        if page.following and left_out:
            page.following |= {"left_out": left_out}
        async with transaction(self._engine) as conn:
            # First settle the claim, which locks its row: a replica that has lost the claim writes nothing.
            ended = {} if page.following or left_out else {"ended_at": now}
            if not await store.settle(conn, token, place=page.following, began_at=began, **ended):
                return False
            await self._keep(conn, page, now)
            if page.following is None:
                if not left_out:  # What was left out is not gone.
                    await store.end_round(conn, began)
                    await self._incidents.end_moved(conn, began, now)
                await self._incidents.open_or_resolve(conn, now)
        return page.following is not None

    # -- looking --------------------------------------------------------------------------------------------------------

    async def _look(self, mlflow: Mlflow, place: Place, began: datetime) -> _Page:
        match place["phase"]:
            case "runs":
                return await self._look_at_runs(mlflow, place)
            case "versions":
                return await self._look_at_versions(mlflow, place, began)
            case "aliases":
                return await self._look_at_aliases(mlflow, place, began)
        if "runs" in place.get("left_out", []):  # Nobody knows which triggers have no run.
            return _Page(None)
        return await self._look_at_triggers(place)

    async def _look_at_runs(self, mlflow: Mlflow, place: Place) -> _Page:
        """A page of the runs of a page of experiments: MLflow lists runs only for named experiments."""
        experiments, more = place.get("experiments"), place.get("more")
        if experiments is None:
            query = {"max_results": self._size} | ({"page_token": more} if more else {})
            body = await mlflow.call("POST", "experiments/search", query, read=True)
            experiments = [str(item["experiment_id"]) for item in body.get("experiments") or []]
            more = body.get("next_page_token") or None
        body = {}
        if experiments:
            query = {
                "experiment_ids": experiments,
                "max_results": self._size,
                "order_by": ["attributes.start_time ASC"],
            }
            query |= {"page_token": place["token"]} if place.get("token") else {}
            body = await mlflow.call("POST", "runs/search", query, read=True)
        runs = [read_run(item, tags_of(item.get("data") or {})) for item in body.get("runs") or []]
        following: Place = {"phase": "versions"}
        if token := body.get("next_page_token"):
            following = {"phase": "runs", "experiments": experiments, "more": more, "token": token}
        elif more:
            following = {"phase": "runs", "more": more}
        return _Page(following, runs=runs)

    async def _look_at_versions(self, mlflow: Mlflow, place: Place, began: datetime) -> _Page:
        body = await self._list(mlflow, "model-versions/search", place, order_by="creation_timestamp ASC")
        versions = [read_version(item) for item in body.get("model_versions") or []]
        wanted = {version.run_id for version in versions if version.run_id}
        async with self._engine.connect() as conn:
            sources = await store.runs_named(conn, wanted, since=began)
        lost, asked = [], []
        for run_id in sorted(wanted - sources.keys()):
            run = await _find_run(mlflow, run_id)
            if run is None:
                lost.append(run_id)
            else:
                asked.append(run)
        sources |= {run.run_id: run for run in asked}
        following = _next(body, "versions", "aliases")
        return _Page(following, runs=asked, lost=lost, versions=versions, sources=sources)

    async def _look_at_aliases(self, mlflow: Mlflow, place: Place, began: datetime) -> _Page:
        body = await self._list(mlflow, "registered-models/search", place)
        models = body.get("registered_models") or []
        aliases = [alias for model in models for alias in read_aliases(model)]
        async with self._engine.connect() as conn:
            known = await store.versions_named(conn, {(alias.model, alias.version) for alias in aliases}, since=began)
        judged = [
            (
                alias,
                (alias.model, alias.version) in known or await mlflow.version(alias.model, alias.version) is not None,
            )
            for alias in aliases
        ]
        following = _next(body, "aliases", "triggers")
        return _Page(following, models=[str(model["name"]) for model in models], aliases=judged)

    async def _look_at_triggers(self, place: Place) -> _Page:
        since = (datetime.fromisoformat(place["at"]), UUID(place["id"])) if "at" in place else (_EARLIEST, UUID(int=0))
        async with self._engine.connect() as conn:
            found = await store.triggers_after(conn, since, self._size)
        following: Place | None = None
        if len(found) == self._size:
            last = found[-1]
            following = {"phase": "triggers", "at": str(last.ended_at), "id": str(last.id)}
        return _Page(following, triggers=found)

    async def _list(self, mlflow: Mlflow, path: str, place: Place, **query: str) -> dict[str, Any]:
        params: dict[str, str | int] = {"max_results": self._size, **query}
        params |= {"page_token": place["token"]} if place.get("token") else {}
        return await mlflow.call("GET", path, params=params)

    # -- keeping and judging --------------------------------------------------------------------------------------------

    async def _keep(self, conn: AsyncConnection, page: _Page, now: datetime) -> None:
        await store.keep_runs(conn, page.runs, now)
        for run_id in page.lost:
            await store.forget_run(conn, run_id, now)
        await store.keep_versions(conn, page.versions, now)
        await store.keep_aliases(conn, page.models, [alias for alias, _ in page.aliases], now)
        await store.keep_orphans(conn, await self._judge(conn, page, now), now)

    async def _judge(self, conn: AsyncConnection, page: _Page, now: datetime) -> list[Orphan]:
        policy = self._policy()
        patience = Patience.at(now, policy.lineage.grace, self._retention)
        triggers = await store.trigger_facts(conn, {run.trigger_id for run in page.runs if run.trigger_id})
        counts = await store.count_runs(conn, [trigger.id for trigger in page.triggers])
        found: list[Orphan] = []
        for run in page.runs:
            found += rules.judge_run(run, triggers.get(run.trigger_id) if run.trigger_id else None, patience)
        for version in page.versions:
            found += rules.judge_version(version, page.sources.get(version.run_id or ""))
        for alias, exists in page.aliases:
            found += rules.judge_alias(alias, exists=exists)
        for trigger in page.triggers:
            reports = policy.reports(trigger.route)
            found += rules.judge_trigger(trigger, counts.get(trigger.id, 0), patience, reports=reports)
        return found


async def _after_failure(mlflow: Mlflow, place: Place) -> Place:
    """Where to go on after a failure: the same page. After MOST_FAILURES while MLflow answers, the next phase."""
    if not await _answers(mlflow):
        return place
    failures = place.get("failures", 0) + 1
    if failures < MOST_FAILURES:
        return {**place, "failures": failures}
    log.error("MLflow always fails on a page: this round leaves out the rest", extra={"phase": place["phase"]})
    return {"phase": _AFTER[place["phase"]], "left_out": [*place.get("left_out", []), place["phase"]]}


async def _answers(mlflow: Mlflow) -> bool:
    """Whether MLflow answers a question about other things than one page: for one experiment, or for one model."""
    for method, path, read in (("POST", "experiments/search", True), ("GET", "registered-models/search", None)):
        least: dict[str, str | int] = {"max_results": 1}
        try:
            await mlflow.call(method, path, least if read else None, params=None if read else least, read=read)
        except TargetError:
            continue
        return True
    return False


async def _find_run(mlflow: Mlflow, run_id: str) -> SeenRun | None:
    try:
        item = await mlflow.run(run_id)
    except Rejected:  # MLflow refuses text that cannot be an id.
        return None
    return read_run(item, tags_of(item.get("data") or {})) if item else None


def _next(body: dict[str, Any], phase: str, after: str) -> Place:
    token = body.get("next_page_token")
    return {"phase": phase, "token": token} if token else {"phase": after}
