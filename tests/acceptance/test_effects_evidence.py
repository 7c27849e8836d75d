"""What counts as evidence for the effect of a trigger, and what keeps that evidence, from outside."""

from typing import Any

import pytest
from sqlalchemy import text

from tests.acceptance.promotions import ENTRY, Gates, seen
from tests.acceptance.test_effects import effect, opened, retrained
from tests.acceptance.world import World, policy
from tests.fakes.clock import ManualClock
from tests.fakes.mlflow_registry import FakeMlflowRegistry
from tests.fakes.pagerduty import FakePagerDuty
from tests.integration.pruned import prune
from tests.servers import TestServers

SHORT = "effect: {settle: 6h, watch: 2d}"
MLFLOW = 'mlflow: {tracking_uri: "http://mlflow.test:5000"}\n'
STAGES = """
promotions:
  - {model: churn, to: staging, rules: ['f1 > 0']}
  - {model: churn, to: champion, requires: staging, rules: ['f1 > 0']}
"""
BEAT = """
deadman: [{name: prometheus, expect: heartbeat, match: ['alertname="Watchdog"'], every: 6h, grace: 5m, receivers: []}]
"""


def with_mlflow(
    servers: TestServers, database: str, promotions: str, *, group_by: str = "[model]"
) -> tuple[World, Gates]:
    clock = ManualClock()
    mlflow, pagerduty = FakeMlflowRegistry(clock), FakePagerDuty(clock)
    others: Any = {"mlflow.test": mlflow, FakePagerDuty.host: pagerduty}
    world = opened(servers, database, policy(group_by=group_by) + MLFLOW + promotions, clock=clock, others=others)
    return world, Gates(world, mlflow, pagerduty)


async def newest(world: World) -> tuple[str | None, str]:
    """The effect and its reason of the newest trigger."""
    found = (await world.get("/api/v1/effects"))["items"][0]
    return found["effect"], found["reason"]


@pytest.mark.parametrize(("hours", "expected"), [(5, ("fixed", "quiet")), (7, ("recurred", "still_firing"))])
async def test_an_alert_that_fires_at_the_fire_counts_also_when_the_trigger_could_not_take_it(
    servers: TestServers, database: str, hours: int, expected: tuple[str, str]
) -> None:
    """With `refire: false` it is spent. When it ends between two looks, its end is heard all the same."""
    async with opened(servers, database, policy(f"refire: false\nstale_after: 3d\n{SHORT}")) as world:
        alert = await retrained(world)
        asked = {"route": "accuracy", "group": {"model": "churn"}, "reason": "once more", "force": True}
        assert (await world.post("/api/v1/triggers", asked)).status_code == 201
        await world.settle()
        await world.pass_by(minutes=20)
        await world.pass_by(hours=hours)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(days=3, steps=3)
        assert await newest(world) == expected


async def test_an_alert_that_had_gone_silent_long_before_the_fire_says_nothing(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, policy(SHORT)) as world:
        await world.push(world.alert(model="churn", slice="old"))
        await world.settle()
        await world.pass_by(days=5, steps=5)
        alert = world.alert(model="churn", slice="new")
        await world.push(alert)
        await world.settle()
        await world.pass_by(minutes=20)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(days=3, steps=3)
        assert await newest(world) == ("fixed", "quiet")


async def test_a_promotion_that_is_only_a_step_on_the_way_is_looked_at_once(
    servers: TestServers, database: str
) -> None:
    world, gates = with_mlflow(servers, database, STAGES)
    async with world:
        await retrained(world)
        version = gates.mlflow.add("churn", {"f1": 0.9})
        await seen(world, (await world.trigger())["id"], version)
        await world.pass_by(hours=3)
        assert await effect(world) == ("not_promoted", "not_asked")
        await world.pass_by(minutes=5)
        await _promoted_to(world, version, "staging")
        await world.pass_by(minutes=2)
        written = await _version_of_the_row(world)
        await world.pass_by(minutes=6, steps=3)
        assert await _version_of_the_row(world) == written
        assert await effect(world) == ("not_promoted", "not_asked")
        await _promoted_to(world, version, "champion")
        await world.pass_by(minutes=2)
        assert await effect(world) == (None, "settling")


