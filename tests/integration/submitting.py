"""Alerts handed straight to the batcher, and what Postgres then holds."""

import secrets
from typing import Any

from sqlalchemy import text

from app.bootstrap.parts import Services
from app.decide.alert import Alert
from app.decide.batch import AlertDecision
from app.intake.intake import Job
from app.kit.db import transaction
from tests.acceptance.world import World


def model() -> str:
    """A label value of this test alone: the session's Valkey remembers the groups of every test."""
    return f"m-{secrets.token_hex(4)}"


def direct(world: World, name: str, **labels: str) -> Alert:
    """An alert as a parser would have made it, and as none would when it holds what cannot be stored."""
    named = {"alertname": "ModelAccuracyLow", "severity": "critical", **labels}
    return Alert("ModelAccuracyLow", name, True, "critical", world.clock.now(), None, named, {}, "test")


async def submit(services: Services, *alerts: Alert) -> list[AlertDecision]:
    return await submit_within(services, 8, *alerts)


async def submit_within(services: Services, seconds: float, *alerts: Alert) -> list[AlertDecision]:
    job = Job(list(alerts), [], "test", 0, lambda at: f"sent {alerts[at].fingerprint}\xff".encode("latin-1"))
    return await services.intake.batcher.submit(job, seconds)


async def run(services: Services, *statements: str) -> None:
    async with transaction(services.core.engine) as conn:
        for statement in statements:
            await conn.execute(text(statement))


async def scalar(services: Services, statement: str) -> Any:
    async with services.core.engine.connect() as conn:
        return (await conn.execute(text(statement))).scalar_one()


async def counts(services: Services) -> dict[str, int]:
    """Committed notifications by fingerprint, over all its episodes."""
    async with services.core.engine.connect() as conn:
        found = await conn.execute(text("SELECT fingerprint, sum(count) FROM alerts GROUP BY fingerprint"))
        return {row[0]: int(row[1]) for row in found}


def metric(services: Services, name: str) -> float:
    return services.core.metrics.registry.get_sample_value(name) or 0.0
