"""A long past for tests of the retention: what is there, one whole pass, and nothing that speaks of what is gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.acceptance.world import World

TABLES = ("alerts", "decisions", "triggers", "outbox", "attempts", "audit", "quarantine")
EXPLAINED = ("alerts", "triggers")

#: Each counts rows that speak of something that is not there. None may ever be found.
DANGLING = {
    "an alert without its newest decision": """
        alerts a WHERE NOT EXISTS (SELECT FROM decisions d WHERE d.id = a.decision_id)""",
    "an alert without its trigger": """
        alerts a WHERE trigger_id IS NOT NULL AND NOT EXISTS (SELECT FROM triggers t WHERE t.id = a.trigger_id)""",
    "a decision without its alert": """
        decisions d WHERE alert IS NOT NULL AND NOT EXISTS (SELECT FROM alerts a WHERE a.id = d.alert)""",
    "a decision without its trigger": """
        decisions d WHERE trigger_id IS NOT NULL AND NOT EXISTS (SELECT FROM triggers t WHERE t.id = d.trigger_id)""",
    "a group without its trigger": """
        groups g WHERE EXISTS (SELECT FROM unnest(ARRAY[g.last_trigger, g.open_trigger]) i
            WHERE i IS NOT NULL AND NOT EXISTS (SELECT FROM triggers t WHERE t.id = i))""",
    "an item without its trigger": """
        outbox o WHERE kind <> 'notice' AND NOT EXISTS (SELECT FROM triggers t WHERE t.id = o.id)""",
    "an effect without its trigger": "effects e WHERE NOT EXISTS (SELECT FROM triggers t WHERE t.id = e.trigger_id)",
    "an attempt without its item": "attempts x WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.id = x.item)",
}


@asynccontextmanager
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


async def rows(world: World) -> dict[str, int]:
    """Rows of each table; checked on the way: nothing speaks of what is not there."""
    async with sql(world.database) as connection:
        for what, condition in DANGLING.items():
            assert await connection.fetchval(f"SELECT count(*) FROM {condition}") == 0, what
        return {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}


async def prune(world: World, replica: int = 0) -> dict[str, int]:
    """A whole pass; the rows that are left."""
    while await world.services[replica].loop("retention").step():
        pass
    return await rows(world)


async def everything_is_explained(world: World) -> None:
    for path in EXPLAINED:
        for item in (await world.get(f"/api/v1/{path}", limit=1000))["items"]:
            assert (await world.explain(item["id"]))["summary"]
            assert (await world.get(f"/api/v1/{path}/{item['id']}"))["id"] == item["id"]


async def one_retrain(world: World) -> None:
    """An alert fires, its run succeeds, it is resolved."""
    alert = world.alert(model="churn")
    await world.push(alert)
    await world.pass_by(hours=1, steps=4)
    await world.push(alert.resolved(world.clock.now()))
