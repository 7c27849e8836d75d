"""Schedules: each occurrence is decided exactly once, whatever the replicas, the restarts and the clock on the wall do."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.groups.schedules import Schedules
from app.kit.db import open_engine
from app.policy.file.load import parse_policy
from app.policy.schema import Policy
from tests.acceptance.world import World, at, policy
from tests.cores import aftermath_of, core_of
from tests.fakes.clock import ManualClock
from tests.servers import TestServers
from tests.sizes import size

#: 04:00 UTC every day: sixteen hours after the test begins.
DAILY = "{name: daily, cron: '0 5 * * *', timezone: Europe/Madrid, route: accuracy, group: {model: churn}}"


def scheduled(*schedules: str, route: str = "", cooldown: str = "0s") -> str:
    """The policy of these tests with schedules."""
    return (
        policy(route, cooldown=cooldown) + "schedules:\n" + "".join(f"  - {entry}\n" for entry in schedules or (DAILY,))
    )


async def listed(world: World, to: int = 0) -> dict[str, Any]:
    """The only schedule, as the API shows it."""
    [found] = (await world.get("/api/v1/schedules", to=to))["items"]
    assert isinstance(found, dict)
    return found


async def test_one_that_cannot_be_decided_holds_up_no_other(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = DAILY.replace("daily", "other").replace("churn", "fraud")
    async with World(servers, database, scheduled(DAILY, other)) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text("ALTER TABLE schedules ADD CHECK (name <> 'daily' OR decided_at IS NULL)"))
        world.clock.pass_by(timedelta(hours=17))
        with pytest.raises(ExceptionGroup) as caught:
            await world.services[0].loop("schedules").step()
        assert len(caught.value.exceptions) == 1
        assert [r.schedule for r in caplog.records if r.message == "a schedule cannot be decided"] == ["daily"]  # type: ignore[attr-defined]
        assert [t["group"] for t in await world.triggers()] == [{"model": "fraud"}]


async def test_it_starts_a_run_when_it_is_due_and_says_so(servers: TestServers, database: str) -> None:
    async with World(servers, database, scheduled(), replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        assert (await listed(world))["next_at"] == "2026-11-24T04:00:00Z"
        assert (await listed(world))["last"] is None
        await world.pass_by(hours=15, minutes=59)
        assert world.airflow.posts == []
        await world.pass_by(minutes=1)
        [post] = world.airflow.posts
        assert post["conf"]["gateway"] | {"trigger_id": ""} == {
            "trigger_id": "",
            "route": "accuracy",
            "reason": "scheduled",
            "group": {"model": "churn"},
            "alerts": [],
            "schema": 1,
        }
        trigger = await world.trigger()
        assert (trigger["reason"], trigger["requested_by"]) == ("scheduled", "the schedule daily")
        assert trigger["id"] == post["conf"]["gateway"]["trigger_id"]
        explained = await world.explain(trigger["id"])
        assert [(d["action"], d["reason"]) for d in explained["decisions"]] == [("fire", "scheduled")]
        assert explained["decisions"][0]["detail"] == "asked for by the schedule daily: due at 2026-11-24T04:00:00Z"
        shown = await listed(world, to=1)
        assert shown["next_at"] == "2026-11-25T04:00:00Z"
        last = shown["last"]
        assert (last["at"], last["reason"], last["trigger_id"]) == ("2026-11-24T04:00:00Z", "scheduled", trigger["id"])
        metrics = (await world.clients[0].get("/metrics")).text + (await world.clients[1].get("/metrics")).text
        assert metrics.count('gateway_decisions_total{action="fire",reason="scheduled",route="accuracy"} 1.0') == 1
        await world.pass_by(days=2, steps=48)
        assert len(world.airflow.posts) == 3


#: What stands in its way at 04:00; the reason it is told.
REFUSALS = [
    pytest.param("", "48h", "cooldown", id="cooldown"),
    pytest.param("limit: {triggers: 1, per: 30d}", "1h", "limit", id="limit"),
    pytest.param("run_timeout: 48h", "0s", "in_flight", id="in flight"),
]


@pytest.mark.parametrize(("route", "cooldown", "reason"), REFUSALS)
async def test_what_refuses_a_request_refuses_it_and_that_is_a_decision(
    servers: TestServers, database: str, route: str, cooldown: str, reason: str
) -> None:
    async with World(servers, database, scheduled(route=route, cooldown=cooldown), replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        if reason == "in_flight":
            world.airflow.auto_finish = None
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.push(alert.resolved(world.clock.now() + timedelta(minutes=1)))
        await world.pass_by(hours=16, steps=4)
        assert len(world.airflow.posts) == 1
        last = (await listed(world))["last"]
        assert (last["action"], last["reason"]) == ("suppress", reason)
        explained = await world.get("/api/v1/routes/accuracy/explain", label="model=churn")
        assert [(row["reason"], row["count"]) for row in explained["refused"]] == [(reason, 1)]
        assert "Requests and schedules were refused: 1 for " in explained["summary"]
        await world.pass_by(hours=23, minutes=50, steps=4)
        assert (await listed(world))["last"] == last, "what was refused is not tried again"


async def test_a_muted_route_refuses_its_schedule_but_not_a_person(servers: TestServers, database: str) -> None:
    interval = (
        "time_intervals: [{name: nights, time_intervals: [{times: [{start_time: '00:00', end_time: '06:00'}]}]}]\n"
    )
    async with World(servers, database, scheduled(route="mute: [nights]") + interval) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.pass_by(hours=16)
        last = (await listed(world))["last"]
        assert (last["action"], last["reason"], last["trigger_id"]) == ("suppress", "muted", None)
        assert "'nights' holds" in last["detail"]
        explained = await world.get("/api/v1/routes/accuracy/explain", label="model=churn")
        assert "Requests and schedules were refused: 1 while muted." in explained["summary"]
        assert "the schedule daily at 2026-11-25T04:00:00Z, or a request" in explained["would_fire"]
        assert [s["next_at"] for s in explained["schedules"]] == ["2026-11-25T04:00:00Z"]
        await world.pass_by(hours=3)
        assert world.airflow.posts == [], "it is not tried again when the interval ends"
        await world.pass_by(hours=16)
        body = {"route": "accuracy", "group": {"model": "churn"}, "reason": "new labels"}
        assert (await world.post("/api/v1/triggers", body)).status_code == 201


async def test_it_starts_the_cooldown_and_counts_against_the_limit(servers: TestServers, database: str) -> None:
    text = scheduled(route="limit: {triggers: 1, per: 30d}", cooldown="24h")
    async with World(servers, database, text) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.pass_by(hours=16)
        await world.pass_by(minutes=40, steps=4)
        [churn] = await world.push(world.alert(model="churn"))
        [fraud] = await world.push(world.alert(model="fraud"))
        assert (churn["reason"], fraud["reason"]) == ("cooldown", "limit")


async def test_it_takes_a_held_trigger_over_under_its_id(servers: TestServers, database: str) -> None:
    async with World(servers, database, scheduled(route="debounce: 10m", cooldown="24h")) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.pass_by(hours=15, minutes=55)
        [held] = await world.push(world.alert(model="churn"))
        assert held["action"] == "hold"
        await world.pass_by(minutes=5)
        trigger = await world.trigger()
        assert (trigger["id"], trigger["reason"]) == (held["trigger_id"], "scheduled")
        assert [a["alert_id"] for a in trigger["alerts"]] == ["ModelAccuracyLow"]
        await world.pass_by(minutes=30, steps=3)
        assert len(world.airflow.posts) == 1


@pytest.mark.parametrize(
    ("catch_up", "away", "posts", "says"),
    [
        ("one", timedelta(days=3, hours=5), 1, "due at 2026-11-26T04:00:00Z"),
        ("none", timedelta(days=3, hours=5), 0, "passed over: seen 13h late, and catch_up is none"),
        ("one", timedelta(hours=16, seconds=40), 1, "due at 2026-11-24T04:00:00Z"),
        ("none", timedelta(hours=16, seconds=40), 1, "due at 2026-11-24T04:00:00Z"),
    ],
    ids=["one, away for days", "none, away for days", "one, a short restart", "none, a short restart"],
)
async def test_what_was_missed_while_no_gateway_ran_is_made_up_for_once_or_not_at_all(
    servers: TestServers, database: str, catch_up: str, away: timedelta, posts: int, says: str
) -> None:
    text = scheduled(DAILY.replace("}}", "}, catch_up: " + catch_up + "}"))
    async with World(servers, database, text) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        world.clock.pass_by(away)
        await world.restart(text)
        await world.start(text)
        await world.settle()
        assert len(world.airflow.posts) == posts
        last = (await listed(world))["last"]
        assert says in last["detail"]
        assert (last["action"] is None) == (posts == 0)
        await world.pass_by(minutes=40, steps=2)
        await world.pass_by(seconds=(at((await listed(world))["next_at"][:19]) - world.clock.now()).total_seconds())
        assert len(world.airflow.posts) == posts + 1, "and then it goes on"


LATER = DAILY.replace("0 5 * * *", "0 3 * * *")  # 02:00 UTC: ten hours before noon


@pytest.mark.parametrize(
    "change",
    [
        pytest.param([scheduled(LATER)], id="another cron"),
        pytest.param([policy(cooldown="0s"), scheduled()], id="removed and put back"),
        pytest.param([scheduled(DAILY.replace("Madrid", "London"))], id="another zone"),
        pytest.param([scheduled(DAILY.replace("churn", "fraud"))], id="another group"),
    ],
)
async def test_what_is_new_or_changed_counts_from_now_on(
    servers: TestServers, database: str, change: list[str]
) -> None:
    """The gateway was away for days, and comes back with another file: nothing was missed."""
    async with World(servers, database, scheduled()) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        world.clock.pass_by(timedelta(days=3, hours=5))
        for text in change:
            await world.restart(text)
            await world.settle()
        assert world.airflow.posts == []
        await world.pass_by(hours=23, minutes=59, steps=4)
        assert len(world.airflow.posts) == 1


async def test_a_reload_while_the_gateway_runs_counts_from_then_on(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy(cooldown="0s")) as world:
        world.airflow.add_dag("retrain_model")
        await world.pass_by(hours=15)
        await world.reload(scheduled())
        await world.pass_by(minutes=30)
        await world.reload(scheduled(route="stale_after: 7h"))  # Something else changed: it stands where it stood.
        await world.pass_by(minutes=30)
        assert len(world.airflow.posts) == 1
        await world.reload(scheduled(LATER))
        await world.settle()
        assert len(world.airflow.posts) == 1


async def test_replicas_on_different_files_neither_lose_an_occurrence_nor_take_one_twice(
    servers: TestServers, database: str
) -> None:
    """The first knows the schedule, the second does not yet and forgets its row, the third has another group."""
    async with World(servers, database, scheduled()) as world:
        world.airflow.add_dag("retrain_model")
        await world.start(policy(cooldown="0s"))
        await world.start(scheduled(DAILY.replace("churn", "fraud")))
        await world.settle()
        for day in range(1, 4):
            await world.pass_by(days=1, steps=24)
            assert len(world.airflow.posts) == day


async def test_an_occurrence_whose_transaction_failed_is_taken_by_the_next_step(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, scheduled(), replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        world.clock.pass_by(timedelta(hours=16))
        step = asyncio.create_task(world.services[0].loop("schedules").step())
        for _ in range(30):  # Somewhere on its way through the transaction.
            await asyncio.sleep(0)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        await world.settle()
        assert len(world.airflow.posts) == 1
        assert len(await world.triggers()) == 1


# -- a whole year ---------------------------------------------------------------------------------------------------------

YEAR = [
    "{name: madrid-night, cron: '30 2 * * *', timezone: Europe/Madrid, route: accuracy, group: {model: a}}",
    "{name: york-night, cron: '30 1 * * *', timezone: America/New_York, route: accuracy, group: {model: b}}",
    "{name: york-skipped, cron: '15 2 * * *', timezone: America/New_York, route: accuracy, group: {model: c}}",
    "{name: madrid-hours, cron: '0 */6 * * *', timezone: Europe/Madrid, route: accuracy, group: {model: d}}",
    "{name: weekly, cron: '0 3 * * 1', timezone: Europe/Madrid, route: accuracy, group: {model: e}}",
]
#: The Sunday of each switch, until Monday noon; with PROVE=1 the whole year.
SPANS = size([(f"2026-{day}T12:00", 2) for day in ("03-07", "03-28", "10-24", "10-31")], [("2026-01-01T00:00", 365)])


def replica(engine: AsyncEngine, parsed: Policy, clock: ManualClock) -> Schedules:
    """One replica's loop, as it is after a start."""
    core = core_of(parsed, engine, clock)
    return Schedules(core, aftermath_of(core))


