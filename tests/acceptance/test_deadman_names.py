"""Two switches may fill to one name: a switch is its entry and its labels, and no alert keeps another switch up."""

from typing import Any

import pytest

from tests.acceptance.world import POLICY, World, policy
from tests.servers import TestServers

BEATS = (
    POLICY
    + """
deadman:
  - {name: "{{group.a}}-{{group.b}}", expect: heartbeat, match: [alertname=Watchdog], for_each: {a: [], b: []}, every: 5m}
  - {name: "{{group.a}}-z", expect: heartbeat, match: [alertname=Other], for_each: {a: []}, every: 5m}
"""
)


async def switches(world: World) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await world.get("/api/v1/deadman"))["items"]
    return items


@pytest.mark.parametrize("together", [True, False], ids=["in one request", "one after the other"])
async def test_a_heartbeat_keeps_up_its_own_switch_alone(servers: TestServers, database: str, together: bool) -> None:
    async with World(servers, database, BEATS) as world:
        alive, silent = world.alert("Watchdog", a="x-y", b="z"), world.alert("Watchdog", a="x", b="y-z")
        other = world.alert("Other", a="x-y")
        for alerts in [[alive, silent, other]] if together else [[alive], [silent], [other]]:
            await world.push(*alerts)
        await world.settle()
        for _ in range(10):
            await world.push(alive)
            await world.pass_by(minutes=1)
        found = {item["name"]: item["state"] for item in await switches(world)}
        assert found.pop("x-y-z") in ("up", "down")
        assert len(found) == 2
        assert all(name.startswith("x-y-z~") for name in found)
        states = {tuple(item["group"].values()): item["state"] for item in await switches(world)}
        assert states == {("x-y", "z"): "up", ("x", "y-z"): "down", ("x-y",): "down"}
        for item in await switches(world):
            shown = await world.get(f"/api/v1/deadman/{item['name']}")
            assert (shown["state"], shown["group"]) == (item["state"], item["group"])
        await world.reload(BEATS.replace("every: 5m", "every: 10m"))
        await world.pass_by(minutes=1)
        assert {item["name"] for item in await switches(world)} == {"x-y-z", *found}


async def test_a_retrain_of_a_group_counts_for_its_own_switch_alone(servers: TestServers, database: str) -> None:
    each = (
        'deadman:\n  - {name: "{{group.model}}-{{group.region}}", expect: {retrain: accuracy}, '
        "for_each: {model: [], region: []}, every: 1d}\n"
    )
    async with World(servers, database, policy(group_by="[model, region]") + each) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="x-y", region="z"), world.alert(model="x", region="y-z"))
        await world.pass_by(minutes=2, steps=2)
        found = await switches(world)
        assert sorted(tuple(item["group"].values()) for item in found) == [("x", "y-z"), ("x-y", "z")]
        [apart] = [item["name"] for item in found if "~" in item["name"]]
        assert (await world.post(f"/api/v1/deadman/{apart}/forget", {})).status_code == 200
        await world.pass_by(minutes=2, steps=2)
        assert [item["name"] for item in await switches(world)] == ["x-y-z"]


async def test_an_entry_that_takes_the_name_of_a_removed_one_gets_it(servers: TestServers, database: str) -> None:
    template = '\ndeadman:\n  - {name: "{{group.a}}-beats", expect: heartbeat, match: [alertname=Watchdog], '
    template += "for_each: {a: []}, every: 5m}\n"
    literal = "\ndeadman:\n  - {name: x-beats, expect: heartbeat, match: [alertname=Watchdog], every: 5m}\n"
    async with World(servers, database, POLICY + template) as world:
        await world.push(world.alert("Watchdog", a="x"))
        assert [item["name"] for item in await switches(world)] == ["x-beats"]
        await world.reload(POLICY + literal)
        await world.push(world.alert("Watchdog", a="x"))
        await world.pass_by(seconds=20, steps=4)
        assert [(item["name"], item["group"]) for item in await switches(world)] == [("x-beats", {})]
