"""When an alert was heard is kept to the minute, compactly, and is read back as the lines of a replay."""

from datetime import datetime, timedelta

import asyncpg
import pytest

from app.groups.heard import unpacked
from app.replay.check import check
from app.replay.history import Heard, History
from app.replay.recorded import lines_of
from app.replay.replay import REORDER
from tests.acceptance.lives import recorded, recorded_history
from tests.acceptance.world import FakeAlert, World, policy
from tests.fakes.clock import NOON
from tests.integration.api import problem
from tests.integration.pruned import prune
from tests.servers import TestServers

POLICY = policy("debounce: 10m")


async def kept(world: World) -> list[tuple[datetime, bool]]:
    """What is written beside the rows of alerts."""
    connection = await asyncpg.connect(world.database)
    try:
        found = await connection.fetch("SELECT since, times FROM heard ORDER BY since, alert")
    finally:
        await connection.close()
    return [moment for row in found for moment in unpacked(row["since"], row["times"])]


def heard(history: History) -> list[tuple[str, str]]:
    """When which models fired (capitals) and ended."""
    return [
        (
            f"{event.at:%H:%M:%S}",
            "".join(a.labels["model"].upper() if a.firing else a.labels["model"] for a in event.alerts),
        )
        for event in history.events
        if isinstance(event, Heard)
    ]


async def push_at(world: World, *moments: tuple[float, FakeAlert | tuple[FakeAlert, ...]]) -> None:
    for seconds, alerts in moments:
        world.clock.pass_by(NOON + timedelta(seconds=seconds) - world.clock.now())
        await world.watched()
        await world.settle()
        await world.push(*(alerts if isinstance(alerts, tuple) else (alerts,)))


@pytest.mark.parametrize("is_remembered", [True, False], ids=["from memory", "from Postgres"])
async def test_repeats_are_kept_to_the_minute_and_a_storm_writes_little(
    servers: TestServers, database: str, is_remembered: bool
) -> None:
    async with World(servers, database, POLICY) as world:
        a = world.alert(model="a")
        for seconds in (0, 10, 20, 61, 70.5, 80.25, 130, 200):
            if not is_remembered:
                await world.flush_redis()
            await push_at(world, (seconds, a))
        times = ("12:00:20", "12:01:20", "12:02:10")
        assert [(f"{at:%H:%M:%S}", ended) for at, ended in await kept(world)] == [(time, False) for time in times]
        shown = heard(await recorded_history(world))
        assert shown == [(time, "A") for time in ("12:00:00", *times, "12:03:20")]


@pytest.mark.parametrize("mode", ["live", "shadow"])
async def test_the_notification_that_fired_is_kept_exactly(servers: TestServers, database: str, mode: str) -> None:
    """The alert was silent for long. Then two notifications come within a minute, and the first one fires."""
    async with World(servers, database, policy(f"mode: {mode}", cooldown="8h")) as world:
        world.airflow.add_dag("retrain_model")
        a, silent = world.alert(model="a"), 10 * 3600
        await push_at(world, (0, a))
        await world.pass_by(hours=1, steps=2)
        await push_at(world, (silent, a), (silent + 7, a), (silent + 14, a))
        history = await recorded_history(world)
        assert heard(history) == [(time, "A") for time in ("12:00:00", "22:00:00", "22:00:14")]
        checked = check(history, None, None, REORDER)
        assert [pair.replayed for pair in checked.pairs] == [pair.live for pair in checked.pairs]
        assert [pair.live.reason for pair in checked.pairs if pair.live] == ["new_alert", "still_firing"]


async def test_an_alert_that_came_twice_has_no_row(servers: TestServers, database: str) -> None:
    async with World(servers, database, POLICY) as world:
        a, b = world.alert(model="a"), world.alert(model="b")
        await push_at(world, (0, (a, b)), (300, (a, b)))
        assert await kept(world) == []
        assert heard(await recorded_history(world)) == [("12:00:00", "AB"), ("12:05:00", "AB")]


