"""What follows a commit is the same on every path: log, metrics, bells, memory."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from prometheus_client import Counter as Counted
from sqlalchemy import text

from app.policy.core import Core
from tests.acceptance.test_schedules import DAILY, scheduled
from tests.acceptance.world import World, policy
from tests.fakes.faults import answer
from tests.servers import TestServers

HELD = policy("debounce: 10m\nstale_after: 3d")
SHADOW = "mode: shadow"
GROUP = {"model": "churn"}
ASKED = {"route": "accuracy", "group": GROUP, "reason": "a drill"}


async def three_alerts(world: World) -> None:
    await world.push(*(world.alert(model="churn", slice=name) for name in "abc"))


async def due_hold(world: World) -> None:
    await three_alerts(world)
    world.clock.pass_by(timedelta(minutes=10))
    await world.watched()


async def dead_trigger(world: World) -> None:
    world.airflow.disturb(answer(422, {"detail": "no such conf"}), on="trigger")
    await world.push(world.alert(model="churn"))
    await world.settle()


async def wake(world: World) -> None:
    await world.services[0].loop("waker").step()


async def request(world: World) -> None:
    await world.post("/api/v1/triggers", ASKED)


async def cancel(world: World) -> None:
    held = await world.trigger()
    assert (await world.post(f"/api/v1/triggers/{held['id']}/cancel", {})).status_code == 200


async def occurrence(world: World) -> None:
    world.clock.pass_by(timedelta(hours=17))
    await world.services[0].loop("schedules").step()


async def redrive(world: World) -> None:
    dead = await world.trigger()
    assert (await world.post(f"/api/v1/triggers/{dead['id']}/redrive", {})).status_code == 200


async def nothing(world: World) -> None:
    await world.settle()


Act = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Path:
    """One way to a decision: what comes before it, the act that commits, and what must follow."""

    policy: str
    before: Act
    act: Act
    decisions: dict[tuple[str, str], int]
    logged: str
    relay: bool = True
    rehearsed: int = 0


FIRE, SUPPRESS = "fire", "suppress"
PATHS = {
    "intake": Path(policy(), nothing, three_alerts, {(FIRE, "new_alert"): 3}, "trigger pending"),
    "wake": Path(HELD, due_hold, wake, {(FIRE, "new_alert"): 3}, "trigger pending"),
    "request": Path(policy(), nothing, request, {(FIRE, "manual"): 1}, "trigger pending"),
    "request of a held group": Path(
        HELD, three_alerts, request, {(FIRE, "manual"): 1, (FIRE, "new_alert"): 3}, "trigger pending"
    ),
    "cancel": Path(HELD, three_alerts, cancel, {("cancel", "by_request"): 3}, "trigger cancelled", relay=False),
    "schedule": Path(scheduled(DAILY), nothing, occurrence, {(FIRE, "scheduled"): 1}, "trigger pending"),
    "redrive": Path(policy(), dead_trigger, redrive, {}, "trigger pending"),
    "intake in shadow mode": Path(
        policy(SHADOW), nothing, three_alerts, {(SUPPRESS, "shadow"): 3}, "trigger cancelled", False, 1
    ),
    "wake in shadow mode": Path(
        policy(f"{SHADOW}\ndebounce: 10m\nstale_after: 3d"),
        due_hold,
        wake,
        {(SUPPRESS, "shadow"): 3},
        "trigger cancelled",
        False,
        1,
    ),
    "request in shadow mode": Path(
        policy(SHADOW), nothing, request, {(SUPPRESS, "shadow"): 1}, "trigger cancelled", False, 1
    ),
    "schedule in shadow mode": Path(
        scheduled(DAILY, route=SHADOW),
        nothing,
        occurrence,
        {(SUPPRESS, "shadow"): 1},
        "trigger cancelled",
        False,
        1,
    ),
}


def counted(metric: Counted) -> Counter[tuple[str, ...]]:
    """The values of a counter by its labels."""
    samples = [s for family in metric.collect() for s in family.samples if s.name.endswith("_total")]
    return Counter({tuple(s.labels.values()): int(s.value) for s in samples})


async def written(core: Core) -> Counter[tuple[str, ...]]:
    """The decisions in the database by route, action and reason."""
    statement = text("SELECT coalesce(route, ''), action, reason, count(*) FROM decisions GROUP BY 1, 2, 3")
    async with core.engine.connect() as conn:
        return Counter({tuple(row[:3]): row[3] for row in await conn.execute(statement)})


async def remembered(world: World) -> list[bool]:
    """For each group, whether Redis has it as Postgres has it."""
    statement = text("SELECT key, version, nonce FROM groups")
    async with world.services[0].core.engine.connect() as conn:
        rows = (await conn.execute(statement)).all()
    groups, _ = await world.services[0].foundation.memory.read([row.key for row in rows], [])
    found = [(groups[row.key].version, groups[row.key].nonce) if row.key in groups else None for row in rows]
    return [known == (row.version, row.nonce) for known, row in zip(found, rows, strict=True)]


@pytest.mark.parametrize("name", PATHS)
async def test_every_path_has_the_same_aftermath(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = PATHS[name]
    async with World(servers, database, path.policy) as world:
        core = world.services[0].core
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await path.before(world)
        rows, metrics = await written(core), counted(core.metrics.decisions)
        rehearsals = counted(core.metrics.shadow_triggers)
        await core.bells.relay.wait(0)
        await world.flush_redis()
        caplog.clear()
        with caplog.at_level(logging.INFO):
            await path.act(world)
        new = await written(core) - rows
        assert {labels[1:]: number for labels, number in new.items()} == path.decisions
        assert counted(core.metrics.decisions) - metrics == new
        assert (counted(core.metrics.shadow_triggers) - rehearsals).total() == path.rehearsed
        lines = [record for record in caplog.records if record.getMessage() == path.logged]
        assert [record.trigger_id for record in lines] == [t["id"] for t in await world.triggers()][:1]  # type: ignore[attr-defined]
        assert core.bells.relay.rung is path.relay
        assert await remembered(world) == [True]


async def test_a_reset_wakes_the_loops_that_decide_again(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn"))
        await world.pass_by(hours=1, steps=4)
        core = world.services[0].core
        for bell in (core.bells.waker, core.bells.confirmer):
            await bell.wait(0)
        await world.post("/api/v1/routes/accuracy/reset", {"group": GROUP})
        assert (core.bells.waker.rung, core.bells.confirmer.rung) == (True, True)
        assert await remembered(world) == [True]


async def test_a_repeat_is_no_new_decision(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        core = world.services[0].core
        alert = world.alert(model="churn")
        await world.push(alert)
        for _ in range(3):
            await world.push(alert)
        assert counted(core.metrics.decisions) == await written(core)
        [shown] = await world.alerts()
        assert [(d["reason"], d["count"]) for d in shown["decisions"]] == [("new_alert", 1), ("duplicate", 3)]
