"""A newer version of the gateway migrates the database while this one runs. This one goes on until it is replaced."""

from sqlalchemy import text

from app.tables import metadata
from tests.acceptance.promotions import Gates, seen
from tests.acceptance.test_probation import TERMS, fires, opened, policy, promoted
from tests.acceptance.test_probation_faults import WRITE
from tests.acceptance.world import World, reasons
from tests.fakes.faults import timeout
from tests.servers import TestServers

PAGES = ("/ui", "/ui/promotions?model=churn")


async def migrated(world: World) -> None:
    """What a newer version may do: columns that this version does not know, and a revision of its own."""
    async with world.services[0].core.engine.begin() as conn:
        for table in metadata.sorted_tables:
            await conn.execute(text(f"ALTER TABLE {table.name} ADD COLUMN newer text NOT NULL DEFAULT 'x'"))
        await conn.execute(text("UPDATE alembic_version SET version_num = 'newer'"))


async def read_everything(gates: Gates) -> None:
    """Every list, every page, and what is known of each alert and each trigger."""
    world = gates.world
    paths = [path for path, item in world.apps[0].openapi()["paths"].items() if "get" in item and "{" not in path]
    assert "/api/v1/routes" in paths
    assert "/readyz" in paths
    ids = [each["id"] for each in [*await world.alerts(), *await world.triggers()]]
    paths += [*PAGES, *(f"/api/v1/explain/{ident}" for ident in ids), "/api/v1/routes/accuracy/explain"]
    for path in paths:
        answer = await world.clients[0].get(path)
        assert answer.status_code < 500 or path.startswith("/health/"), (path, answer.text)


async def test_a_replica_goes_on_in_a_database_that_a_newer_version_has_migrated(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        world = gates.world
        await fires(gates)
        await world.pass_by(minutes=40, steps=2)
        trigger = (await world.trigger())["id"]
        await promoted(gates, tags={"gateway.trigger_id": trigger})
        await seen(world, trigger, "2")
        await read_everything(gates)
        await migrated(world)
        await read_everything(gates)
        await world.pass_by(minutes=1)
        await fires(gates, "ModelErrors")
        await world.pass_by(minutes=10)
        assert gates.champion() == "1", "its probation goes on"
        gates.mlflow.disturb(timeout(after_commit=True), on=WRITE)
        gates.mlflow.add("churn", {"f1": 0.95})
        assert (await gates.ask("3")).status_code == 503
        await world.pass_by(minutes=1)
        assert (gates.champion(), (await gates.states())[-1]) == ("3", "promoted"), "a half change is completed"
        changed = policy(TERMS).replace("group_by: [model]", "group_by: [model, region]")
        assert (await world.reload(changed)).status_code == 200
        [decision] = await world.push(world.alert(model="fraud"))
        assert reasons([decision]) == [("hold", "debouncing")]
        await world.pass_by(minutes=20)
        await world.pass_by(minutes=20)
        assert [each["state"] for each in await world.triggers()] == ["succeeded", "succeeded"]
        await read_everything(gates)
