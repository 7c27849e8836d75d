"""The pure engine and the product over Postgres decide the same: the same events lead to the same rows."""

import random
from collections import Counter
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.bootstrap.parts import Services
from app.decide.alert import Alert
from app.decide.engine import PureEngine
from app.decide.state import Trigger, TriggerState
from tests.acceptance.world import World, policy
from tests.integration.submitting import submit
from tests.servers import TestServers
from tests.sizes import seed, size
from tests.unit.builders import REORDER, firing, resolved

MODELS = {"a": "churn", "b": "churn", "c": "churn", "d": "fraud", "e": "fraud"}
GROUP = "key, labels, fired_at, accepted_at, ended_at, outcome, failures, reset_at, held_since, on_failure, wake_at"
EPISODE = (
    "fingerprint, status, severity, starts_at, ends_at, group_labels, count, first_seen_at, last_seen_at, firing_since, "
    "closed_at, resolved_at, late_at, spent, dismissed, decision_count, reason"
)
ANSWER = "action, reason, until, detail"
DECISION = 'group_key, action, reason, "until", detail, first_at'


async def rows(services: Services, columns: str, table: str) -> list[tuple[Any, ...]]:
    async with services.core.engine.connect() as conn:
        return [tuple(row) for row in await conn.execute(text(f"SELECT {columns} FROM {table}"))]


def picked(values: Any, columns: str, **renamed: str) -> tuple[Any, ...]:
    names = [name.strip('" ') for name in columns.split(", ")]
    return tuple(getattr(values, renamed.get(name, name)) for name in names)


async def twins(services: Services, engine: PureEngine) -> list[tuple[Trigger, Any]]:
    """The triggers of the engine beside those of the product: a group makes them in the same order."""
    async with services.core.engine.connect() as conn:
        statement = text("SELECT group_key, state, outcome, accepted_at FROM triggers ORDER BY id")
        found: dict[str, list[Any]] = {}
        for row in await conn.execute(statement):
            found.setdefault(row.group_key, []).append(row)
    known = sorted(engine.triggers.values(), key=lambda t: t.id)
    return [(trigger, found[trigger.key].pop(0)) for trigger in known]


async def settle(world: World, engine: PureEngine) -> None:
    """Groups wake, Airflow takes what fired, and runs end, in the product and then in the engine, until both rest."""
    services, now = world.services[0], world.clock.now()
    await world.watched()
    busy = True
    while busy:
        busy = await services.loop("waker").step()
        engine.wake(now)
        busy |= await services.loop("relay").step()
        for trigger in engine.triggers.values():
            if trigger.state is TriggerState.PENDING:
                engine.accept(trigger.id, now)
        busy |= await services.loop("follower").step()
        for trigger, row in await twins(services, engine):
            if trigger.state is TriggerState.SUBMITTED and row.outcome is not None:
                engine.end(trigger.id, row.outcome, now)
                busy = True


async def the_same(world: World, engine: PureEngine) -> None:
    services = world.services[0]
    for trigger, row in await twins(services, engine):
        state = TriggerState.SUBMITTED if row.state == TriggerState.RUNNING else row.state
        assert (trigger.state, trigger.outcome, trigger.accepted_at) == (state, row.outcome, row.accepted_at)
    assert only_in_one([picked(g, GROUP) for g in engine.groups.values()], await rows(services, GROUP, "groups")) == []
    assert (
        only_in_one([picked(e, EPISODE) for e in engine.episodes.values()], await rows(services, EPISODE, "alerts"))
        == []
    )
    decisions = [picked(d, DECISION, first_at="at") for d in engine.decisions]
    assert only_in_one(decisions, await rows(services, DECISION, "decisions")) == []


def only_in_one(engine: list[tuple[Any, ...]], product: list[tuple[Any, ...]]) -> list[str]:
    ours, theirs = Counter(map(repr, engine)), Counter(map(repr, product))
    return [f"engine: {row}" for row in ours - theirs] + [f"product: {row}" for row in theirs - ours]


def note(world: World, chance: random.Random, began: dict[str, Any]) -> Alert:
    fingerprint = chance.choice(sorted(MODELS))
    now, kind = world.clock.now(), chance.choice(["firing", "firing", "again", "resolved"])
    began.setdefault(fingerprint, now)
    if kind == "again":
        began[fingerprint] = now
    if kind == "resolved":
        return resolved(fingerprint, now, began[fingerprint], model=MODELS[fingerprint])
    moved = timedelta(seconds=chance.choice([0, 0, -15, 30]))
    return firing(fingerprint, began[fingerprint] + moved, model=MODELS[fingerprint])


OPTIONS = {
    "plain": ("", "1h"),
    "held": ("debounce: 10m", "1h"),
    "limited and spent": ("refire: false\nlimit: {triggers: 3, per: 1d}", "1h"),
    "shadow": ("mode: shadow\ndebounce: 5m", "2h"),
}


@pytest.mark.parametrize("options", OPTIONS)
async def test_the_pure_engine_and_the_product_decide_the_same(
    servers: TestServers, database: str, options: str
) -> None:
    chance, began = random.Random(seed()), dict[str, Any]()
    numbers = count(1000)
    lines, cooldown = OPTIONS[options]
    async with World(servers, database, policy(lines, cooldown=cooldown)) as world:
        world.airflow.add_dag("retrain_model")
        services = world.services[0]
        engine = PureEngine(
            services.core.policies.current(), world.clock.now(), REORDER, lambda: UUID(int=next(numbers))
        )
        for _ in range(size(25, 400)):
            world.clock.pass_by(timedelta(seconds=chance.choice([0, 1, 60, 600, 1800, 4000, 20000])))
            await settle(world, engine)
            alerts = [note(world, chance, began) for _ in range(chance.randrange(1, 5))]
            answers = [a.decision for a in await submit(services, *alerts)]
            expected = [a.decision for a in engine.take(alerts, world.clock.now())]
            assert [picked(d, ANSWER) for d in expected] == [picked(d, ANSWER) for d in answers]
            await settle(world, engine)
            await the_same(world, engine)
        assert len(engine.triggers) > 1
