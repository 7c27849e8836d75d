"""Notices on a real Postgres: one incident a key, told in order, told again while it is open, lost with nothing but its
own transaction."""

import asyncio
import random
from datetime import timedelta
from itertools import groupby
from typing import Any

import pytest
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from app import tables
from app.kit.db import transaction
from app.kit.metrics import Metrics
from app.kit.outbox.model import Dead, Delivered, Item, Outcome, Retry
from app.kit.outbox.relay import Limits, Relay
from app.notices.incidents import KIND, Incidents
from app.notices.model import LONGEST_KEY, Notice, Severity
from tests.cores import core_of
from tests.fakes.clock import ManualClock
from tests.integration.outbox_items import Target, rows, settle_all
from tests.sizes import seed, size

AWAY = Retry("connect", "connection refused", answered=False)


class _Named(Incidents):
    """Notices that ask the desk, and not a policy, whom to tell."""

    def __init__(self, desk: "Desk", refresh: dict[str, timedelta]) -> None:
        super().__init__(core_of(engine=desk.engine, clock=desk.clock))
        self._desk = desk
        self._every = refresh

    def audience(self, incident: RowMapping) -> list[str] | None:
        return self._desk.named

    def refresh(self, receiver: str) -> timedelta | None:
        return self._every.get(receiver)


class Receivers(Target):
    """Every receiver of the policy."""

    kind = KIND


class Desk:
    """Notices and a relay on one clock; `told` is (receiver, action, times) in the order of arrival."""

    def __init__(self, engine: AsyncEngine, refresh: dict[str, timedelta] | None = None) -> None:
        self.engine = engine
        self.clock = ManualClock()
        self.named: list[str] | None = None  # whom the policy names by now
        self.notices = _Named(self, refresh or {})
        self.away: set[str] = set()
        self.refuses: set[str] = set()
        self.sent: list[tuple[str, str, int]] = []
        self.target = Receivers(self._behave)
        self.relay = self.another_relay()

    def another_relay(self) -> Relay:
        limits = Limits(deadline=3600, attempt=30, retry_max=60, parallel=8, cap=lambda _target: None)
        return Relay(self.engine, self.clock, [self.target], limits, Metrics())

    def _behave(self, item: Item) -> Outcome:
        receiver = item.payload["receiver"]
        if receiver in self.away:
            return AWAY
        if receiver in self.refuses:
            return Dead("rejected", "no")
        self.sent.append((receiver, item.payload["action"], item.payload["times"]))
        return Delivered(None)

    async def open(self, *receivers: str, key: str = "churn", repeat: timedelta | None = None) -> bool:
        notice = Notice(key, "trigger_dead", Severity.CRITICAL, "A trigger is dead", "The DAG is gone.", {"model": "x"})
        async with transaction(self.engine) as conn:
            return await self.notices.open(conn, receivers, notice, self.clock.now(), repeat)

    async def resolve(self, key: str = "churn") -> bool:
        async with transaction(self.engine) as conn:
            return await self.notices.resolve(conn, key, self.clock.now(), "It goes again.")

    async def pass_by(self, **time: float) -> None:
        self.clock.pass_by(timedelta(**time))
        while await self.notices.step():
            pass
        await settle_all([self.relay])

    async def incidents(self) -> list[dict[str, Any]]:
        return await rows(self.engine, tables.notices)


@pytest.fixture
def desk(engine: AsyncEngine) -> Desk:
    return Desk(engine)


async def test_each_receiver_is_told_once_of_the_opening_and_once_of_the_end(desk: Desk) -> None:
    assert await desk.open("oncall", "ops", "oncall")
    await desk.pass_by(seconds=1)
    assert await desk.resolve()
    await desk.pass_by(hours=1)
    assert sorted(desk.sent) == [
        ("oncall", "open", 1),
        ("oncall", "resolve", 1),
        ("ops", "open", 1),
        ("ops", "resolve", 1),
    ]
    [incident] = await desk.incidents()
    assert (incident["event"], incident["severity"], incident["labels"]) == ("trigger_dead", "critical", {"model": "x"})
    assert incident["resolution"] == "It goes again."
    assert incident["resolved_at"] - incident["opened_at"] == timedelta(seconds=1)


async def test_an_open_key_is_not_opened_again_and_a_resolved_one_is_a_new_incident(desk: Desk) -> None:
    assert not await desk.resolve(), "nothing is open"
    assert await desk.open("oncall")
    assert not await desk.open("oncall", "ops")
    assert await desk.open("oncall", key="fraud"), "another key is another incident"
    assert await desk.resolve()
    assert not await desk.resolve()
    assert await desk.open("oncall")
    await desk.pass_by(seconds=1)
    assert len(await desk.incidents()) == 3
    assert sorted(desk.sent) == [("oncall", "open", 1)] * 3 + [("oncall", "resolve", 1)]


