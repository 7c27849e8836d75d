"""Did it help? The effect of each fired trigger, from outside, with a clock that the test moves."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.acceptance.promotions import ENTRY, Gates, seen, surveyed
from tests.acceptance.world import FakeAlert, World, policy
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import ManualClock
from tests.fakes.mlflow_registry import FakeMlflowRegistry
from tests.fakes.pagerduty import FakePagerDuty
from tests.servers import TestServers

DEFAULT = policy()
SECOND = timedelta(seconds=1)


def opened(servers: TestServers, database: str, policy_text: str = DEFAULT, **more: Any) -> World:
    """A world whose Airflow has the DAG; its runs take 20 minutes and end well."""
    clock = more.pop("clock", None) or ManualClock()
    airflow = FakeAirflow(clock, auto_finish=timedelta(minutes=20))
    airflow.add_dag("retrain_model")
    return World(servers, database, policy_text, clock=clock, airflow=airflow, **more)


async def effect(world: World, **params: Any) -> tuple[str | None, str]:
    """The effect and its reason of the only trigger."""
    [found] = (await world.get("/api/v1/effects", **params))["items"]
    return found["effect"], found["reason"]


async def retrained(world: World) -> FakeAlert:
    """An alert fires, and its DAG run has just ended well."""
    alert = world.alert(model="churn")
    await world.push(alert)
    await world.settle()
    await world.pass_by(minutes=20)
    return alert


async def test_an_alert_that_ends_and_stays_away_is_fixed_when_watch_is_over(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        alert = await retrained(world)
        assert await effect(world) == (None, "settling")
        await world.pass_by(hours=1)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(minutes=5)
        assert await effect(world) == (None, "watching")
        [waiting] = (await world.get("/api/v1/effects", effect="waiting"))["items"]
        until = (await world.trigger())["ended_at"]
        assert waiting["counts_from"] == until
        await world.pass_by(days=6, hours=22, minutes=55, seconds=-1)
        assert await effect(world) == (None, "watching")
        await world.pass_by(seconds=1)
        assert await effect(world) == ("fixed", "quiet")
        answer = await world.get("/api/v1/effects", since="90d")
        [sums] = answer["groups"]
        assert (sums["retrains"], sums["fixed"], sums["run_hours"], sums["run_hours_per_fix"]) == (1, 1, 0.33, 0.33)
        assert sums["summary"] == "churn: 1 retrain, 1 fixed: retraining helps"
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_effects_total{effect="fixed",route="accuracy"} 1.0' in metrics
        assert 'gateway_run_seconds_total{effect="fixed",route="accuracy"} 1200.0' in metrics


@pytest.mark.parametrize(
    ("late", "expected"), [(-SECOND, "watching"), (SECOND, "still_firing")], ids=["before", "after"]
)
async def test_settle_of_the_route_is_how_long_its_alerts_may_still_fire(
    servers: TestServers, database: str, late: timedelta, expected: str
) -> None:
    async with opened(servers, database, policy("effect: {settle: 2h, watch: 1d}")) as world:
        alert = await retrained(world)
        await world.pass_by(seconds=(timedelta(hours=2) + late).total_seconds())
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(minutes=5)
        assert (await effect(world))[1] == expected
        await world.pass_by(days=2)
        assert (await effect(world))[0] == ("fixed" if late < timedelta(0) else "recurred")


@pytest.mark.parametrize(("late", "expected"), [(-SECOND, "recurred"), (SECOND, "fixed")], ids=["before", "after"])
async def test_watch_of_the_route_is_how_long_no_alert_of_the_group_may_begin(
    servers: TestServers, database: str, late: timedelta, expected: str
) -> None:
    async with opened(servers, database, policy("effect: {settle: 2h, watch: 1d}", cooldown="9d")) as world:
        alert = await retrained(world)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(seconds=(timedelta(days=1) + late).total_seconds())
        await world.push(world.alert("ModelAccuracyLow", model="churn", slice="new"))
        await world.push(world.alert("ModelAccuracyLow", model="fraud"))
        await world.settle()
        await world.pass_by(minutes=10)
        effects = {i["group"]["model"]: i["effect"] for i in (await world.get("/api/v1/effects"))["items"]}
        assert effects == {"churn": expected, "fraud": None}


async def test_an_alert_that_goes_silent_has_not_ended(servers: TestServers, database: str) -> None:
    async with opened(servers, database, policy("refire: false")) as world:
        await retrained(world)
        await world.pass_by(days=8)
        assert await effect(world) == ("unknown", "stale")
        [item] = (await world.get("/api/v1/effects"))["items"]
        assert "went silent" in item["detail"]


async def test_a_failed_run_and_a_dead_trigger_have_failed_and_a_redriven_one_is_judged_again(
    servers: TestServers, database: str
) -> None:
    text_ = policy("on_failure: keep").replace("retrain_model}", "missing}")
    async with opened(servers, database, text_, delivery_deadline=60.0) as world:
        await world.push(world.alert(model="churn"))
        await world.settle()
        await world.pass_by(minutes=30, steps=30)
        assert await effect(world) == ("failed", "dead")
        world.airflow.add_dag("missing")
        trigger = (await world.trigger())["id"]
        assert (await world.post(f"/api/v1/triggers/{trigger}/redrive", {})).status_code == 200
        await world.settle()
        assert await effect(world) == (None, "running")
        await world.pass_by(hours=1, steps=4)
        [item] = (await world.get("/api/v1/effects"))["items"]
        assert (item["reason"], [each["reason"] for each in item["former"]]) == ("settling", ["dead"])


async def test_a_route_that_leaves_the_policy_or_becomes_a_rehearsal_is_unknown(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        await retrained(world)
        await world.reload(policy("mode: shadow"))
        await world.pass_by(minutes=5)
        assert await effect(world) == ("unknown", "switched")


async def test_a_person_who_asks_without_an_alert_is_told_that_nothing_stood_behind_it(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as world:
        await world.post("/api/v1/triggers", {"route": "accuracy", "group": {"model": "churn"}, "reason": "new data"})
        await world.settle()
        await world.pass_by(minutes=30)
        assert await effect(world) == ("unknown", "no_alert")


@pytest.mark.parametrize(("hours", "expected"), [(5, "fixed"), (7, "unknown")])
async def test_an_outage_of_the_gateway_that_is_longer_than_settle_leaves_it_unknown(
    servers: TestServers, database: str, hours: int, expected: str
) -> None:
    async with opened(servers, database) as world:
        alert = await retrained(world)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(days=1)
        world.outage(hours=hours)
        await world.settle()
        await world.pass_by(days=7)
        assert (await effect(world))[0] == expected


async def test_nothing_is_judged_while_another_replica_writes_an_outage(servers: TestServers, database: str) -> None:
    async with opened(servers, database, policy("effect: {settle: 2h, watch: 1d}")) as world:
        alert = await retrained(world)
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(hours=23)
        world.outage(hours=3)
        loop = world.services[0].loop("effects")
        async with world.services[0].core.engine.connect() as another:
            await another.execute(text("SELECT FROM watch WHERE id = 3 FOR UPDATE"))
            assert await loop.step() is False
            assert (await effect(world))[0] is None
            await another.rollback()
        await loop.step()
        assert await effect(world) == ("unknown", "unheard")


async def test_a_heartbeat_that_is_missing_at_the_end_leaves_it_unknown(servers: TestServers, database: str) -> None:
    beat = """
