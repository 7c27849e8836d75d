"""Would Airflow run what the policy sends it? What /health/orchestrator answers from. Starts and changes nothing."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from app.kit.airflow.client import AirflowClient
from app.kit.errors import TargetError
from app.kit.times import at

_AT_ONCE: Final = 4  # DAGs asked for at the same time
_QUEUED: Final = 100  # queued runs looked at, the oldest first


async def look(
    name: str, client: AirflowClient, dags: Sequence[str], now: datetime, queued_limit: timedelta
) -> dict[str, str]:
    """ "ok", or what is wrong, by what was looked at: its components, the login, each of `dags`, the queue. What could not
    be looked at because of something before it is left out."""
    try:
        health = await client.health()
    except TargetError as error:
        return {name: error.detail}
    parts = {"metadatabase": health.metadatabase, "scheduler": health.scheduler, "dag_processor": health.dag_processor}
    found = {f"{name} {part}": "ok" if status == "healthy" else status or "away" for part, status in parts.items()}
    try:
        queued = await client.queued_runs(_QUEUED)
    except TargetError as error:
        return found | {f"{name} login": error.detail}
    found[f"{name} login"] = "ok"
    late = [run for run in queued if run.dag_id in dags and run.queued_at and run.queued_at <= now - queued_limit]
    shown = [f"{run.dag_run_id} of {run.dag_id} since {at(run.queued_at)}" for run in late[:3] if run.queued_at]
    found[f"{name} queue"] = f"{len(late)} runs are queued for long: {', '.join(shown)}" if late else "ok"
    limit = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        states = {dag_id: tasks.create_task(_dag(client, dag_id, limit)) for dag_id in dags}
    return found | {f"{name} dag {dag_id}": state.result() for dag_id, state in states.items()}


async def _dag(client: AirflowClient, dag_id: str, limit: asyncio.Semaphore) -> str:
    """Is it there, does it parse, is it unpaused?"""
    async with limit:
        try:
            dag = await client.dag(dag_id)
        except TargetError as error:
            return error.detail
    return "paused: unpause it in Airflow" if dag.is_paused else "ok"
