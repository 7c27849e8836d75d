"""Policies and memory that are not of one mind: what Redis remembers is never believed blindly."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis import asyncio as redis

from app.bootstrap.parts import Services
from tests.acceptance.world import POLICY, World, policy, reasons
from tests.integration.submitting import counts, direct, metric, model, run, scalar, submit
from tests.servers import TestServers

WIDE = POLICY.replace("group_by: [model]", "group_by: [model, region]")
OTHER_ROUTE = POLICY.replace("name: accuracy", "name: renamed")


async def test_an_open_episode_keeps_its_group_when_the_policy_groups_otherwise(
    servers: TestServers, database: str
) -> None:
    mark = model()
    async with World(servers, database) as world:
        alert, new = (world.alert(model=mark, region="eu", pod=pod) for pod in ("1", "2"))
        [first] = await world.push(alert)
        await world.start(WIDE)
        again, other = await world.push(alert, new, to=1)
        assert (again["action"], again["reason"]) == ("suppress", "duplicate")
        assert again["group"] == first["group"] == {"model": mark}
        assert again["trigger_id"] == first["trigger_id"]
        assert other["group"] == {"model": mark, "region": "eu"}
        repeats = await asyncio.gather(*(world.push(alert, to=i % 2) for i in range(10)))
        assert {d["group"]["model"] for [d] in repeats} == {mark}
        assert {d["trigger_id"] for [d] in repeats} == {first["trigger_id"]}
        [found] = [a for a in (await world.get("/api/v1/alerts"))["items"] if a["labels"]["pod"] == "1"]
        assert found["count"] == 12


async def test_an_open_episode_whose_route_is_gone_goes_to_the_route_that_takes_it_now(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        alert = world.alert(model=model())
        await world.push(alert)
        await world.start(OTHER_ROUTE)
        [again] = await world.push(alert, to=1)
        assert again["route"] == "renamed"


async def test_memory_behind_postgres_is_noticed_and_the_batch_decided_again(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        services, alert = world.services[0], world.alert(model=model())
        await world.push(alert)
        await world.push(alert)
        assert metric(services, "gateway_memory_stale_total") == 0
        await run(services, "UPDATE groups SET version = version + 1")
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        assert metric(services, "gateway_memory_stale_total") == 1
        await world.push(alert)
        assert metric(services, "gateway_memory_stale_total") == 1, "what was read from Postgres is remembered"
        assert await scalar(services, "SELECT sum(count) FROM alerts") == 4


async def test_memory_that_says_no_does_not_keep_a_group_that_is_clear_from_firing(
    servers: TestServers, database: str
) -> None:
    """As after a failover to a Redis that missed a reset, or a group that another replica released."""
    async with World(servers, database) as world:
        services, alert = world.services[0], world.alert(model=model())
        await world.push(alert)
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        await run(
            services,
            "UPDATE triggers SET state = 'cancelled'",
            "UPDATE groups SET open_trigger = NULL, fired_at = NULL, version = version + 1, nonce = 'other'",
        )
        assert reasons(await world.push(alert)) == [("fire", "still_firing")]


async def test_memory_of_an_episode_that_is_over_counts_nothing_on_it(servers: TestServers, database: str) -> None:
    """Redis fails over to a replica that has not heard of the resolved."""
    async with World(servers, database) as world:
        services, alert = world.services[0], world.alert(model=model())
        await world.push(alert)
        await world.push(alert)
        fingerprint = await scalar(services, "SELECT fingerprint FROM alerts")
        key = f"{services.settings.redis_prefix}:e:{fingerprint}"
        held = await world.redis_content()
        old = held[key.encode()]
        world.clock.pass_by(timedelta(minutes=1))
        await world.push(alert.resolved(world.clock.now()))
        async with redis.Redis.from_url(servers.valkey.url) as client:
            await client.set(key, old)
        assert reasons(await world.push(alert)) == [("ignore", "resolved")]
        assert metric(services, "gateway_memory_stale_total") == 1


async def test_memory_that_missed_a_success_does_not_answer_for_an_alert_that_has_had_its_retrain(
    servers: TestServers, database: str
) -> None:
    """Another alert refreshes what is remembered of their group, and not of the first alert."""
    mark = model()
    async with World(servers, database, policy("refire: false\nstale_after: 9d")) as world:
        world.airflow.add_dag("retrain_model")
        first, second = (world.alert(model=mark, pod=pod) for pod in ("1", "2"))
        await world.push(first)
        await world.settle()
        assert reasons(await world.push(first)) == [("suppress", "duplicate")]
        await world.pass_by(minutes=30)
        await world.push(second)
        [again] = await world.push(first)
        assert again["detail"] == "it has had its retrain, and refire is off"
        assert again["until"] is None


async def test_a_memory_of_another_database_changes_no_decision(
    servers: TestServers, database: str, new_database: Any
) -> None:
    """Two gateways on one Redis by mistake: slower, never wrong."""
    mark = model()
    async with World(servers, database) as one_world, World(servers, new_database()) as other:
        alert = one_world.alert(model=mark)
        for world in (one_world, other):
            assert reasons(await world.push(alert)) == [("fire", "new_alert")]
        for _ in range(5):
            for world in (one_world, other):
                assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        for world in (one_world, other):
            assert await scalar(world.services[0], "SELECT sum(count) FROM alerts") == 6
            assert await scalar(world.services[0], "SELECT count(*) FROM triggers") == 1


async def test_what_redis_holds_and_nobody_can_read_is_counted_and_logged_once_a_minute(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(servers, database) as world:
        services, alert = world.services[0], world.alert(model=model())
        await world.push(alert)
        async with redis.Redis.from_url(servers.valkey.url) as client:
            for _ in range(3):
                for name in await world.redis_content():
                    await client.set(name, b"1 {}")
                assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        assert failures(services) == {"bug": 0, "content": 3}
        assert await scalar(services, "SELECT sum(count) FROM alerts") == 4
    [record] = [r for r in caplog.records if r.message.startswith("Redis holds a value that cannot be read")]
    assert record.exc_info is not None


async def test_a_bug_in_the_fast_path_is_counted_and_logged_once_a_minute(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No parser makes a time without a zone: whoever compares it raises."""
    async with World(servers, database) as world:
        services, alert = world.services[0], direct(world, "a", model=model())
        await submit(services, alert)
        for _ in range(3):
            await submit(services, replace(alert, starts_at=alert.starts_at.replace(tzinfo=None)), alert)
        assert failures(services) == {"bug": 3, "content": 0}
        assert await counts(services) == {"a": 4}
    [record] = [r for r in caplog.records if r.message.startswith("a bug: the fast path failed")]
    assert record.exc_info is not None


def failures(services: Services) -> dict[str, float | None]:
    """How often the fast path failed, by cause."""
    value = services.core.metrics.registry.get_sample_value
    return {cause: value("gateway_fast_path_failures_total", {"cause": cause}) for cause in ("bug", "content")}
