"""What is over and older than GATEWAY_RETENTION is deleted; what is open, or is still spoken of, never."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from app.db import transaction
from app.notices.model import Notice, Severity
from app.triggers.retention import Retention
from tests.acceptance.world import World, policy
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer as airflow_answers
from tests.fakes.pagerduty import FakePagerDuty
from tests.integration.api import POLICY, opened
from tests.servers import TestServers
from tests.sizes import seed, size

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


async def test_what_is_over_goes_with_all_that_belongs_to_it(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        await one_retrain(world)
        await world.pass_by(days=30)
        await one_retrain(world)
        before = await prune(world)
        assert {t: before[t] for t in ("alerts", "triggers", "outbox", "attempts")} == {
            "alerts": 2,
            "triggers": 2,
            "outbox": 2,
            "attempts": 2,
        }
        await world.pass_by(days=61)
        after = await prune(world)
        assert {t: after[t] for t in ("alerts", "triggers", "outbox", "attempts")} == {
            "alerts": 1,
            "triggers": 1,
            "outbox": 1,
            "attempts": 1,
        }
        assert after["decisions"] == before["decisions"] / 2
        await everything_is_explained(world)


async def test_the_newest_trigger_of_a_group_stays_for_the_groups_state_names_it(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        await one_retrain(world)
        await world.pass_by(days=1000)
        assert await prune(world) == dict.fromkeys(TABLES, 0) | {"triggers": 1, "outbox": 1, "attempts": 1}
        [group] = (await world.get("/api/v1/routes", route="accuracy"))["items"][0]["groups"]
        assert group["last_trigger"] == (await world.trigger())["id"]
        await everything_is_explained(world)
        await world.services[0].loop("gauges").step()
        assert (await world.clients[0].get("/metrics")).text.count("gateway_last_success_timestamp_seconds{") == 1


async def test_until_the_day_nothing_goes_and_from_then_on_it_does(servers: TestServers, database: str) -> None:
    async with opened(servers, database, retention=2 * 86400) as world:
        alert = world.alert("Nobody")
        await world.push(alert)
        await world.push(alert.resolved(world.clock.now()))
        world.clock.pass_by(timedelta(days=2))
        assert (await prune(world))["alerts"] == 1
        world.clock.pass_by(timedelta(seconds=1))
        assert (await prune(world))["alerts"] == 0


async def test_a_retention_of_zero_keeps_everything(servers: TestServers, database: str) -> None:
    async with opened(servers, database, retention=0) as world:
        await one_retrain(world)
        before = await rows(world)
        world.clock.pass_by(timedelta(days=3000))
        assert await prune(world) == before


# -- what is open ---------------------------------------------------------------------------------------------------------


async def firing(world: World) -> None:
    """An alert that has been told every month for a year, and has been retrained for each time."""
    alert = world.alert(model="churn")
    for _ in range(12):
        await world.push(alert)
        await world.pass_by(days=30, steps=3)
    await world.push(alert)


async def held(world: World) -> None:
    alert = world.alert("Slow", model="churn")
    await world.push(alert)
    for _ in range(20):
        world.clock.pass_by(timedelta(days=5))
        await world.push(alert)


async def pending_at_a_paused_dag(world: World) -> None:
    alert = world.alert(model="churn")
    world.airflow.pause("retrain_model")
    await world.push(alert)
    await world.settle()
    await world.push(alert.resolved(world.clock.now()))
    await world.pass_by(days=200)


async def running(world: World) -> None:
    world.airflow.auto_finish = None
    alert = world.alert(model="churn")
    await world.push(alert)
    await world.settle()
    [run] = world.airflow.open_runs()
    world.airflow.start_run(run.dag_run_id)
    await world.pass_by(minutes=1)
    await world.push(alert.resolved(world.clock.now()))
    await world.pass_by(days=200)


SLOW = """
  - name: slow
    match: ['alertname="Slow"']
    group_by: [model]
    debounce: 300d
    dag: {id: retrain_model}
