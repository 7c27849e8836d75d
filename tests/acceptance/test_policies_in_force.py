"""Every policy that was in force is kept: what it said, without its secrets, from when until when, and where."""

from datetime import timedelta
from typing import Any

import asyncpg

from app.policy.file.load import parse_policy
from app.policy.in_force import InForce, difference
from tests.acceptance.world import World, policy
from tests.fakes.clock import NOON, ManualClock
from tests.fakes.prometheus import FakePrometheus
from tests.integration.api import problem
from tests.servers import TestServers

SHORT, LONG = policy(cooldown="12h"), policy(cooldown="48h")
CONFIRM = "confirm: {prometheus: 'http://prometheus.test', query: 'x{model=\"{{group.model}}\"}'}"


async def kept(world: World) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await world.get("/api/v1/policies"))["items"]
    return items


def hash_of(text: str) -> str:
    return parse_policy(text, "policy.yaml", {}).hash


async def test_each_policy_is_listed_from_when_it_was_in_force_with_what_it_changed(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, SHORT) as world:
        await world.pass_by(hours=3)
        await world.reload(LONG)
        await world.reload(LONG)
        newer, older = await kept(world)
        assert (older["hash"], newer["hash"]) == (hash_of(SHORT), hash_of(LONG))
        assert (older["from"], older["until"]) == ("2026-11-23T12:00:00Z", "2026-11-23T15:00:00Z")
        assert (newer["from"], older["diff"]) == ("2026-11-23T15:00:00Z", "")
        assert {"-    cooldown: 12h", "+    cooldown: 48h"} <= set(newer["diff"].splitlines())
        assert "password: gateway" not in newer["text"]
        assert 'password: "${MASKED}"' in newer["text"]
        await world.restart(LONG)
        assert [item["hash"] for item in await kept(world)] == [hash_of(LONG), hash_of(SHORT)]


async def test_a_replica_says_every_hour_that_its_policy_is_still_in_force(servers: TestServers, database: str) -> None:
    async with World(servers, database, SHORT) as world:
        for minutes in (30, 31):
            world.clock.pass_by(timedelta(minutes=minutes))
            await world.services[0].reloader.step()
        [item] = await kept(world)
        assert (item["from"], item["until"]) == ("2026-11-23T12:00:00Z", "2026-11-23T13:01:00Z")


async def test_replicas_that_differ_are_seen_apart(servers: TestServers, database: str) -> None:
    async with World(servers, database, SHORT, replicas=2) as world:
        first, second = (InForce(services.core, name) for services, name in zip(world.services, "ab", strict=True))
        await first.keep()
        await second.keep()
        await world.reload(LONG, to=1)
        await second.keep()
        hashes = {(i["replica"], i["hash"]) for i in await kept(world) if i["replica"] in ("a", "b")}
        assert hashes == {("a", hash_of(SHORT)), ("b", hash_of(SHORT)), ("b", hash_of(LONG))}


async def test_pages_of_the_list_end_early_when_texts_are_long_and_lose_nothing(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, SHORT) as world:
        texts = [f"{policy(cooldown=f'{hours}h')}# {'x' * 900_000}\n" for hours in (1, 2, 3, 4, 5, 6)]
        for long in texts:
            assert (await world.reload(long)).status_code == 200
        found, cursor, pages = [], None, 0
        while True:
            page = await world.get("/api/v1/policies", **({"cursor": cursor} if cursor else {}))
            found += [item["hash"] for item in page["items"]]
            pages += 1
            if (cursor := page["next"]) is None:
                break
        assert found == [hash_of(text) for text in (*reversed(texts), SHORT)]
        assert pages == 2
        problem(await world.clients[0].get("/api/v1/policies?cursor=x"), 422, "invalid")


async def test_the_reload_is_in_force_although_nobody_could_write_it_down(servers: TestServers, database: str) -> None:
    async with World(servers, database, SHORT) as world:
        connection = await asyncpg.connect(database)
        await connection.execute("ALTER TABLE in_force RENAME TO away")
        assert (await world.reload(LONG)).json()["changed"] is True
        await connection.execute("ALTER TABLE away RENAME TO in_force")
        world.clock.pass_by(timedelta(minutes=5))
        await world.services[0].reloader.step()
        newer, _ = await kept(world)
        assert (newer["hash"], newer["from"]) == (hash_of(LONG), "2026-11-23T12:00:00Z")
        await connection.close()


async def test_policies_and_answers_are_pruned_with_the_rest_but_not_what_is_in_force(
    servers: TestServers, database: str
) -> None:
    clock = ManualClock()
    prometheus = FakePrometheus(clock)
    others: dict[str, Any] = {"prometheus.test": prometheus}
    async with World(servers, database, SHORT, others=others, clock=clock, retention="30d") as world:
        await world.reload(policy(CONFIRM))
        await world.push(world.alert(model="churn"))
        await world.settle()
        assert await answers(database) == [(NOON, "accuracy", True)]
        clock.pass_by(timedelta(days=31))
        await world.services[0].reloader.step()
        while await world.services[0].loop("retention").step():
            pass
        assert [item["hash"] for item in await kept(world)] == [hash_of(policy(CONFIRM))]
        assert await answers(database) == []


async def test_the_answers_of_prometheus_that_counted_are_kept(servers: TestServers, database: str) -> None:
    clock = ManualClock()
    prometheus = FakePrometheus(clock)
    others: dict[str, Any] = {"prometheus.test": prometheus}
    async with World(servers, database, policy(CONFIRM), others=others, clock=clock) as world:
        prometheus.says = lambda _: prometheus.vector()
        await world.push(world.alert(model="churn"))
        await world.settle()
        prometheus.says = lambda _: prometheus.vector(0.7)
        await world.pass_by(minutes=5)
        later = NOON + timedelta(minutes=5)
        assert await answers(database) == [(NOON, "accuracy", False), (later, "accuracy", True)]


async def answers(database: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(database)
    try:
        rows = await connection.fetch("SELECT at, route, confirmed FROM confirms ORDER BY id")
    finally:
        await connection.close()
    return [tuple(row) for row in rows]


def test_a_difference_is_bounded() -> None:
    assert difference("a\nb\n", "a\nc\n").splitlines()[-2:] == ["-b", "+c"]
    assert difference("a\n" * 6000, "b\n").startswith("the policies are too long to compare")
    assert len(difference("a\n" * 4000, "\n".join(f"{n} {'x' * 40}" for n in range(4000)))) < 50_100