async def test_without_receivers_the_incident_is_recorded_and_nobody_told(desk: Desk) -> None:
    assert await desk.open()
    assert await desk.resolve()
    await desk.pass_by(days=1)
    assert (len(await desk.incidents()), desk.sent) == (1, [])


async def test_what_opens_and_ends_while_a_receiver_is_away_reaches_it_in_order(desk: Desk) -> None:
    desk.away.add("oncall")
    await desk.open("oncall", "ops")
    await desk.pass_by(seconds=5)
    await desk.resolve()
    await desk.open("oncall", "ops")
    await desk.pass_by(minutes=2)
    assert desk.sent == [("ops", "open", 1), ("ops", "resolve", 1), ("ops", "open", 1)], "nobody waits for another's"
    desk.sent.clear()
    desk.away.clear()
    await desk.pass_by(minutes=2)
    await desk.resolve()
    await desk.pass_by(minutes=2)
    actions = [action for receiver, action, _ in desk.sent if receiver == "oncall"]
    assert actions == ["open", "resolve", "open", "resolve"]


async def test_a_refused_open_does_not_hold_up_its_resolve_nor_other_receivers(desk: Desk) -> None:
    desk.refuses.add("oncall")
    await desk.open("oncall", "ops")
    await desk.pass_by(seconds=1)
    desk.refuses.clear()
    await desk.resolve()
    await desk.pass_by(seconds=1)
    assert sorted(desk.sent) == [("oncall", "resolve", 1), ("ops", "open", 1), ("ops", "resolve", 1)]
    states = {(i["payload"]["receiver"], i["payload"]["action"]): i["state"] for i in await rows(desk.engine)}
    assert states["oncall", "open"] == "dead"


async def test_an_open_incident_is_told_again_until_it_is_resolved(desk: Desk) -> None:
    await desk.open("oncall", repeat=timedelta(hours=24))
    for _ in range(13):
        await desk.pass_by(hours=6)
    assert desk.sent == [("oncall", "open", n) for n in (1, 2, 3, 4)]
    await desk.resolve()
    for _ in range(13):
        await desk.pass_by(hours=6)
    assert desk.sent[4:] == [("oncall", "resolve", 1)]


async def test_a_repeat_goes_to_whom_the_policy_names_by_now_and_the_end_to_everybody_who_was_told(desk: Desk) -> None:
    await desk.open("oncall", "ops", repeat=timedelta(hours=1))
    await desk.pass_by(minutes=1)
    for names in (["ops", "pager"], ["ops", "pager", "oncall"], []):
        desk.sent.clear()
        desk.named = names
        await desk.pass_by(hours=1)
        assert sorted(receiver for receiver, _, _ in desk.sent) == sorted(names)
        assert {action for _, action, _ in desk.sent} <= {"open"}
    desk.sent.clear()
    await desk.pass_by(hours=5)
    await desk.resolve()
    await desk.pass_by(minutes=1)
    assert sorted(desk.sent) == [("oncall", "resolve", 1), ("ops", "resolve", 1), ("pager", "resolve", 1)]


async def test_a_repeat_that_fails_once_is_sent_again_as_soon_as_a_first_notice(desk: Desk) -> None:
    await desk.open("oncall", repeat=timedelta(hours=1))
    for _ in range(12):
        await desk.pass_by(hours=1)
    [item] = await rows(desk.engine)
    assert (item["payload"]["times"], item["state"], item["slot"]) == (12, "delivered", False)
    desk.away.add("oncall")
    await desk.pass_by(hours=1)
    [item] = await rows(desk.engine)
    assert item["attempts"] == 1
    assert item["available_at"] - desk.clock.now() <= timedelta(seconds=2)


async def test_what_is_resolved_while_it_is_due_is_told_no_more(desk: Desk) -> None:
    await desk.open("oncall", repeat=timedelta(hours=1))
    await desk.pass_by(minutes=59)
    desk.named = ["oncall", "pager"]
    desk.clock.pass_by(timedelta(minutes=1))
    async with transaction(desk.engine) as conn:
        await desk.notices.resolve(conn, "churn", desk.clock.now(), "over")
        await desk.notices.step()  # It waits for nobody, and leaves the incident alone.
    await desk.pass_by(hours=2)
    assert desk.sent == [("oncall", "open", 1), ("oncall", "resolve", 1)]


async def test_while_a_receiver_is_away_repeats_do_not_pile_up(desk: Desk) -> None:
    desk.away.add("oncall")
    await desk.open("oncall", repeat=timedelta(hours=1))
    for _ in range(20):
        await desk.pass_by(hours=1)
    desk.away.clear()
    await desk.pass_by(minutes=2)
    assert desk.sent == [("oncall", "open", 1)]
    assert len(await rows(desk.engine)) == 1


