"""Our own outages: none raises an alarm, none ends one, and what is said just before or first after one counts."""

import random
from collections import Counter
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from tests.acceptance.test_deadman import SWITCHES, flips, incidents, start, state
from tests.acceptance.world import POLICY, RESTLESS, World
from tests.servers import TestServers
from tests.sizes import seed, size


async def test_a_switch_that_is_down_stays_down_over_an_outage_of_ours(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.pass_by(days=8)
        before = await flips(world, "churn-retrained")
        assert before[-1] == "down"
        world.outage(minutes=5)
        await world.services[0].loop("watch").step()  # Before Airflow was read.
        await world.settle()
        await world.pass_by(minutes=2, steps=4)
        assert await flips(world, "churn-retrained") == before
        assert await incidents(world, "churn-retrained") == [("deadman:churn-retrained", False)]


@pytest.mark.parametrize("path", ["", "/start"])
async def test_what_is_said_first_after_an_outage_of_ours_gives_nothing_up(
    servers: TestServers, database: str, path: str
) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.post("/ping/export", b"")
        await world.post("/ping/export/start?rid=other", b"")
        await world.pass_by(minutes=1)
        world.outage(hours=30)
        await world.post(f"/ping/export{path}?rid=one", b"")
        await world.settle()
        assert await state(world, "export") == "up"
        assert await incidents(world, "export") == []
        await world.pass_by(minutes=59)
        assert await incidents(world, "export") == [("deadman:export", False)]  # The other run has not ended.


@pytest.mark.parametrize(("seconds", "given"), [(60, 0), (61, 61)])
async def test_a_minute_without_a_watch_is_no_outage_and_a_second_more_is_given_back(
    servers: TestServers, database: str, seconds: int, given: int
) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.push(world.alert("Watchdog"))
        await world.settle()
        world.outage(seconds=seconds)
        await world.settle()
        await world.pass_by(seconds=7 * 60 + given - seconds - 1)
        assert await state(world, "prometheus-alive") == "grace"
        await world.pass_by(seconds=1)
        assert await state(world, "prometheus-alive") == "down"


async def test_what_is_heard_just_before_our_end_may_come_later_too(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.pass_by(minutes=1)
        world.clock.pass_by(timedelta(seconds=2))
        await world.push(world.alert("Watchdog"))
        world.outage(minutes=30)
        await world.settle()
        assert await state(world, "prometheus-alive") == "up"
        await world.pass_by(minutes=7)
        assert await state(world, "prometheus-alive") == "down"


async def test_a_switch_that_cannot_be_judged_holds_up_neither_another_nor_the_watch(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        await world.post("/ping/export", b"")
        await world.push(world.alert("Watchdog"))
        engine = world.services[0].core.engine
        async with engine.begin() as conn:
            await conn.execute(text("ALTER TABLE switches ADD CHECK (name <> 'export' OR state <> 'down')"))
        world.clock.pass_by(timedelta(days=3))
        await world.watched()
        world.clock.pass_by(timedelta(seconds=10))
        with pytest.raises(ExceptionGroup) as caught:
            await world.services[0].loop("watch").step()
        assert len(caught.value.exceptions) == 1
        assert [r.switch for r in caplog.records if r.levelname == "ERROR"] == ["export"]  # type: ignore[attr-defined]
        assert await state(world, "prometheus-alive") == "down"
        async with engine.connect() as conn:
            until = (await conn.execute(text("SELECT watched_until FROM watch WHERE id = 1"))).scalar_one()
        assert until == world.clock.now()


#: What makes a switch `export` that nobody can judge, or one that nobody can add, however well meant.
SPOILT = {
    "its-facts": "UPDATE switches SET counts_from = 'infinity' WHERE name = 'export'",
    "its-row": "DELETE FROM switches WHERE name = 'export'; ALTER TABLE switches ADD CHECK (name <> 'export')",
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
async def test_a_switch_that_cannot_even_be_looked_at_holds_up_no_other(
    servers: TestServers, database: str, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        async with world.services[0].core.engine.begin() as conn:
            for statement in spoil.split("; "):
                await conn.execute(text(statement))
        await world.reload(SWITCHES + "  - {name: young, expect: heartbeat, every: 1d}\n")
        world.clock.pass_by(timedelta(minutes=7))
        await world.watched()
        with pytest.raises(ExceptionGroup) as caught:
            await world.services[0].loop("watch").step()
        assert len(caught.value.exceptions) == 1
        assert [r.switch for r in caplog.records if r.levelname == "ERROR"] == ["export"]  # type: ignore[attr-defined]
        assert (await state(world, "prometheus-alive"), await state(world, "young")) == ("down", "new")


async def test_a_switch_that_cannot_be_told_of_a_retrain_keeps_it_from_no_other(
    servers: TestServers, database: str
) -> None:
    more = "  - {name: another, expect: {retrain: accuracy}, every: 7d}\n"
    async with World(servers, database, SWITCHES + more) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        spoilt = "ALTER TABLE switches ADD CONSTRAINT spoilt CHECK (name <> 'another' OR state = 'new')"
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text(spoilt))
        await start(world, {"model": "churn"})
        world.clock.pass_by(timedelta(minutes=25))
        await world.watched()
        with pytest.raises(ExceptionGroup):
            await world.services[0].loop("retrains").step()
        assert (await state(world, "churn-retrained"), await state(world, "another")) == ("up", "new")
        async with world.services[0].core.engine.begin() as conn:
            await conn.execute(text("ALTER TABLE switches DROP CONSTRAINT spoilt"))
        await world.pass_by(hours=2)
        assert await state(world, "another") == "up", "the run that it missed is told to it later"


async def test_a_hold_that_began_just_before_our_end_goes_on_too(servers: TestServers, database: str) -> None:
    async with World(servers, database, POLICY + "    debounce: 10m\n") as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        world.clock.pass_by(timedelta(seconds=2))
        await world.push(world.alert(model="churn"))
        world.outage(hours=1)
        await world.settle()
        await world.pass_by(minutes=9)
        assert world.airflow.posts == []
        await world.pass_by(minutes=1)
        assert len(world.airflow.posts) == 1


# What is said within the seconds before our end, and first of all when we are back: every one of each.
SAYINGS = {"none": None, "success": "", "start": "/start", "fail": "/fail"}
PAIRS = [(before, after) for before in SAYINGS for after in SAYINGS]
EVERY, GRACE = timedelta(minutes=40), timedelta(minutes=10)
OUTAGES = (
    POLICY
    + "deadman:\n  - {name: missed, expect: {retrain: accuracy}, every: 1h, grace: 5m}\n"
    + "".join(f"  - {{name: {before}-{after}, expect: heartbeat, every: 40m, grace: 10m}}\n" for before, after in PAIRS)
)


async def test_over_outages_of_ours_no_alarm_is_false_missed_or_late(servers: TestServers, database: str) -> None:
    """What each pair must do follows from what was said and from how long nobody was there, not from the code."""
    choose = random.Random(seed())
    async with World(servers, database, OUTAGES) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        await world.pass_by(hours=2, steps=2)
        for _ in range(size(1, 40)):
            opened = await opened_by_switch(world)
            for pair in PAIRS:
                await world.post(f"/ping/{name(pair)}", b"")
            heard = world.clock.now()
            await world.pass_by(minutes=choose.uniform(1, 5))  # The last look of the watch.
            world.clock.pass_by(timedelta(seconds=choose.uniform(0, 4)))
            before = world.clock.now()
            await say(world, choose, {pair: SAYINGS[pair[0]] for pair in PAIRS})
            away = timedelta(minutes=choose.uniform(2, 30))
            world.outage(seconds=away.total_seconds())
            back = world.clock.now()
            if choose.random() < 0.7:  # Else a loop comes first.
                await say(world, choose, {pair: SAYINGS[pair[1]] for pair in PAIRS})
                await shuffled(world, choose)
            else:
                await shuffled(world, choose)
                await say(world, choose, {pair: SAYINGS[pair[1]] for pair in PAIRS})
            ends = {pair: down_at(pair, heard, before, back, away) for pair in PAIRS}
            for instant in sorted(set(ends.values()) - {before, back}):
                await pass_until(world, instant - timedelta(seconds=1))
                await agree(world, ends, opened)
                await pass_until(world, instant + timedelta(seconds=59))
                await agree(world, ends, opened)
            assert await incidents(world, "missed") == [("deadman:missed", False)]


def name(pair: tuple[str, str]) -> str:
    return "-".join(pair)


def down_at(pair: tuple[str, str], heard: datetime, before: datetime, back: datetime, away: timedelta) -> datetime:
    """When it is to be told. `heard` of well before the outage, then at `before` and `back`."""
    if pair[1] == "fail":
        return before if pair[0] == "fail" else back
    if pair[1] == "success":
        return back + EVERY + GRACE
    if pair[0] == "fail":
        return before
    newest = before if pair[0] == "success" else heard
    run = {"start": before + away + GRACE, "none": newest + away + EVERY + GRACE}
    begun = [run["start"]] if pair[0] == "start" else []
    begun += [back + GRACE] if pair[1] == "start" else []
    return min([*begun, run["none"]])


async def say(world: World, choose: random.Random, sayings: dict[tuple[str, str], str | None]) -> None:
    for pair in choose.sample(PAIRS, len(PAIRS)):
        path = sayings[pair]
        if path is not None:
            assert (await world.post(f"/ping/{name(pair)}{path}", b"")).status_code == 200


async def shuffled(world: World, choose: random.Random) -> None:
    """Every loop once, in any order, and then until they rest."""
    loops = [loop for loop in world.services[0].loops if loop.name not in RESTLESS]
    for loop in choose.sample(loops, len(loops)):
        await loop.step()
    await world.settle()


async def pass_until(world: World, instant: datetime) -> None:
    if instant > world.clock.now():
        await world.pass_by(seconds=(instant - world.clock.now()).total_seconds())


async def opened_by_switch(world: World) -> Counter[str]:
    """How many incidents there were of each switch."""
    async with world.services[0].core.engine.connect() as conn:
        rows = await conn.exec_driver_sql("SELECT key FROM notices")
        return Counter(row.key.removeprefix("deadman:") for row in rows)


async def agree(world: World, ends: dict[tuple[str, str], datetime], before: Counter[str]) -> None:
    """Told are those whose time has come, once; and those that failed, and were mended since."""
    items = (await world.get("/api/v1/deadman", limit=1000))["items"]
    states, now = {item["name"]: item["state"] for item in items}, world.clock.now()
    opened = await opened_by_switch(world)
    for pair, end in ends.items():
        mended = pair == ("fail", "success")
        assert (states[name(pair)] == "down") == (now >= end), (pair, states[name(pair)], end, now)
        assert opened[name(pair)] - before[name(pair)] == (now >= end) + mended, pair