async def _promoted_to(world: World, version: str, alias: str) -> None:
    answer = await world.post("/api/v1/promotions", {"model": "churn", "version": version, "to": alias})
    assert answer.json()["state"] == "promoted", answer.text


async def _version_of_the_row(world: World) -> str:
    async with world.services[0].core.engine.connect() as conn:
        return str((await conn.execute(text("SELECT xmin FROM effects"))).scalar_one())


async def test_a_version_of_another_registry_with_the_same_name_is_another_version(
    servers: TestServers, database: str
) -> None:
    world, gates = with_mlflow(servers, database, ENTRY)
    async with world:
        await retrained(world)
        version = gates.mlflow.add("churn", {"f1": 0.9})
        await gates.promote(version)
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text("UPDATE promotions SET registry = 'sagemaker'"))
        await seen(world, (await world.trigger())["id"], version)
        await world.pass_by(hours=3)
        assert await effect(world) == ("not_promoted", "not_asked")


@pytest.mark.parametrize("retention", [0, 86_400], ids=["for-ever", "shorter-than-watch"])
async def test_what_a_judgement_needs_outlives_the_retention(
    servers: TestServers, database: str, retention: int
) -> None:
    """An outage, and a heartbeat that was down for a time: without them silence would look like an end."""
    async with opened(servers, database, policy(SHORT) + BEAT, retention=retention) as world:
        beat = world.alert("Watchdog")
        alert = await retrained(world)
        await world.push(beat, alert.resolved(world.clock.now()))
        await world.pass_by(hours=18, steps=2)
        await world.push(beat)
        world.outage(hours=1)
        await world.settle()
        for _ in range(4):
            await world.push(beat)
            await world.pass_by(hours=6)
        before = await _silences(world)
        assert before == (1, 3)
        assert (await effect(world))[0] is None
        await prune(world)
        assert await _silences(world) == before
        await world.push(beat)
        await world.pass_by(hours=6)
        assert await effect(world) == ("unknown", "muted")
        await prune(world)
        assert (await _silences(world))[0] == (0 if retention else 1)


async def _silences(world: World) -> tuple[int, int]:
    async with world.services[0].core.engine.connect() as conn:
        found = await conn.execute(text("SELECT (SELECT count(*) FROM outages), (SELECT count(*) FROM flips)"))
        outages, flips = found.one()
        return outages, flips


async def test_a_heartbeat_that_has_been_down_for_longer_than_the_retention_is_still_down(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, policy(SHORT) + BEAT, retention=86_400) as world:
        await world.push(world.alert("Watchdog"))
        await world.pass_by(days=4, steps=8)
        await prune(world)
        assert (await _silences(world))[1] == 0
        alert = await retrained(world)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(days=3, steps=6)
        assert await effect(world) == ("unknown", "muted")


@pytest.mark.parametrize("labels", ["[]", "[model]"])
async def test_the_line_of_a_model_is_the_same_in_the_table_and_alone(
    servers: TestServers, database: str, labels: str
) -> None:
    """A retrain that failed registered nothing, and counts for the model of its group. The group has another name for it."""
    world, gates = with_mlflow(servers, database, ENTRY.replace("churn.*", "classifier"), group_by=labels)
    async with world:
        world.airflow.outcome = lambda run: "failed"
        await retrained(world)
        world.airflow.outcome = lambda run: "success"
        await world.pass_by(hours=1, steps=2)
        await world.pass_by(hours=1)
        good = next(t for t in await world.triggers() if t["outcome"] == "success")
        await seen(world, good["id"], gates.mlflow.add("classifier", {"f1": 0.9}), "classifier")
        await world.pass_by(minutes=5)
        [line] = (await world.get("/api/v1/effects"))["models"]
        assert (line["model"], line["retrains"], line["failed"]) == ("classifier", 2, 1)
        answer = await world.get("/api/v1/effects", model="classifier")
        assert answer["models"] == [line]
        assert len(answer["items"]) == 2
        assert (await world.get("/api/v1/effects", model="another"))["items"] == []