deadman: [{name: prometheus, expect: heartbeat, match: ['alertname="Watchdog"'], every: 1h, grace: 5m, receivers: []}]
"""
    async with opened(servers, database, DEFAULT + beat) as world:
        alert = await retrained(world)
        await world.push(world.alert("Watchdog"), alert.resolved(world.clock.now()))
        await world.pass_by(days=8, steps=16)
        assert await effect(world) == ("unknown", "muted")


async def test_three_replicas_and_a_restart_judge_each_trigger_once(servers: TestServers, database: str) -> None:
    async with opened(servers, database, replicas=3) as world:
        for model in ("churn", "fraud", "ltv"):
            alert = world.alert(model=model)
            await world.push(alert)
            await world.settle()
            await world.pass_by(minutes=20)
            await world.push(alert.resolved(world.clock.now()))
        counted = Counter[str]()
        await world.pass_by(days=3)
        for services in world.services:
            counted.update(_effects_of(services.core.metrics.render().decode()))
        assert counted == {}
        await world.restart(DEFAULT)
        await world.start()
        await world.pass_by(days=5)
        for services in world.services:
            counted.update(_effects_of(services.core.metrics.render().decode()))
        assert counted == {"fixed": 3}
        assert {i["effect"] for i in (await world.get("/api/v1/effects"))["items"]} == {"fixed"}


def _effects_of(metrics: str) -> dict[str, int]:
    lines = [line for line in metrics.splitlines() if line.startswith("gateway_effects_total{")]
    return {line.split('effect="')[1].split('"')[0]: int(float(line.split()[-1])) for line in lines}


async def test_triggers_from_before_effects_were_judged_are_unknown(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        await retrained(world)
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text("DELETE FROM effects"))
        await world.pass_by(days=9)
        assert await effect(world, effect="unknown") == ("unknown", "not_judged")
        [sums] = (await world.get("/api/v1/effects"))["models"]
        assert (sums["retrains"], sums["unknown"], sums["run_hours"]) == (1, 1, 0.33)


async def test_a_late_promotion_moves_the_effect_and_leaves_a_trace(servers: TestServers, database: str) -> None:
    clock = ManualClock()
    mlflow = FakeMlflowRegistry(clock)
    others: Any = {"mlflow.test": mlflow, FakePagerDuty.host: FakePagerDuty(clock)}
    text_ = DEFAULT + 'mlflow: {tracking_uri: "http://mlflow.test:5000"}\n' + ENTRY
    async with opened(servers, database, text_, clock=clock, others=others) as world:
        gates = Gates(world, mlflow, others[FakePagerDuty.host])
        alert = await retrained(world)
        trigger = (await world.trigger())["id"]
        assert await effect(world) == (None, "registering")
        await world.push(alert.resolved(world.clock.now()))
        await world.pass_by(hours=1, steps=4)
        assert await effect(world) == (None, "registering")
        await surveyed(world)
        await world.pass_by(minutes=5)
        assert await effect(world) == ("no_model", "no_version")
        version = mlflow.add("churn", {"f1": 0.9})
        await seen(world, trigger, version)
        await world.pass_by(minutes=5)
        assert await effect(world) == ("not_promoted", "not_asked")
        await world.pass_by(days=3)
        await gates.promote(version)
        await world.pass_by(minutes=5)
        assert await effect(world) == (None, "watching")
        await world.pass_by(days=7)
        [item] = (await world.get("/api/v1/effects", model="churn"))["items"]
        assert (item["effect"], item["version"]) == ("fixed", version)
        assert [each["effect"] for each in item["former"]] == ["no_model", "not_promoted"]


async def test_an_episode_has_its_alerts_its_retrains_and_the_effect_of_the_newest(
    servers: TestServers, database: str
) -> None:
    route = "stale_after: 3d\neffect: {settle: 2h, watch: 1d}"
    async with opened(servers, database, policy(route, cooldown="2d")) as world:
        first = await retrained(world)
        [episode] = (await world.get("/api/v1/episodes"))["items"]
        assert (episode["end"], episode["effect"], len(episode["retrains"])) == (None, None, 1)
        await world.push(first.resolved(world.clock.now()))
        await world.pass_by(hours=20)
        second = world.alert(model="churn", slice="new")
        await world.push(second)
        await world.settle()
        await world.pass_by(hours=1)
        await world.push(second.resolved(world.clock.now()), world.alert(model="fraud"))
        await world.settle()
        await world.pass_by(days=1, seconds=1)
        await world.push(world.alert(model="churn", slice="later"))
        items = (await world.get("/api/v1/episodes", label="model=churn"))["items"]
        assert [(i["alerts"], i["effect"], len(i["retrains"])) for i in items] == [(1, None, 0), (2, "recurred", 1)]
        assert [i["end"] for i in items] == [None, items[1]["newest_alerts"][-1]["end"]]
        assert len((await world.get("/api/v1/episodes", status="ended"))["items"]) == 1
        pages: list[str] = []
        cursor = None
        while cursor or not pages:
            page = await world.get("/api/v1/episodes", limit=1, **({"cursor": cursor} if cursor else {}))
            cursor = page["next"]
            pages.append(page["items"][0]["id"])
        assert len(set(pages)) == 3