async def test_what_ended_and_fired_again_is_kept_exactly(servers: TestServers, database: str) -> None:
    async with World(servers, database, POLICY) as world:
        a = world.alert(model="a")
        ended = [a.resolved(NOON + timedelta(seconds=seconds)) for seconds in (300, 900, 1000)]
        moments = [(0, a), (300, ended[0]), (310, a), (700, a), (900, ended[1]), (950, ended[2])]
        await push_at(world, *moments)
        shown = [("12:00:00", "A"), ("12:05:00", "a"), ("12:05:10", "A"), ("12:11:40", "A")]
        assert heard(await recorded_history(world)) == [*shown, ("12:15:00", "a"), ("12:15:50", "a")]


async def test_pages_of_any_size_have_the_same_records(servers: TestServers, database: str) -> None:
    async with World(servers, database, POLICY) as world:
        a, b = world.alert(model="a"), world.alert(model="b")
        for hours in range(0, 30, 3):
            await push_at(world, (hours * 3600, (a, b)), (hours * 3600 + 100, a))
        await world.post("/api/v1/routes/accuracy/pause", {"reason": "a test"})
        whole = await recorded(world)
        assert {record["kind"] for record in whole} == {"policy", "request", "run", "alert", "heard"}
        assert await recorded(world, limit=1) == whole
        lines = list(lines_of(whole))
        assert [line[:32] for line in lines] == sorted(line[:32] for line in lines)
        late = await recorded(world, since=(NOON + timedelta(hours=20)).isoformat())
        assert [record["kind"] for record in late if record["kind"] != "heard"] == [
            "policy",
            "request",
            "alert",
            "alert",
        ]
        assert (
            0 < sum(record["kind"] == "heard" for record in late) < sum(record["kind"] == "heard" for record in whole)
        )
        problem(await world.clients[0].get("/api/v1/history?cursor=heard:1"), 422, "invalid")


@pytest.mark.parametrize("records", [True, False])
async def test_record_repeats_says_whether_minutes_are_kept(servers: TestServers, database: str, records: bool) -> None:
    async with World(servers, database, POLICY, record_repeats=records) as world:
        a = world.alert(model="a")
        await push_at(world, (0, a), (100, a), (200, a), (300, a.resolved(NOON)), (500, a), (700, a))
        assert bool(await kept(world)) is records


async def test_minutes_are_pruned_with_the_rest(servers: TestServers, database: str) -> None:
    async with World(servers, database, POLICY, retention="30d") as world:
        a, b = world.alert(model="a"), world.alert(model="b")
        day = 86_400
        await push_at(world, *((n * 1000, (a, b)) for n in range(5)), (5000, b.resolved(NOON)))
        await push_at(world, *((n * day, a) for n in range(1, 40)))
        await prune(world)
        moments = [at for at, _ in await kept(world)]
        assert moments[0] >= world.clock.now() - timedelta(days=30, hours=6)
        assert len(moments) == 30


async def test_a_severity_that_rises_brings_an_alert_to_its_route_in_the_replay_too(
    servers: TestServers, database: str
) -> None:
    text = POLICY.replace('alertname="ModelAccuracyLow"', 'severity="critical"')
    async with World(servers, database, text) as world:
        for minute, severity in enumerate(("warning", "warning", "critical", "critical")):
            world.clock.pass_by(timedelta(minutes=2))
            at = world.clock.now().isoformat()
            body = {"alert_id": "drift", "severity": severity, "timestamp": at, "labels": {"model": str(minute // 9)}}
            assert (await world.post("/api/v1/alerts", body)).status_code == 202
        await world.pass_by(minutes=20, steps=20)
        checked = check(await recorded_history(world), None, world.clock.now(), REORDER)
        assert checked.as_text().startswith("1 of 1 alike\n")
