"""Exactly one incident an outage: at a PagerDuty that loses, delays and repeats answers, killed at every step between flip
and sent, over both changes of the clocks, with replicas that restart every hour."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event

from app.bootstrap.parts import Services
from app.deadman.flips import Flips
from app.deadman.watch import Watch
from app.notices.incidents import Incidents
from tests.acceptance.test_telling import RECEIVERS
from tests.acceptance.world import POLICY, World
from tests.fakes.clock import ManualClock
from tests.fakes.faults import Fault, answer, busy, drop, limbo, page, refuse, timeout
from tests.fakes.pagerduty import FakePagerDuty
from tests.servers import TestServers
from tests.sizes import seed, size

MADRID = ZoneInfo("Europe/Madrid")
EXPORT = "deadman:\n  - {name: export, expect: heartbeat, every: 1d, grace: 1h, receivers: [oncall], repeat: 24h}\n"
NIGHTLY = (
    "deadman:\n  - {name: nightly, expect: heartbeat, every: '30 2 * * *', timezone: Europe/Madrid, grace: 30m, "
    "receivers: [oncall]}\n"
)


def paging_world(
    servers: TestServers, database: str, switches: str, start: datetime | None = None, **more: Any
) -> World:
    """A world whose switches are told to a fake PagerDuty."""
    clock = ManualClock(start) if start else ManualClock()
    others = {FakePagerDuty.host: FakePagerDuty(clock)}
    return World(servers, database, POLICY + RECEIVERS + switches, clock=clock, others=others, **more)


def pagerduty(world: World) -> FakePagerDuty:
    found = world.others[FakePagerDuty.host]
    assert isinstance(found, FakePagerDuty)
    return found


FAULTS = {
    "nobody listens": refuse(),
    "the request is lost": timeout(),
    "the answer is lost": timeout(after_commit=True),
    "the connection breaks after it was taken": drop(after_commit=True),
    "it is taken when it was sent again already": limbo(),
    "500 after it was taken": answer(500, after_commit=True),
    "429": busy(),
    "a proxy's page": page(502),
}
CHOSEN = size(
    ["nobody listens", "the answer is lost", "it is taken when it was sent again already", "429"], list(FAULTS)
)


@pytest.mark.parametrize("fault", [FAULTS[name] for name in CHOSEN], ids=CHOSEN)
async def test_an_outage_is_one_incident_whatever_pagerduty_answers(
    servers: TestServers, database: str, fault: Fault
) -> None:
    async with paging_world(servers, database, EXPORT, replicas=3) as world:
        await world.settle()
        there = pagerduty(world)
        for number in range(1, size(1, 5) + 1):
            there.disturb(fault, on="event", times=3)
            await world.pass_by(hours=25)
            await world.pass_by(minutes=10, steps=4)
            assert there.faults_pending == 0
            there.land()
            [incident] = there.open()
            assert incident.key == "trigger-gateway/deadman:export"
            assert incident.details["detail"].startswith("no ping")
            there.disturb(fault, on="event", times=3)
            await world.post("/ping/export", b"", to=1)
            await world.pass_by(minutes=10, steps=4)
            assert there.faults_pending == 0
            there.land()
            assert there.open() == []
            assert len(there.opened) == number


async def test_an_incident_is_told_again_while_it_is_open(servers: TestServers, database: str) -> None:
    async with paging_world(servers, database, EXPORT, replicas=2, external_url="https://gateway.example") as world:
        await world.settle()
        await world.pass_by(hours=25)
        await world.pass_by(hours=72, steps=12)
        [incident] = pagerduty(world).opened
        assert incident.triggers == 4
        link = pagerduty(world).seen[0].call.body["client_url"]
        assert link == "https://gateway.example/ui/switches/export"


class Killed(BaseException):
    """As SIGKILL would: nobody handles it, and Postgres rolls back what was not committed."""


@contextmanager
def dying(services: Services, step: int) -> Iterator[None]:
    """The process dies before its statement or commit number `step`."""
    count = 0

    def kill(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == step:
            raise Killed

    engine = services.core.engine.sync_engine
    for name in ("before_cursor_execute", "commit"):
        event.listen(engine, name, kill)
    try:
        yield
    finally:
        for name in ("before_cursor_execute", "commit"):
            event.remove(engine, name, kill)


async def died(services: Services, loop: str, step: int) -> bool:
    """Whether a step of this loop had so many steps that it died at this one."""
    with dying(services, step):
        try:
            await services.loop(loop).step()
        except Killed:
            return True
        except BaseExceptionGroup as group:
            return group.subgroup(Killed) is not None
    return False


@pytest.mark.parametrize("loop", ["watch", "relay"])
async def test_killed_at_every_step_between_flip_and_sent_there_is_one_incident(
    servers: TestServers, database: str, loop: str
) -> None:
    async with paging_world(servers, database, EXPORT, replicas=2) as world:
        await world.settle()
        there, doomed, outages = pagerduty(world), world.services[0], 0
        for step in range(1, 100):
            world.clock.pass_by(timedelta(hours=25))
            await world.watched()
            if loop == "relay":
                await doomed.loop("watch").step()
            killed = await died(doomed, loop, step)
            await world.pass_by(minutes=5, steps=2)  # The other replica, and this one started again, go on.
            outages += 1
            assert len(there.opened) == outages, f"killed at step {step}"
            assert len(there.open()) == 1, f"killed at step {step}"
            await world.post("/ping/export", b"")
            await world.pass_by(minutes=1)
            assert there.open() == [], f"killed at step {step}"
            if not killed:
                break
        assert outages > 5, "it was killed at too few steps to say anything"


def due_on(day: date) -> datetime:
    """02:30 in Madrid, in UTC, as the job's own cron has it: 03:00 where it does not exist, the first of two."""
    if day == date(2026, 3, 29):
        return datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    return datetime.combine(day, time(2, 30), MADRID).astimezone(UTC)