"""

OPEN = [(firing, "running"), (held, "held"), (pending_at_a_paused_dag, "pending"), (running, "running")]


@pytest.mark.parametrize(("situation", "state"), OPEN, ids=[situation.__name__ for situation, _ in OPEN])
async def test_an_open_trigger_keeps_what_is_behind_it(
    servers: TestServers, database: str, situation: Any, state: str
) -> None:
    async with opened(servers, database, policy=policy() + SLOW) as world:
        await situation(world)
        await world.settle()
        before = await world.triggers()
        alerts = await world.alerts()
        assert len(alerts) == 1
        await prune(world)
        after = await world.triggers()
        assert after[0] == before[0]
        assert after[0]["state"] in (state, "submitted")
        assert [a["id"] for a in after[0]["alerts"]] == [alerts[0]["id"]]
        assert [a["id"] for a in await world.alerts()] == [alerts[0]["id"]]
        await everything_is_explained(world)


async def test_an_alert_that_fires_for_a_year_loses_the_old_part_of_its_story(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        await firing(world)
        before = await rows(world)
        [alert] = await world.alerts()
        after = await prune(world)
        assert after["alerts"] == before["alerts"] == 1
        assert 3 <= after["triggers"] <= 5 < before["triggers"]
        assert after["decisions"] < before["decisions"]
        [kept] = await world.alerts()
        assert kept | {"decisions": []} == alert | {"decisions": []}
        assert kept["decisions"] == alert["decisions"][-len(kept["decisions"]) :]


async def test_an_alert_nobody_ever_ended_is_closed_and_goes_one_retention_later(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        await world.post("/api/v1/alerts", {"alert_id": "X", "severity": "low", "timestamp": "2026-11-23T12:00:00Z"})
        world.clock.pass_by(timedelta(days=90))
        await prune(world)
        assert len(await world.alerts(status="firing")) == 1
        world.clock.pass_by(timedelta(days=1))
        await prune(world)
        assert len(await world.alerts(status="resolved")) == 1
        await everything_is_explained(world)
        world.clock.pass_by(timedelta(days=91))
        assert (await prune(world))["alerts"] == 0


async def test_an_alert_that_still_fires_by_its_stale_after_is_not_closed(servers: TestServers, database: str) -> None:
    async with opened(servers, database, policy=policy("stale_after: 365d\nrefire: false")) as world:
        await world.push(world.alert(model="churn"))
        await world.pass_by(hours=1, steps=4)
        await world.pass_by(days=360)
        await prune(world)
        assert len(await world.alerts(status="firing")) == 1
        await world.pass_by(days=6)
        await prune(world)
        assert len(await world.alerts(status="resolved")) == 1


async def test_a_limit_longer_than_the_retention_still_counts_every_trigger(
    servers: TestServers, database: str
) -> None:
    limited = policy("limit: {triggers: 2, per: 180d}", cooldown="1h")
    async with opened(servers, database, policy=limited) as world:
        for _ in range(2):
            await one_retrain(world)
            await world.pass_by(days=50)
        await prune(world)
        [third] = await world.push(world.alert(model="churn"))
        assert (third["action"], third["reason"]) == ("suppress", "limit")


async def test_a_dead_trigger_that_is_its_groups_newest_can_be_redriven_after_a_year(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        world.airflow.disturb(airflow_answers(422, {"detail": "no such conf"}), on="trigger")
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(days=365)
        await prune(world)
        dead = await world.trigger()
        assert (await world.post(f"/api/v1/triggers/{dead['id']}/redrive", {})).status_code == 200
        await world.settle()
        assert len(world.airflow.runs) == 1


async def test_audit_and_quarantine_go_by_their_age(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        await world.push(world.alert(model="churn"))
        for body in (b"once", b"again and again"):
            await world.post("/api/v1/alerts", body)
        await world.post("/api/v1/routes/accuracy/reset", {"group": {"model": "churn"}})
        world.clock.pass_by(timedelta(days=89))
        await world.post("/api/v1/alerts", b"again and again")
        await world.post("/api/v1/routes/accuracy/reset", {"group": {"model": "churn"}})
        world.clock.pass_by(timedelta(days=2))
        left = await prune(world)
        assert (left["audit"], left["quarantine"]) == (1, 1)
        assert (await world.get("/api/v1/quarantine"))["items"][0]["count"] == 2


# -- how it is done -------------------------------------------------------------------------------------------------------


async def many_old(world: World, number: int) -> None:
    """Alerts that no route takes, ended, and older than the retention."""
    alerts = [world.alert("Nobody", number=str(n)) for n in range(number)]
    await world.push(*alerts)
    await world.push(*(alert.resolved(world.clock.now()) for alert in alerts))
    world.clock.pass_by(timedelta(days=91))


def retention(world: World, batch: int) -> Retention:
    services = world.services[0]
    keep = 90 * 86400
    return Retention(services.engine, services.clock, lambda: services.policy, services.metrics, keep=keep, batch=batch)


async def test_an_incident_goes_with_what_was_told_when_it_is_over_and_told(
    servers: TestServers, database: str
) -> None:
    policy = POLICY + 'receivers: [{name: gone, alertmanager: {url: "http://gone.test"}}]\n'
    gone = FakePagerDuty(ManualClock())  # Whoever answers: it is not there.
    gone.down = True
    async with opened(servers, database, policy=policy, others={"gone.test": gone}) as world:
        services = world.services[0]
        for key in ("over", "open", "not told"):
            told = ["gone"] if key == "not told" else []
            async with transaction(services.engine) as conn:
                notice = Notice(key, "test", Severity.INFO, "t", "d")
                await services.notices.requests._notices.open(conn, told, notice, world.clock.now())
                if key != "open":
                    await services.notices.requests._notices.resolve(conn, key, world.clock.now(), "over")
        world.clock.pass_by(timedelta(days=91))
        await prune(world)
        async with sql(database) as connection:
            left = await connection.fetch("SELECT key FROM notices ORDER BY key")
            assert [row["key"] for row in left] == ["not told", "open"]
            await connection.execute("UPDATE outbox SET state = 'delivered'")
            await prune(world)
            counts = [
                await connection.fetchval(f"SELECT count(*) FROM {name}") for name in ("notices", "tellings", "outbox")
            ]
            assert counts == [1, 0, 0]


async def test_a_step_deletes_a_batch_and_no_more(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        await many_old(world, 25)
        small, left = retention(world, 10), [25]
        while await small.step():
            left.append((await rows(world))["alerts"])
        assert {a - b for a, b in pairwise(left)} <= {0, 10, 5}
        assert left[-1] == 0


async def test_what_somebody_has_locked_is_left_for_the_next_pass_without_waiting(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        await many_old(world, 7)
        async with sql(database) as other:
            transaction = other.transaction()
            await transaction.start()
            await other.execute('SELECT FROM alerts WHERE labels @> \'{"number": "3"}\' FOR NO KEY UPDATE')
            async with asyncio.timeout(1.5):  # sooner than the lock_timeout
                assert (await prune(world))["alerts"] == 1
            await transaction.rollback()
        assert (await prune(world))["alerts"] == 0


async def test_several_replicas_prune_at_once(servers: TestServers, database: str) -> None:
    async with opened(servers, database, replicas=3) as world:
        await many_old(world, size(60, 5000))

        async def whole(one: Retention) -> None:
            while await one.step():
                pass

        await asyncio.gather(*(whole(retention(world, 7)) for _ in world.services))
        await prune(world)
        assert (await rows(world))["alerts"] == 0


async def test_an_alert_that_comes_back_while_it_is_pruned_is_acknowledged_and_kept(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        alerts = [world.alert(model=f"m{n}") for n in range(size(20, 200))]
        await world.push(*alerts)
        await world.pass_by(hours=1, steps=4)
        ended = [alert.resolved(world.clock.now()) for alert in alerts]
        await world.push(*ended)
        world.clock.pass_by(timedelta(days=91))

        async def pruning() -> None:
            small = retention(world, 3)
            while await small.step():
                pass

        await asyncio.gather(pruning(), *(world.push(alert) for alert in alerts))
        await prune(world)
        firing_now = await world.alerts(status="firing")
        assert sorted(a["group"]["model"] for a in firing_now) == sorted(a.labels["model"] for a in alerts)
        await everything_is_explained(world)


async def test_whatever_happened_nothing_open_and_nothing_young_is_lost(servers: TestServers, database: str) -> None:
    choice = random.Random(seed())
    async with opened(servers, database, retention=5 * 86400) as world:
        known: dict[str, Any] = {}
        for _ in range(size(60, 1500)):
            name, model = choice.choice(["ModelAccuracyLow", "Drift", "Once"]), choice.choice("abcd")
            key = f"{name} {model}"
            match choice.choice(["fire", "fire", "resolve", "pass", "pass", "break", "prune", "prune"]):
                case "fire":
                    known.setdefault(key, world.alert(name, model=model))
                    await world.push(known[key])
                case "resolve" if key in known:
                    await world.push(known.pop(key).resolved(world.clock.now()))
                case "break":
                    world.airflow.disturb(airflow_answers(422, {"detail": "no such conf"}), on="trigger")
                case "prune":
                    await pruned_rightly(world)
                case _:
                    await world.pass_by(hours=choice.choice([1, 12, 30]), steps=2)
        await world.pass_by(days=6)
        await pruned_rightly(world)
        await everything_is_explained(world)


async def pruned_rightly(world: World) -> None:
    """A pass loses nothing that is open, and nothing that ended or was heard of within the retention."""
    limit = (world.clock.now() - timedelta(days=5)).isoformat()
    alerts, triggers = await world.alerts(), await world.triggers()
    await prune(world)
    left = {a["id"]: a for a in await world.alerts()}
    for alert in alerts:
        if alert["last_seen_at"] >= limit.replace("+00:00", "Z"):
            assert left[alert["id"]]["status"] == alert["status"]
            assert left[alert["id"]]["decisions"][-1] == alert["decisions"][-1]
    remaining = {t["id"] for t in await world.triggers()}
    for trigger in triggers:
        assert trigger["ended_at"] is not None or trigger["id"] in remaining
        assert (trigger["ended_at"] or "9") < limit.replace("+00:00", "Z") or trigger["id"] in remaining
