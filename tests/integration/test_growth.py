"""With many groups, and many DAG runs under way, a loop finds what is due by index alone, in as many statements as with few.

PROVE=1: 100,000 groups, each with an alert that fires, and 10,000 with a DAG run under way.
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from tests.acceptance.world import World
from tests.integration.test_long_history import LARGE, recorded, whole_scans
from tests.servers import TestServers
from tests.sizes import size

pytestmark = pytest.mark.asyncio(loop_scope="module")

GROUPS = size(10_000, 100_000)
FEW = 10
LOOPS = ("waker", "confirmer", "relay", "follower", "notices", "schedules", "gauges")

# Each group has an alert and a trigger. One in ten has its run under way, which is read next in a day. Its outbox item keeps
# its slot.
_ALERTS = """
    INSERT INTO alerts (id, alert_id, fingerprint, source, status, severity, starts_at, labels, annotations, route,
        group_key, group_labels, count, first_seen_at, last_seen_at, firing_since, spent, dismissed, decision_id,
        decision_count, reason)
    SELECT uuidv7(n * interval '1 ms'), 'A', md5(n::text), 'alertmanager', 'firing', 'critical', t, labels, '{}',
        'accuracy', md5('g' || n), labels, 1, t, t, t, false, false, uuidv7(n * interval '1 ms'), 1, 'new_alert'
    FROM (SELECT n, timestamptz '2026-11-23 11:00Z' AS t, jsonb_build_object('model', 'm' || n) AS labels
          FROM generate_series(1, $1) n) made
"""
_DECISIONS = """
    INSERT INTO decisions (id, alert, route, group_key, action, reason, detail, policy, count, first_at, last_at)
    SELECT decision_id, id, route, group_key, 'fire', reason, '', 'p', 1, first_seen_at, first_seen_at FROM alerts
"""
_TRIGGERS = """
    INSERT INTO triggers (id, route, mode, group_key, group_labels, reason, state, detail, created_at, fired_at, accepted_at,
        airflow, dag_id, dag_run_id, run_timeout, on_failure, policy, follow_at)
    SELECT uuidv7(n * interval '1 ms'), 'accuracy', 'live', md5('g' || n), jsonb_build_object('model', 'm' || n),
        'new_alert', CASE WHEN n % 10 = 0 THEN 'running' ELSE 'succeeded' END, '', t, t, t, 'default', 'retrain_model',
        'gateway__' || n, 86400, 'release', 'p', CASE WHEN n % 10 = 0 THEN t + interval '1 day' END
    FROM (SELECT n, timestamptz '2026-11-23 11:00Z' AS t FROM generate_series(1, $1) n) made
"""
_GROUPS = """
    INSERT INTO groups (key, route, mode, labels, fired_at, failures, ineffective, version, nonce, wake_at, open_trigger,
        last_trigger)
    SELECT md5('g' || n), 'accuracy', 'live', jsonb_build_object('model', 'm' || n), t.fired_at, 0, 0, 1, '0',
        CASE WHEN n % 10 = 5 THEN timestamptz '2026-11-24 12:00Z' END, CASE WHEN t.state = 'running' THEN t.id END, t.id
    FROM generate_series(1, $1) n LEFT JOIN triggers t ON t.group_key = md5('g' || n)
"""
_OUTBOX = """
    INSERT INTO outbox (id, kind, target, payload, state, detail, created_at, available_at, slot, ambiguous, attempts,
        answered_seconds)
    SELECT id, 'airflow.dag_run', 'airflow:default', '{}', 'delivered', '', created_at, created_at, state = 'running', false,
        1, 0
    FROM triggers
"""


async def world_of(servers: TestServers, database: str, groups: int) -> World:
    """A gateway that has just started on so many groups, and has looked at each of them once."""
    world = World(servers, database)
    await world.__aenter__()
    connection = await asyncpg.connect(database)
    for statement in (_ALERTS, _DECISIONS, _TRIGGERS, _GROUPS, _OUTBOX):
        await connection.execute(statement.replace("$1", str(groups)))
    await connection.execute("VACUUM ANALYZE")
    # A gateway that starts looks at every group that waits; this one has done so.
    for name in ("waker", "confirmer"):
        await world.services[0].loop(name).step()
    await connection.execute("UPDATE groups SET wake_at = timestamptz '2026-11-24 12:00Z' WHERE wake_at IS NOT NULL")
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    return world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worlds(servers: TestServers, template: str) -> AsyncIterator[tuple[World, World]]:
    """One with few groups, one with many."""
    few = await world_of(servers, servers.fresh_database(template), FEW)
    many = await world_of(servers, servers.fresh_database(template), GROUPS)
    yield few, many
    for world in (few, many):
        await world.__aexit__(None, None, None)


@pytest.mark.parametrize("name", LOOPS)
async def test_a_loop_finds_what_is_due_by_index_alone(worlds: tuple[World, World], name: str) -> None:
    taken = []
    for world in worlds:
        with recorded(world) as statements:
            assert not await world.services[0].loop(name).step()
        taken.append(len(statements))
    assert taken[0] == taken[1]
    assert await whole_scans(worlds[1], statements, LARGE | {"groups"}) == []


async def test_an_alert_takes_as_many_statements_among_many_groups_as_among_few(worlds: tuple[World, World]) -> None:
    taken = []
    for world in worlds:
        with recorded(world) as statements:
            await world.push(world.alert(model="new"))
        taken.append(len(statements))
    assert taken[0] == taken[1]
    # Postgres takes the rows of an UPDATE for a hundred, which may be dearer by index than a small table read whole.
    reads = [each for each in statements if not each[0].strip().startswith("UPDATE")]
    assert await whole_scans(worlds[1], reads, LARGE | {"groups"}) == []
