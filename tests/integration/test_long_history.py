"""With a long history behind it: lists and explanations go by index alone, and intake does not notice.

The plans are those of the statements that the API really runs, with their parameters. PROVE=1: two million rows.
"""

import json
from collections.abc import AsyncIterator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import event, text

from app.bootstrap.parts import PRUNES
from app.groups.retention import Retention
from app.kit.clock import monotonic
from tests.acceptance.world import World
from tests.integration.api import opened
from tests.servers import TestServers
from tests.sizes import size

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Three alerts, six decisions and one trigger of ten rows. The trigger's item and attempt come on top.
ROWS = size(20_000, 2_000_000)
LARGE = {"alerts", "decisions", "triggers", "outbox", "attempts", "runs", "versions"}

# An alert every few seconds of the 90 days before noon: ended but for the newest hundred, each with two decisions, each
# third behind a trigger. One in ten thousand was dismissed by a person, and one model in a thousand is rare.
_ALERTS = """
    INSERT INTO alerts (id, alert_id, fingerprint, source, status, severity, starts_at, labels, annotations, route,
        group_key, group_labels, count, first_seen_at, last_seen_at, firing_since, closed_at, resolved_at, trigger_id,
        spent, dismissed, decision_id, decision_count, reason)
    SELECT uuidv7(t - clock_timestamp()), 'A' || n % 50, md5(n::text), 'alertmanager',
        CASE WHEN n > $1 - 100 THEN 'firing' ELSE 'resolved' END, 'critical', t,
        jsonb_build_object('alertname', 'A' || n % 50, 'severity', 'critical', 'model', 'm' || n % 1000), '{}',
        CASE n % 3 WHEN 0 THEN 'accuracy' WHEN 1 THEN 'drift' END, md5('g' || n % 1000),
        jsonb_build_object('model', 'm' || n % 1000), 5, t, t + interval '1 hour', t,
        CASE WHEN n <= $1 - 100 THEN t + interval '1 hour' END, CASE WHEN n <= $1 - 100 THEN t + interval '1 hour' END,
        CASE n % 3 WHEN 0 THEN uuidv7(t - clock_timestamp()) END, false, false,
        uuidv7(t + interval '1 hour' - clock_timestamp()), 1,
        CASE WHEN n > $1 - 100 THEN 'cooldown' WHEN n % 10000 = 7 THEN 'by_request' ELSE 'resolved' END
    FROM (SELECT n, timestamptz '2026-11-23 12:00Z' - ($1 - n) * interval '90 days' / $1 AS t
          FROM generate_series(1, $1) n) made
"""
_DECISIONS = """
    INSERT INTO decisions (id, alert, trigger_id, route, group_key, action, reason, detail, policy, count, first_at, last_at)
    SELECT id, alert, trigger_id, route, group_key, action, reason, '', 'p', 1, at, at FROM (
        SELECT decision_id AS id, id AS alert, trigger_id, route, group_key, 'suppress' AS action, reason,
            last_seen_at AS at FROM alerts
        UNION ALL
        SELECT uuidv7(first_seen_at - clock_timestamp()), id, trigger_id, route, group_key, 'fire', 'new_alert',
            first_seen_at FROM alerts
    ) d ORDER BY at
"""
_TRIGGERS = """
    INSERT INTO triggers (id, route, mode, group_key, group_labels, reason, state, outcome, detail, created_at, fired_at,
        ended_at, airflow, dag_id, dag_run_id, run_timeout, on_failure, policy)
    SELECT trigger_id, route, 'live', group_key, group_labels,
        CASE WHEN row_number() OVER (ORDER BY id) % 500 = 3 THEN 'manual' ELSE 'new_alert' END,
        CASE WHEN row_number() OVER (ORDER BY id) % 700 = 3 THEN 'dead' ELSE 'succeeded' END, 'success', '', first_seen_at,
        first_seen_at, last_seen_at, 'default', 'retrain_model', 'gateway__' || trigger_id, 86400, 'release', 'p'
    FROM alerts WHERE trigger_id IS NOT NULL
"""
_OUTBOX = """
    INSERT INTO outbox (id, kind, target, payload, state, detail, created_at, available_at, slot, ambiguous, attempts,
        answered_seconds)
    SELECT id, 'airflow.dag_run', 'airflow:default', '{}', CASE state WHEN 'dead' THEN 'dead' ELSE 'delivered' END, '',
        created_at, created_at, false, false, 1, 0 FROM triggers
"""
_ATTEMPTS = """
    INSERT INTO attempts (id, item, result, code, detail, count, first_at, last_at)
    SELECT uuidv7(created_at - clock_timestamp()), id, 'delivered', 'ok', '', 1, created_at, created_at FROM triggers
"""
_RUNS = """
    INSERT INTO runs (run_id, experiment_id, name, status, deleted, trigger_id, dag_run_id, git_commit, metrics, started_at,
        ended_at, seen_at)
    SELECT md5(id::text), '1', 'n', 'FINISHED', false, id, dag_run_id, md5(id::text), 3, created_at, ended_at, ended_at
    FROM triggers
"""
_VERSIONS = """
    INSERT INTO versions (model, version, run_id, status, created_at, seen_at)
    SELECT group_labels->>'model', row_number() OVER (PARTITION BY group_labels ORDER BY id), md5(id::text), 'READY',
        ended_at, ended_at FROM triggers
"""
# A group for some of the models, with its newest trigger.
_GROUPS = """
    INSERT INTO groups (key, route, mode, labels, fired_at, failures, last_trigger, on_failure, version, nonce)
    SELECT DISTINCT ON (group_key) group_key, 'accuracy', 'live', group_labels, fired_at, 0, id, 'release', 1, '0'
    FROM triggers ORDER BY group_key, id DESC LIMIT 60
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    """A gateway with 90 days of history."""
    database = servers.fresh_database(template)
    connection = await asyncpg.connect(database)
    await connection.execute(_ALERTS.replace("$1", str(ROWS * 3 // 10)))
    for statement in (_DECISIONS, _TRIGGERS, _OUTBOX, _ATTEMPTS, _RUNS, _VERSIONS, _GROUPS, "VACUUM ANALYZE"):
        await connection.execute(statement)
    await connection.close()
    async with opened(servers, database) as opened_world:
        yield opened_world


@contextmanager
def recorded(world: World) -> Iterator[list[tuple[str, Any]]]:
    """The statements that the gateway runs meanwhile, with their parameters."""
    seen: list[tuple[str, Any]] = []
    services = world.services[0]
    engines = {services.core.engine.sync_engine, services.foundation.intake.engine.sync_engine}

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        seen.append((statement, parameters))

    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


async def whole_scans(
    world: World, statements: list[tuple[str, Any]], tables: AbstractSet[str] = frozenset(LARGE)
) -> list[str]:
    """What their plans read from one end to the other, of these tables."""
    found = []
    async with world.services[0].core.engine.connect() as conn:
        for statement, parameters in statements:
            plan = (await conn.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)).scalar_one()
            for node in nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]):
                if node["Node Type"] == "Seq Scan" and node["Relation Name"] in tables:
                    found.append(f"{node['Relation Name']}: {statement}")
    return found


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


DAY = "2026-11-22T12:00:00Z"
LISTS = [
    "alerts",
    "alerts?route=accuracy",
    "alerts?status=firing",
    "alerts?status=resolved",
    "alerts?reason=resolved",
    "alerts?reason=by_request",
    "alerts?reason=debouncing",
    "alerts?label=model=m7",
    "alerts?label=model=nobody",
    f"alerts?since={DAY}",
    "alerts?since=2026-11-23T11:59:00Z",
    f"alerts?since={DAY}&until=2026-11-22T13:00:00Z",
    "alerts?route=drift&reason=resolved&status=resolved",
    "triggers",
    "triggers?route=accuracy",
    "triggers?status=running",
    "triggers?status=dead",
    "triggers?status=succeeded",
    "triggers?reason=manual",
    "triggers?label=model=m6",
    f"triggers?since={DAY}",
    "routes",
    "quarantine",
]


@pytest.mark.parametrize("path", LISTS)
async def test_a_list_is_read_by_index_alone(world: World, path: str) -> None:
    with recorded(world) as statements:
        began = monotonic()
        answer = await world.clients[0].get(f"/api/v1/{path}")
        took = monotonic() - began
    assert answer.status_code == 200, answer.text
    print(f"{path}: {took * 1000:.0f} ms, {len(answer.json()['items'])} items")
    assert await whole_scans(world, statements) == []


@pytest.mark.parametrize(
    ("short", "many"),
    [
        ("alerts?limit=1", "alerts?limit=1000"),
        ("triggers?limit=1", "triggers?limit=1000"),
        ("routes?route=accuracy", "routes?limit=1000"),
    ],
)
async def test_a_long_list_takes_no_more_statements_than_a_short_one(world: World, short: str, many: str) -> None:
    taken = []
    for path in (short, many):
        with recorded(world) as statements:
            assert (await world.clients[0].get(f"/api/v1/{path}")).status_code == 200
        taken.append(len(statements))
    assert taken[0] == taken[1] <= 6


async def test_a_long_page_shows_fewer_decisions_of_each_alert(world: World) -> None:
    """The newest ten of each of a thousand alerts; of one alert by itself a hundred."""
    newest = (await world.get("/api/v1/alerts", limit=1))["items"][0]["id"]
    more = """
        INSERT INTO decisions (id, alert, route, group_key, action, reason, detail, policy, count, first_at, last_at)
        SELECT uuidv7(n * interval '1 ms'), :alert, 'accuracy', '', 'suppress', 'cooldown', 'n' || n, 'p', 1, now(), now()
        FROM generate_series(1, 40) n
    """
    async with world.services[0].core.engine.begin() as conn:
        await conn.execute(text(more), {"alert": newest})
    for limit, shown in ((100, 42), (200, 42), (500, 20), (1000, 10)):
        page = (await world.get("/api/v1/alerts", limit=limit))["items"]
        [decisions] = [alert["decisions"] for alert in page if alert["id"] == newest]
        assert (len(decisions), decisions[-1]["detail"]) == (shown, "n40")
    assert len((await world.get(f"/api/v1/alerts/{newest}"))["decisions"]) == 42


@pytest.mark.parametrize("subject", ["alert", "trigger", "alert_id", "fingerprint", "nobody"])
async def test_an_explanation_is_read_by_index_alone(world: World, subject: str) -> None:
    alert = (await world.get("/api/v1/alerts", route="accuracy", status="resolved", limit=1))["items"][0]
    asked = {"alert": alert["id"], "trigger": alert["trigger_id"]} | alert
    with recorded(world) as statements:
        answer = await world.clients[0].get(f"/api/v1/explain/{asked.get(subject, subject)}")
    assert answer.status_code == (404 if subject == "nobody" else 200), answer.text
    assert len(statements) >= 2
    assert await whole_scans(world, statements) == []


@pytest.mark.parametrize("end", ["trigger", "alert", "dag_run", "run", "version"])
async def test_lineage_is_told_by_index_alone_from_each_of_its_ends(world: World, end: str) -> None:
    trigger = (await world.get("/api/v1/triggers", route="accuracy", limit=5))["items"][-1]
    (run,) = trigger["runs"]
    ends = {
        "trigger": {"trigger": trigger["id"]},
        "alert": {"alert": (await world.get("/api/v1/alerts", route="accuracy", limit=5))["items"][-1]["id"]},
        "dag_run": {"dag_run": trigger["dag_run_id"]},
        "run": {"run": run["run_id"]},
        "version": run["versions"][0],
    }
    with recorded(world) as statements:
        began = monotonic()
        found = await world.get("/api/v1/lineage", **ends[end])
        print(f"{end}: {(monotonic() - began) * 1000:.0f} ms, {len(statements)} statements")
    assert len(found["chains"][0]["runs"][0]["versions"]) == 1
    assert found["mlflow"]["state"] == "not_configured"
    assert await whole_scans(world, statements) == []


@pytest.mark.parametrize(
    "asked", ["accuracy/explain", "accuracy/explain?label=model=m6&since=90d", "once/explain?since=1h"]
)
async def test_the_silence_of_a_route_is_explained_by_index_alone(world: World, asked: str) -> None:
    with recorded(world) as statements:
        began = monotonic()
        answer = await world.clients[0].get(f"/api/v1/routes/{asked}")
        print(f"{asked}: {(monotonic() - began) * 1000:.0f} ms, {answer.json()['alerts']} alerts")
    assert answer.status_code == 200, answer.text
    assert len(statements) >= 6
    assert await whole_scans(world, statements) == []


@pytest.mark.parametrize(
    "path", ["", "?days=365", "?state=firing", "/groups/{key}", "/groups/{key}?days=365", "/policy"]
)
async def test_a_page_is_read_by_index_alone(world: World, path: str) -> None:
    async with world.services[0].core.engine.connect() as conn:
        key = (await conn.execute(text("SELECT min(key) FROM groups WHERE fired_at IS NOT NULL"))).scalar_one()
    with recorded(world) as statements:
        began = monotonic()
        answer = await world.clients[0].get(f"/ui{path.format(key=key)}", headers={"Accept": "text/html"})
        print(f"/ui{path}: {(monotonic() - began) * 1000:.0f} ms, {len(statements)} statements")
    assert answer.status_code == 200, answer.text
    assert await whole_scans(world, statements) == []


async def test_the_gauges_are_read_by_index_alone(world: World) -> None:
    with recorded(world) as statements:
        await world.services[0].loop("gauges").step()
    assert await whole_scans(world, statements) == []
    shown = (await world.clients[0].get("/metrics")).text
    assert 'gateway_last_success_timestamp_seconds{route="accuracy"} 1.795' in shown


async def test_intake_does_not_notice_the_history(world: World, servers: TestServers, template: str) -> None:
    """Prints the ratio; how fast this machine is at this moment is nothing to assert."""
    rounds = size(10, 200)
    async with opened(servers, servers.fresh_database(template)) as empty:
        spent = {"empty": 0.0, "full": 0.0}
        for turn in range(rounds + 2):
            for name, chosen in (("empty", empty), ("full", world)):
                alerts = [chosen.alert(model=f"new{turn}-{n}") for n in range(50)]
                began = monotonic()
                decisions = await chosen.push(*alerts)
                decisions += await chosen.push(*(alert.resolved(chosen.clock.now()) for alert in alerts))
                spent[name] += monotonic() - began if turn >= 2 else 0.0
                assert [d["action"] for d in decisions] == ["fire"] * 50 + ["ignore"] * 50
    ratio = spent["empty"] / spent["full"]
    print(
        f"{ROWS} rows: {rounds * 100 / spent['full']:.0f} alerts a second; {ratio:.2f} of those into an empty database"
    )


async def test_a_step_of_pruning_is_read_by_index_alone(world: World) -> None:
    s = world.services[0]
    pruning = Retention(s.core, PRUNES, keep=30 * 86400, batch=10)
    before = (await world.clients[0].get("/metrics")).text.count("gateway_pruned_rows_total{")
    with recorded(world) as statements:
        for _ in range(60):  # Small batches: of a small table a large one is cheaper read whole.
            await pruning.step()
    assert [statement for statement, _ in statements if "DELETE" in statement]
    assert await whole_scans(world, statements) == []
    assert (await world.clients[0].get("/metrics")).text.count("gateway_pruned_rows_total{") > before
