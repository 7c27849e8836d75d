"""Groups that are due are decided whatever else is in the history, and whatever goes wrong with another group."""

import asyncio
import logging
from datetime import timedelta

import pytest
from sqlalchemy import text

from app.decide.books import MATES
from tests.acceptance.world import World, policy
from tests.servers import TestServers

# An alert of each event: none is ever heard of again, and nobody resolves it.
EVENTS = """
    INSERT INTO alerts SELECT (jsonb_populate_record(a, jsonb_build_object('id', older, 'fingerprint', n))).*
    FROM alerts a, generate_series(1, :many) n, concat(lpad(n::text, 8, '0'), '-0000-7000-8000-000000000000') older
"""

# It raises when the wake of one group lets its hold go.
POISON = (
    """
    CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.held_since IS NULL AND NEW.labels->>'model' = 'poison' THEN RAISE EXCEPTION 'poisoned'; END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER poison BEFORE UPDATE ON groups FOR EACH ROW EXECUTE FUNCTION poison()",
)


async def test_a_group_with_many_alerts_of_long_ago_fires_for_a_new_one(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="churn", event="0"))
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text(EVENTS), {"many": MATES})
        await world.pass_by(hours=30, steps=2)
        before = len(world.airflow.posts)
        await world.push(world.alert(model="churn", event="new"))
        await world.pass_by(minutes=11)
        assert len(world.airflow.posts) == before + 1


async def test_a_group_that_cannot_be_decided_holds_up_no_other(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(*(world.alert(model=model) for model in ("a", "poison", "z")))
        await world.settle()
        async with world.services[0].core.engine.begin() as conn:
            for statement in POISON:
                await conn.execute(text(statement))
        await world.pass_by(minutes=10)
        assert len(world.airflow.posts) == 2
        [record] = [r for r in caplog.records if r.levelno == logging.ERROR and r.name == "app.kit.loop"]
        assert record.exc_info is not None
        assert "poisoned" in str(record.exc_info[1])
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text("DROP TRIGGER poison ON groups"))
        await world.settle()
        assert len(world.airflow.posts) == 2, "not before its pause is over"
        await world.pass_by(minutes=1)
        assert len(world.airflow.posts) == 3


async def test_the_first_round_under_a_new_policy_locks_no_group_before_a_route(
    servers: TestServers, database: str
) -> None:
    limit = "limit: {triggers: 3, per: 7d}"
    async with World(servers, database, policy(limit)) as world:
        world.airflow.add_dag("retrain_model")
        await world.push(world.alert(model="a"), world.alert(model="b"))
        await world.pass_by(minutes=30)
        await world.reload(policy(limit, cooldown="23h"))
        engine = world.services[0].core.engine
        async with engine.begin() as conn:
            later = {"at": world.clock.now() + timedelta(hours=1)}
            await conn.execute(text("UPDATE groups SET wake_at = :at"), later)
        async with engine.begin() as conn:  # As intake does: the routes, then the groups.
            await conn.execute(text("SELECT name FROM routes FOR UPDATE"))
            step = asyncio.create_task(world.services[0].loop("waker").step())
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            async with asyncio.timeout(30):
                while not (await conn.execute(text(waiting))).scalar_one():
                    await conn.execute(text("SELECT pg_stat_clear_snapshot()"))
            await conn.execute(text("SELECT key FROM groups ORDER BY key FOR UPDATE"))
        await step
