"""Whoever may send alerts invents values of `for_each`: the switches have a bound, and a flood is one incident."""

from tests.acceptance.test_deadman import state
from tests.acceptance.test_telling import RECEIVERS
from tests.acceptance.world import POLICY, World, policy
from tests.fakes.clock import ManualClock
from tests.fakes.pagerduty import FakePagerDuty
from tests.servers import TestServers

BEATS = """
deadman:
  - {name: "alive-{{group.host}}", expect: heartbeat, match: [alertname=Watchdog], for_each: {host: [own]}, every: 5m,
     receivers: [oncall]}
"""
RETRAINS = """
deadman:
  - {name: "fresh-{{group.model}}", expect: {retrain: accuracy}, for_each: {model: [own]}, every: 1d, receivers: [oncall]}
"""


async def count(world: World) -> int:
    return len((await world.get("/api/v1/deadman", limit=1000))["items"])


async def titles(world: World) -> list[str]:
    items = (await world.get("/api/v1/notices", event="switch_down", limit=1000, state="open"))["items"]
    return [item["title"] for item in items]


async def test_invented_values_of_a_heartbeat_are_bounded_and_page_a_few_times(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock()
    pagerduty = FakePagerDuty(clock)
    others = {pagerduty.host: pagerduty}
    async with World(servers, database, POLICY + RECEIVERS + BEATS, clock=clock, others=others) as world:
        await world.push(world.alert("Watchdog", host="own"))
        for first in (0, 150, 250):
            await world.push(*(world.alert("Watchdog", host=f"h{n}") for n in range(first, first + 150)))
        assert await count(world) == 201
        await world.pass_by(minutes=6, steps=6)
        found = await titles(world)
        assert sum("takes no new values" in title for title in found) == 1
        assert sum("more than 20 switches" in title for title in found) == 1
        assert "alive-own is down" in found, "a switch that the policy names has its own"
        assert len(found) <= 23
        assert len(pagerduty.opened) == len(found)
        # A value that is known still counts, and the flood ends with the last of them.
        await world.push(
            world.alert("Watchdog", host="own"), *(world.alert("Watchdog", host=f"h{n}") for n in range(300))
        )
        await world.pass_by(seconds=1)
        assert [title for title in await titles(world) if "down" in title] == []
        assert await state(world, "alive-h199") == "up"


async def test_invented_groups_of_a_route_are_bounded_switches(servers: TestServers, database: str) -> None:
    text = policy("limit: {triggers: 3, per: 1d}") + RECEIVERS + RETRAINS
    clock = ManualClock()
    pagerduty = FakePagerDuty(clock)
    async with World(servers, database, text, clock=clock, others={pagerduty.host: pagerduty}) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(*(world.alert(model=f"m{n}") for n in range(300)))
        await world.pass_by(minutes=3, steps=3)
        assert await count(world) == 201
        assert len(world.airflow.posts) == 3
        await world.pass_by(hours=25, steps=5)
        assert len([title for title in await titles(world) if "switch" in title]) <= 2
        assert len(await titles(world)) <= 23
