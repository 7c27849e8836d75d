"""How the history is pruned: in batches, beside other replicas and beside what comes in, and nothing that is needed."""

import asyncio
import random
from datetime import timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy.exc import DBAPIError

from app.bootstrap.parts import PRUNES
from app.groups.retention import Retention
from app.kit.db import transaction
from app.notices.model import Notice, Severity
from tests.acceptance.world import World
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer as airflow_answers
from tests.fakes.pagerduty import FakePagerDuty
from tests.integration.api import POLICY, opened
from tests.integration.pruned import everything_is_explained, prune, rows, sql
from tests.servers import TestServers
from tests.sizes import seed, size


async def many_old(world: World, number: int) -> None:
    """Alerts that no route takes, ended, and older than the retention."""
    alerts = [world.alert("Nobody", number=str(n)) for n in range(number)]
    await world.push(*alerts)
    await world.push(*(alert.resolved(world.clock.now()) for alert in alerts))
    world.clock.pass_by(timedelta(days=91))


def retention(world: World, batch: int) -> Retention:
    services = world.services[0]
    keep = 90 * 86400
    return Retention(services.core, PRUNES, keep=keep, batch=batch)


async def test_an_incident_goes_with_what_was_told_when_it_is_over_and_told(
    servers: TestServers, database: str
) -> None:
    policy = POLICY + 'receivers: [{name: gone, alertmanager: {url: "http://gone.test"}}]\n'
    gone = FakePagerDuty(ManualClock())  # Whoever answers: it is not there.
    gone.down = True
    async with opened(servers, database, policy=policy, others={"gone.test": gone}) as world:
        services = world.services[0]
        for key in ("over", "open", "not told"):
            receivers = ["gone"] if key == "not told" else []
            async with transaction(services.core.engine) as conn:
                notice = Notice(key, "test", Severity.INFO, "t", "d")
                await services.notices.requests._incidents.open(conn, receivers, notice, world.clock.now())
                if key != "open":
                    await services.notices.requests._incidents.resolve(conn, key, world.clock.now(), "over")
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

        async def whole(retention: Retention) -> None:
            while await retention.step():
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


async def test_metadata_goes_with_its_reports_and_its_item_but_not_what_mlflow_still_lacks(
    servers: TestServers, database: str
) -> None:
    counted = ("reports", "records", "outbox", "attempts")
    async with opened(servers, database) as world, sql(database) as connection:
        for run in ("waits", "taken"):
            body = {"component": "training", "state": "started", "run": run, "who": "a test"}
            answer = await world.post("/api/v1/metadata", body)
        await world.settle()
        stream = f"run:{answer.json()['run']}"
        await connection.execute("UPDATE records SET state = 'delivered' WHERE stream = $1", stream)
        await connection.execute("UPDATE outbox SET state = 'delivered' WHERE payload->>'stream' = $1", stream)
        before = [await connection.fetchval(f"SELECT count(*) FROM {name}") for name in counted]
        await prune_all(world, days=90)
        assert before == [await connection.fetchval(f"SELECT count(*) FROM {name}") for name in counted]
        await prune_all(world, days=1)
        left = [await connection.fetchval(f"SELECT count(*) FROM {name}") for name in counted]
        assert left == [number // 2 for number in before]
        assert await connection.fetch("SELECT FROM records WHERE state <> 'pending'") == []


async def test_a_walk_that_fails_holds_up_no_other(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world, sql(database) as connection:
        await world.post("/api/v1/alerts", b"not JSON")
        world.clock.pass_by(timedelta(days=91))
        await connection.execute("ALTER TABLE notices RENAME TO elsewhere")
        failed, pruning = 0, retention(world, 10)
        for _ in PRUNES:
            try:
                await pruning.step()
            except DBAPIError:
                failed += 1
        assert failed == 1
        assert await connection.fetchval("SELECT count(*) FROM quarantine") == 0


async def prune_all(world: World, days: int) -> None:
    world.clock.pass_by(timedelta(days=days))
    while await world.services[0].loop("retention").step():
        pass
