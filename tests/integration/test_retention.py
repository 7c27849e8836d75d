"""What is over and older than GATEWAY_RETENTION is deleted; what is open, or is still spoken of, never."""

from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.world import World, policy
from tests.fakes.faults import answer as airflow_answers
from tests.integration.api import opened
from tests.integration.pruned import TABLES, everything_is_explained, one_retrain, prune, rows
from tests.servers import TestServers


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