@pytest.mark.parametrize(("begin", "days"), SPANS, ids=[begin for begin, _ in SPANS])
async def test_three_replicas_that_restart_every_hour_decide_each_occurrence_of_the_year_once(
    new_database: Callable[[], str], begin: str, days: int
) -> None:
    parsed = parse_policy(scheduled(*YEAR), "policy.yaml", {})
    start = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    clock = ManualClock(start)
    engine = open_engine(new_database())
    taken: dict[str, list[datetime]] = {schedule.name: [] for schedule in parsed.schedules}
    try:
        for hour in range(days * 24):
            crew = [replica(engine, parsed, clock) for _ in range(3)]
            await asyncio.gather(*(scheduler.step() for scheduler in crew))
            clock.pass_by(timedelta(minutes=40))
            await asyncio.gather(*(scheduler.step() for scheduler in crew[hour % 2 :]))
            clock.pass_by(timedelta(minutes=20))
            async with engine.connect() as conn:
                for row in await conn.execute(text("SELECT name, last_at FROM schedules WHERE decided_at IS NOT NULL")):
                    if row.last_at not in taken[row.name][-1:]:
                        taken[row.name].append(row.last_at)
        async with engine.connect() as conn:
            decisions = (await conn.execute(text("SELECT count(*) FROM decisions WHERE alert IS NULL"))).scalar_one()
    finally:
        await engine.dispose()
    for schedule in parsed.schedules:
        expected = []
        moment = start
        while (moment := schedule.times.after(moment)) <= clock.now() - timedelta(minutes=20):
            expected.append(moment)
        assert taken[schedule.name] == expected, schedule.name
    assert decisions == sum(map(len, taken.values()))
