"""Replicas with different policies: one with the older file does not conclude from it that somebody took something out."""

from datetime import timedelta

import pytest

from tests.acceptance import test_probation
from tests.acceptance.promotions import Gates
from tests.acceptance.test_effects import DEFAULT, opened
from tests.acceptance.test_no_effect import HOLD, drizzle
from tests.acceptance.test_telling import RECEIVERS
from tests.acceptance.world import World, policy
from tests.servers import TestServers

MINUTE = timedelta(minutes=1)


async def step(world: World, loop: str, *, replica: int = 0, minutes: int = 2) -> None:
    """Time passes, and one replica runs this loop."""
    world.clock.pass_by(minutes * MINUTE)
    await world.watched()
    await world.services[replica].loop(loop).step()


async def newer(world: World, text: str) -> None:
    """The second replica takes a newer file."""
    await world.pass_by(minutes=1)
    assert (await world.reload(text, to=1)).status_code == 200


@pytest.mark.parametrize("deployed", [True, False], ids=["the-others-follow", "it-was-taken-out"])
async def test_a_route_that_only_the_newer_file_has_is_watched(
    servers: TestServers, database: str, deployed: bool
) -> None:
    async with opened(servers, database, replicas=2) as world:
        renamed = DEFAULT.replace("name: accuracy", "name: precision")
        await newer(world, renamed)
        alert = world.alert(model="churn")
        await world.push(alert, to=1)
        await world.settle()
        await world.pass_by(minutes=20)
        await world.push(alert.resolved(world.clock.now()), to=1)
        for _ in range(3):
            await step(world, "effects")
        [item] = (await world.get("/api/v1/effects"))["items"]
        assert item["effect"] is None, item
        if deployed:
            await world.reload(renamed, to=0)
        else:
            await world.reload(DEFAULT, to=1)
        await world.pass_by(minutes=10)
        await world.pass_by(days=8)
        [item] = (await world.get("/api/v1/effects"))["items"]
        assert item["reason"] == ("quiet" if deployed else "switched")


@pytest.mark.parametrize("entry", ["run_timeout: 20h", "mode: shadow"])
async def test_an_incident_is_opened_once_whatever_file_a_replica_has(
    servers: TestServers, database: str, entry: str
) -> None:
    """The second replica has the newer file, which counts the retrains of this route. The first one had another entry."""
    world, pagerduty = drizzle(servers, database, f"{HOLD}\n{entry}", replicas=2)
    async with world:
        await newer(world, policy(HOLD) + RECEIVERS)
        alert = world.alert(model="churn")
        for _ in range(3):
            await world.push(alert, to=1)
            for _ in range(4):
                world.clock.pass_by(timedelta(hours=6, seconds=15))
                await world.watched()
                await _settle(world, replica=1)
        assert len(pagerduty.open()) == 1
        await world.services[1].reloader.in_force.keep()
        for _ in range(3):
            await step(world, "effects", replica=0)
            await step(world, "effects", replica=1)
            await _settle(world, replica=1)
        assert "resolve" not in [seen.call.body["event_action"] for seen in pagerduty.seen]


async def _settle(world: World, *, replica: int) -> None:
    services = world.services[replica]
    for _ in range(100):
        if not any([await services.loop(name).step() for name in ("waker", "relay", "follower", "effects", "notices")]):
            return


async def test_a_probation_that_only_the_newer_file_has_goes_on(servers: TestServers, database: str) -> None:
    async with test_probation.opened(servers, database, test_probation.policy(""), replicas=2) as gates:
        await newer(gates.world, test_probation.policy())
        promotion = await _promoted_by_the_newer(gates)
        for _ in range(3):
            await step(gates.world, "probations")
        found = await test_probation.probation(gates, promotion)
        assert found["state"] == "watching"
        await gates.world.reload(test_probation.policy(""), to=1)
        await gates.world.pass_by(minutes=2)
        found = await test_probation.probation(gates, promotion)
        assert (found["state"], found["detail"]) == ("over", "the policy has no probation for it any more")


async def _promoted_by_the_newer(gates: Gates) -> dict[str, object]:
    for f1 in (0.85, 0.9):
        gates.mlflow.add("churn", {"f1": f1})
    await gates.world.settle()
    await gates.promote("1")
    await gates.world.pass_by(minutes=1)
    return await gates.promote("2", to=1)


@pytest.mark.parametrize("mode", ["live", "shadow"])
@pytest.mark.parametrize("deployed", [True, False], ids=["the-others-follow", "it-was-taken-out"])
async def test_a_held_trigger_waits_for_a_replica_that_knows_its_route(
    servers: TestServers, database: str, deployed: bool, mode: str
) -> None:
    text = policy(f"debounce: 10m\nmode: {mode}")
    text = text if mode == "shadow" else text.replace("name: accuracy", "name: precision")
    async with opened(servers, database, replicas=2) as world:
        await newer(world, text)
        await world.push(world.alert(model="churn"), to=1)
        [held] = await world.triggers()
        assert held["state"] == "held"
        if not deployed:
            await world.reload(DEFAULT, to=1)
        for _ in range(2):
            await step(world, "waker", minutes=6)
        [trigger] = [t for t in await world.triggers() if t["id"] == held["id"]]
        assert (trigger["state"] == "held") is deployed
        await step(world, "waker", replica=1)
        [trigger] = [t for t in await world.triggers() if t["id"] == held["id"]]
        assert (trigger["fired_at"] is not None) is deployed, trigger["detail"]
