"""What the probes ask, each kept for a few seconds."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.bootstrap.base import Base
from app.deadman import probe as deadman_probe
from app.deliver.dags import dags_of
from app.kit.airflow import probe as airflow_probe
from app.kit.errors import TargetError
from app.kit.loop import all_of
from app.kit.once import Once

Findings = dict[str, str]  # "ok", or what is wrong, by what was looked at

Found = TypeVar("Found")

_PATIENCE = 3.0  # seconds that a probe waits for Postgres
_OLDEST = text("SELECT min(at) FROM records WHERE state = 'pending'")


@dataclass(frozen=True, slots=True)
class Probes:
    """One look for all who ask within `GATEWAY_PROBE_CACHE` seconds."""

    orchestrator: Callable[[], Awaitable[Findings]]
    metadata: Callable[[], Awaitable[Findings]]
    deadman: Callable[[], Awaitable[Findings]]


def probes(base: Base) -> Probes:
    """The probes of /health."""

    def once(name: str, look: Callable[[Base], Awaitable[Findings]]) -> Callable[[], Awaitable[Findings]]:
        async def counted() -> Findings:
            found = await look(base)
            base.metrics.probe_ok.labels(name).set(all(told == "ok" for told in found.values()))
            return found

        return Once(counted, base.clock, base.settings.probe_cache).get

    return Probes(once("orchestrator", _orchestrator), once("metadata", _metadata), once("deadman", _deadman))


async def _deadman(base: Base) -> Findings:
    return await deadman_probe.look(base.engine, base.current(), base.clock)


async def _orchestrator(base: Base) -> Findings:
    """Every Airflow of the policy."""
    policy, now = base.current(), base.clock.now()
    try:
        dags = await _asked(base, lambda conn: dags_of(conn, policy))
    except Exception as error:  # Whatever it is: a probe answers, it does not break.
        return {"postgres": f"does not answer ({type(error).__name__})"}
    limit = timedelta(seconds=base.settings.queued_limit)
    looks = [
        airflow_probe.look(name, client, dags.get(name, []), now, limit) for name, client in base.airflows().items()
    ]
    found: Findings = {}
    for part in await all_of(looks):
        found |= part
    return found


async def _asked(base: Base, work: Callable[[AsyncConnection], Awaitable[Found]]) -> Found:
    async with asyncio.timeout(_PATIENCE), base.engine.connect() as conn:
        return await work(conn)


async def _oldest_record(conn: AsyncConnection) -> datetime | None:
    found: datetime | None = (await conn.execute(_OLDEST)).scalar_one()
    return found


async def _metadata(base: Base) -> Findings:
    """The MLflow of the policy, and what waits for it. Without one there is nothing to be ill."""
    client = base.mlflow()
    if client is None:
        return {}
    found: Findings = {"mlflow": "ok"}
    try:
        await client.call("GET", "registered-models/search", params={"max_results": 1})
    except TargetError as error:
        found["mlflow"] = error.detail
    try:
        oldest = await _asked(base, _oldest_record)
    except Exception as error:
        return found | {"backlog": f"postgres does not answer ({type(error).__name__})"}
    found["backlog"] = "ok"
    if oldest is not None and oldest <= base.clock.now() - timedelta(seconds=base.settings.backlog_limit):
        found["backlog"] = f"metadata waits since {oldest:%Y-%m-%dT%H:%M:%SZ}"
    return found
