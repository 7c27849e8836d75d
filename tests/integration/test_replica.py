"""GATEWAY_DATABASE_READ_URL: lists and explanations come from the copy, decisions from the database alone."""

from typing import Any

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.kit.db import open_engine
from tests.acceptance.world import World, reasons
from tests.integration.api import opened, problem
from tests.servers import TestServers

SUBJECT = "ModelAccuracyLow"


@pytest.fixture
def copy(servers: TestServers, template: str) -> str:
    """A second migrated database: a copy that lags behind so far that it holds nothing."""
    return servers.fresh_database(template)


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def moved(world: World) -> float:
    """How many reads went to the primary because the copy did not answer."""
    shown = (await world.clients[0].get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(shown)}
    return next(s.value for s in families["gateway_replica_failures"].samples if s.name.endswith("_total"))


def rename(table: str) -> str:
    """What the copy tells of `table` can only come from the copy."""
    return f"UPDATE {table} SET route = 'of_the_copy'"


LISTS = [("alerts", "alerts"), ("triggers", "triggers")]


@pytest.mark.parametrize(("path", "table"), LISTS, ids=lambda value: value)
async def test_a_list_and_one_of_it_are_read_from_the_copy(
    servers: TestServers, database: str, path: str, table: str
) -> None:
    async with opened(servers, database) as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
    copy = servers.fresh_database(database.rsplit("/", 1)[1].partition("?")[0])
    await execute(copy, rename(table))
    async with opened(servers, database, database_read_url=SecretStr(copy)) as world:
        [item] = (await world.get(f"/api/v1/{path}"))["items"]
        assert item["route"] == "of_the_copy"
        assert (await world.get(f"/api/v1/{path}/{item['id']}"))["route"] == "of_the_copy"
        assert (await world.explain(item["id"]))[path.removesuffix("s")]["route"] == "of_the_copy"
        assert await moved(world) == 0


async def test_routes_and_quarantine_are_read_from_the_copy(servers: TestServers, database: str, copy: str) -> None:
    async with opened(servers, database, database_read_url=SecretStr(copy)) as world:
        await world.push(world.alert(model="churn"))
        await world.post("/api/v1/alerts", b"not JSON")
        routes = (await world.get("/api/v1/routes"))["items"]
        assert [route["groups"] for route in routes] == [[], [], []]
        assert (await world.get("/api/v1/quarantine"))["items"] == []


async def test_a_decision_never_comes_from_the_copy(servers: TestServers, database: str, copy: str) -> None:
    async with opened(servers, copy) as other:
        assert reasons(await other.push(other.alert(model="churn"))) == [("fire", "new_alert")]
        await other.settle()
    async with opened(servers, database, database_read_url=SecretStr(copy)) as world:
        await world.flush_redis()
        # By the copy the group cools down, and a run is in flight.
        assert reasons(await world.push(world.alert(model="churn"))) == [("fire", "new_alert")]
        await world.settle()
        assert len(world.airflow.posts) == 1
        assert reasons(await world.push(world.alert(model="churn", team="risk"))) == [("suppress", "in_flight")]


async def test_the_answer_to_a_request_shows_what_it_did_and_not_the_copy(
    servers: TestServers, database: str, copy: str
) -> None:
    async with opened(servers, database, database_read_url=SecretStr(copy)) as world:
        [held] = await world.push(world.alert("Drift", model="churn"))
        answer = await world.post(f"/api/v1/triggers/{held['trigger_id']}/cancel", {})
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


async def test_what_has_not_reached_the_copy_yet_is_found(servers: TestServers, database: str, copy: str) -> None:
    async with opened(servers, database, database_read_url=SecretStr(copy)) as world:
        [decision] = await world.push(world.alert(model="churn"))
        trigger = decision["trigger_id"]
        assert (await world.get(f"/api/v1/triggers/{trigger}"))["id"] == trigger
        assert (await world.explain(SUBJECT))["subject"] == "alert"
        assert (await world.explain(trigger))["subject"] == "trigger"
        problem(await world.clients[0].get(f"/api/v1/alerts/{trigger}"), 404, "not_found")
        assert (await world.get("/api/v1/triggers"))["items"] == [], "a list shows what the copy has"
        assert await moved(world) == 0


def nobody(servers: TestServers) -> str:
    """No such database."""
    return servers.fresh_database() + "_gone"


def empty(servers: TestServers) -> str:
    """A database that nobody has migrated."""
    return servers.fresh_database()


def deaf(servers: TestServers) -> str:
    """Nobody listens there."""
    del servers
    return "postgresql://postgres@127.0.0.1:1/postgres"


@pytest.mark.parametrize("away", [nobody, empty, deaf], ids=lambda away: away.__name__)
async def test_without_the_copy_the_primary_answers_and_the_copy_is_left_alone(
    servers: TestServers, database: str, away: Any
) -> None:
    async with opened(servers, database, database_read_url=SecretStr(away(servers))) as world:
        await world.push(world.alert(model="churn"))
        assert len(await world.alerts()) == 1
        assert await moved(world) == 1
        assert len(await world.triggers()) == 1
        assert (await world.explain(SUBJECT))["subject"] == "alert"
        assert await moved(world) == 1, "it is not asked again at once"
        assert (await world.clients[0].get("/readyz")).status_code == 200


async def test_the_copy_is_never_written_to(database: str) -> None:
    engine = open_engine(database, read_only=True)
    try:
        with pytest.raises(DBAPIError, match="read-only"):
            async with engine.begin() as conn:
                await conn.execute(text("DELETE FROM audit"))
    finally:
        await engine.dispose()
