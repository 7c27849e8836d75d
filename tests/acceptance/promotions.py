"""A gateway with a fake MLflow, and the questions that tests of promotion ask."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from sqlalchemy import text

from tests.acceptance.world import World
from tests.fakes.clock import ManualClock
from tests.fakes.mlflow_registry import FakeMlflowRegistry
from tests.fakes.pagerduty import KEY, FakePagerDuty
from tests.servers import TestServers

ENTRY = """
promotions:
  - model: churn.*
    to: champion
    require: {metrics: [f1], inputs: [training], artifacts: [model]}
    rules: ['f1 >= 0.80', 'f1 >= champion.f1 + 0.005']
"""
POLICY = f"""
version: 1
airflow: [{{name: default, url: "http://airflow.test:8080", auth: {{username: gateway, password: gateway}}}}]
routes: []
mlflow: {{tracking_uri: "http://mlflow.test:5000"}}
receivers:
  - {{name: oncall, pagerduty: {{routing_key: {KEY}, url: "{FakePagerDuty.url}"}}}}
"""


class Gates:
    """`world` with `mlflow` behind it, and `pagerduty` to be told."""

    def __init__(self, world: World, mlflow: FakeMlflowRegistry, pagerduty: FakePagerDuty) -> None:
        self.world = world
        self.mlflow = mlflow
        self.pagerduty = pagerduty

    async def ask(self, version: str, *, to: int = 0, model: str = "churn", **more: Any) -> httpx.Response:
        """POST /promotions of a version, at replica `to`."""
        return await self.world.post("/api/v1/promotions", {"model": model, "version": version, **more}, to=to)

    async def promote(self, version: str, **more: Any) -> dict[str, Any]:
        """As `ask`; it must be promoted."""
        answer = await self.ask(version, **more)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def rows(self, **params: Any) -> list[dict[str, Any]]:
        """Every promotion, the oldest first."""
        items: list[dict[str, Any]] = (await self.world.get("/api/v1/promotions", limit=1000, **params))["items"]
        return items[::-1]

    async def states(self) -> list[str]:
        return [row["state"] for row in await self.rows()]

    def champion(self, model: str = "churn") -> str | None:
        return self.mlflow.aliases.get((model, "champion"))


@asynccontextmanager
async def opened(
    servers: TestServers, database: str, promotions: str = ENTRY, *, replicas: int = 1, **more: Any
) -> AsyncIterator[Gates]:
    clock = ManualClock()
    mlflow, pagerduty = FakeMlflowRegistry(clock), FakePagerDuty(clock)
    others: Any = {"mlflow.test": mlflow, FakePagerDuty.host: pagerduty}
    more |= {"clock": clock}
    async with World(servers, database, POLICY + promotions, replicas=replicas, others=others, **more) as world:
        yield Gates(world, mlflow, pagerduty)


async def seen(world: World, trigger: str, version: str, model: str = "churn") -> None:
    """The survey has seen that a run of this trigger registered the version."""
    run = {"run": f"{model}-run-{version}", "trigger": trigger, "now": world.clock.now()}
    async with world.services[0].core.engine.begin() as conn:
        await conn.execute(
            text("""INSERT INTO runs (run_id, experiment_id, name, status, deleted, trigger_id, metrics, started_at, seen_at)
            VALUES (:run, '1', 'a run', 'FINISHED', false, CAST(:trigger AS uuid), 1, :now, :now)"""),
            run,
        )
        await conn.execute(
            text("""INSERT INTO versions (model, version, run_id, status, created_at, seen_at)
            VALUES (:model, :version, :run, 'READY', :now, :now)"""),
            run | {"model": model, "version": version},
        )


async def surveyed(world: World) -> None:
    """All of MLflow has just been read."""
    async with world.services[0].core.engine.begin() as conn:
        await conn.execute(text("UPDATE surveys SET ended_at = :now"), {"now": world.clock.now()})
