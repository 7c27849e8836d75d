"""What the probes find. Each result is kept for a few seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap.settings import Settings
from app.deadman import probe as deadman_probe
from app.deliver.dags import dags_of, stuck_triggers
from app.kit.airflow import probe as airflow_probe
from app.kit.airflow.client import AirflowClient
from app.kit.db import log_a_bug
from app.kit.errors import TargetError
from app.kit.loop import all_of
from app.kit.mlflow.client import Mlflow
from app.kit.once import Once
from app.kit.times import at
from app.lineage.record_store import oldest_waiting, stuck_record
from app.policy.core import Core

Findings = dict[str, str]  # by the name of a check: "ok", or what is wrong

Found = TypeVar("Found")

_PATIENCE = 3.0  # seconds that a probe waits for Postgres


class Probes:
    """What each probe finds. All callers within `GATEWAY_PROBE_CACHE` seconds share one look."""

    def __init__(
        self,
        core: Core,
        airflows: Callable[[], Mapping[str, AirflowClient]],
        mlflow: Callable[[], Mlflow | None],
        settings: Settings,
    ) -> None:
        self._core = core
        self._airflows = airflows
        self._mlflow = mlflow
        self._queued_limit = timedelta(seconds=settings.queued_limit)
        self._backlog_limit = timedelta(seconds=settings.backlog_limit)
        keep = settings.probe_cache
        self.orchestrator = Once(partial(self._counted, "orchestrator", self._orchestrator), core.clock, keep).get
        self.metadata = Once(partial(self._counted, "metadata", self._metadata), core.clock, keep).get
        self.deadman = Once(partial(self._counted, "deadman", self._deadman), core.clock, keep).get

    async def _counted(self, probe: str, look: Callable[[], Awaitable[Findings]]) -> Findings:
        found = await look()
        self._core.metrics.probe_ok.labels(probe).set(all(state == "ok" for state in found.values()))
        return found

    async def _deadman(self) -> Findings:
        return await deadman_probe.look(self._core.engine, self._core.policy, self._core.clock)

    async def _orchestrator(self) -> Findings:
        """Every Airflow of the policy."""
        policy, now = self._core.policy, self._core.clock.now()
        try:
            dags = await self._ask(lambda conn: dags_of(conn, policy))
            stuck = await self._ask(stuck_triggers)
        except Exception as error:  # A probe must answer, whatever the error is.
            log_a_bug(error)
            return {"postgres": f"does not answer ({type(error).__name__})"}
        looks = [
            airflow_probe.look(name, client, dags.get(name, []), now, self._queued_limit)
            for name, client in self._airflows().items()
        ]
        found: Findings = {}
        for part in await all_of(looks):
            found |= part
        return found | {f"{name} triggers": sentence for name, sentence in stuck.items()}

    async def _metadata(self) -> Findings:
        """The MLflow of the policy, and the metadata that waits for it. A policy without MLflow has no checks here."""
        client = self._mlflow()
        if client is None:
            return {}
        found: Findings = {"mlflow": "ok"}
        try:
            await client.call("GET", "registered-models/search", params={"max_results": 1})
        except TargetError as error:
            found["mlflow"] = error.detail
        try:
            oldest = await self._ask(oldest_waiting)
            stuck = await self._ask(stuck_record)
        except Exception as error:
            log_a_bug(error)
            return found | {"backlog": f"postgres does not answer ({type(error).__name__})"}
        found["backlog"] = "ok"
        if oldest is not None and oldest <= self._core.clock.now() - self._backlog_limit:
            found["backlog"] = f"metadata waits since {at(oldest)}"
        return found | ({"records": stuck} if stuck else {})

    async def _ask(self, work: Callable[[AsyncConnection], Awaitable[Found]]) -> Found:
        async with asyncio.timeout(_PATIENCE), self._core.engine.connect() as conn:
            return await work(conn)