@pytest.mark.parametrize("month", [3, 10])
async def test_over_a_change_of_the_clocks_no_alarm_is_false_missed_or_late(
    servers: TestServers, database: str, month: int
) -> None:
    """A job runs every night ten minutes late; some nights it does not. Three replicas watch, one of them restarts every
    hour, and nobody watches for fifty seconds then."""
    change = date(2026, month, 29 if month == 3 else 25)
    days = size(
        [change + timedelta(days=offset) for offset in (-1, 0, 1)],
        [date(2026, month, 1) + timedelta(days=offset) for offset in range(31)],
    )
    chosen = seed()
    missed = set(days[1:3]) if len(days) == 3 else {day for day in days if (day.day + chosen) % 3 == 0} | {change}
    start = due_on(days[0]) - timedelta(hours=4)
    async with paging_world(servers, database, NIGHTLY, start, replicas=3) as world:
        await world.settle()
        there = pagerduty(world)
        expected = []
        for day in days:
            due = due_on(day)
            await _go_on(world, due - timedelta(seconds=1))
            before = len(there.opened)
            await _go_on(world, due + timedelta(minutes=10))
            if day not in missed:
                await world.post("/ping/nightly", b"", to=day.day % 3)
            await _go_on(world, due + timedelta(minutes=30) - timedelta(seconds=1))
            assert len(there.opened) == before, f"{day}: a false alarm"
            await _go_on(world, due + timedelta(minutes=30, seconds=59))
            if day in missed and day - timedelta(days=1) not in missed:
                expected.append(due + timedelta(minutes=30))
            await _go_on(world, due + timedelta(hours=20))
        assert len(there.opened) == len(expected)
        for incident, deadline in zip(there.opened, expected, strict=True):
            assert deadline <= incident.opened_at <= deadline + timedelta(seconds=60)


async def _go_on(world: World, until: datetime) -> None:
    """Time passes, watched; at every full hour one replica starts anew, and nobody watches for fifty seconds."""
    while (hour := _next_hour(world.clock.now())) < until:
        world.clock.pass_by(hour - world.clock.now())
        await world.watched()
        world.clock.pass_by(timedelta(seconds=50))
        _restart(world, world.services[hour.hour % 3])
        await asyncio.gather(*(services.loop("watch").step() for services in world.services))
        await world.services[0].loop("relay").step()
    if until > world.clock.now():
        world.clock.pass_by(until - world.clock.now())
        await world.watched()
    await world.settle()


def _next_hour(now: datetime) -> datetime:
    return now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def _restart(world: World, services: Services) -> None:
    """A watch that knows nothing but what stands in Postgres."""
    flips = Flips(services.core, Incidents(services.core))
    watch = Watch(services.core, flips, interval=10.0)
    services.loop("watch").step = watch.step