async def test_a_repeat_after_a_refusal_tries_again(desk: Desk) -> None:
    """A wrong secret was mended meanwhile."""
    desk.refuses.add("oncall")
    await desk.open("oncall", repeat=timedelta(hours=1))
    await desk.pass_by(minutes=1)
    desk.refuses.clear()
    await desk.pass_by(hours=1)
    assert desk.sent == [("oncall", "open", 2)]


async def test_a_receiver_that_forgets_is_told_as_often_as_it_wants(engine: AsyncEngine) -> None:
    desk = Desk(engine, {"alertmanager": timedelta(minutes=2)})
    await desk.open("alertmanager", "oncall", repeat=timedelta(minutes=10))
    for _ in range(11):
        await desk.pass_by(minutes=1)
    assert desk.sent.count(("oncall", "open", 2)) == 1
    assert [times for receiver, _, times in desk.sent if receiver == "alertmanager"] == [1, 2, 3, 4, 5, 6]


async def test_what_is_not_committed_was_neither_opened_nor_resolved(desk: Desk) -> None:
    notice, now = Notice("churn", "trigger_dead", Severity.ERROR, "t", "d"), desk.clock.now()
    async with desk.engine.connect() as conn, conn.begin() as begun:
        await desk.notices.open(conn, ["oncall"], notice, now)
        await begun.rollback()
    assert (await desk.incidents(), await rows(desk.engine)) == ([], [])
    await desk.open("oncall")
    async with desk.engine.connect() as conn, conn.begin() as begun:
        await desk.notices.resolve(conn, "churn", now, "over")
        await begun.rollback()
    [incident] = await desk.incidents()
    assert incident["resolved_at"] is None
    assert len(await rows(desk.engine)) == 1


async def test_an_open_that_meets_the_resolve_before_it_waits_for_it_and_is_not_lost(desk: Desk) -> None:
    await desk.open("oncall")
    async with transaction(desk.engine) as conn:
        await desk.notices.resolve(conn, "churn", desk.clock.now(), "over")
        opening = asyncio.create_task(desk.open("oncall"))
        await asyncio.wait([opening], timeout=0.2)
        assert not opening.done()
    assert await opening
    await desk.pass_by(seconds=1)
    assert [action for _, action, _ in desk.sent] == ["open", "resolve", "open"]


@pytest.mark.parametrize("key", ["", "x" * (LONGEST_KEY + 1), "a\nb", "a\0b"])
def test_a_key_that_no_receiver_can_hold_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        Notice(key, "trigger_dead", Severity.INFO, "t", "d")


async def test_whatever_opens_ends_and_fails_every_receiver_hears_each_incident_in_its_order(
    engine: AsyncEngine,
) -> None:
    """Random flips, outages, answers that get lost, and two relays: at each receiver the actions of a key are open (once
    or more), resolve (once or more), open, ... with no incident left out, and end with what is true."""
    chance = random.Random(seed())
    desk = Desk(engine)
    relays = [desk.relay, desk.another_relay()]
    is_open = dict.fromkeys(["churn", "fraud"], False)
    arrived: dict[tuple[str, str], list[str]] = {}
    is_calm = False

    def behave(item: Item) -> Outcome:
        way = "fine" if is_calm else chance.choice(["fine", "fine", "away", "late"])
        if way == "away":
            return AWAY
        arrived.setdefault((item.payload["receiver"], item.payload["notice"]), []).append(item.payload["action"])
        order.append((item.payload["receiver"], item.payload["notice"]))
        if way == "late":
            return Retry("timeout", "no answer", answered=False, ambiguous=True)
        return Delivered(None)

    order: list[tuple[str, str]] = []
    desk.target.behave = behave
    for _ in range(size(40, 400)):
        key = chance.choice(list(is_open))
        if is_open[key]:
            await desk.resolve(key)
        else:
            await desk.open("oncall", "ops", key=key, repeat=timedelta(minutes=7))
        is_open[key] = not is_open[key]
        desk.clock.pass_by(timedelta(seconds=chance.choice([0, 1, 90, 600])))
        await desk.notices.step()
        await asyncio.gather(*(relay.step() for relay in relays))
    is_calm = True
    for _ in range(20):
        desk.clock.pass_by(timedelta(minutes=2))
        await settle_all(relays)
    incidents = await desk.incidents()
    for receiver in ("oncall", "ops"):
        for incident in incidents:
            flips = [action for action, _ in groupby(arrived[receiver, str(incident["id"])])]
            assert flips == (["open", "resolve"] if incident["resolved_at"] else ["open"])
        for key in is_open:
            mine = [str(i["id"]) for i in incidents if i["key"] == key]
            heard = [ident for who, ident in order if who == receiver and ident in mine]
            assert [ident for ident, _ in groupby(heard)] == mine, "one incident after the other"
