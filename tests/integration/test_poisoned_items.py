"""A fault of one item is no outage of its target: the others go on, and the item dies with its reason."""

from collections.abc import Callable, Collection
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app import tables
from app.kit.outbox.model import Delivered, Item, Outcome, Retry
from tests.fakes.clock import ManualClock
from tests.integration.outbox_items import NOON, Behave, Target, put, relay, row, rows, settle_all

#: What attempts at a poisoned item come to.
FAILED = Retry("server_error", "500", answered=False, suspect=True, absent=True)
UNCLEAR = Retry("timeout", "no answer", answered=False, suspect=True, ambiguous=True)
AWAY = Retry("connect", "connection refused", answered=False)


class _Asked(Target):
    """A target that can be asked whether it is there."""

    def __init__(self, behave: Behave, there: Callable[[], bool] = lambda: True) -> None:
        super().__init__(behave)
        self._there = there

    async def answers(self, item: Item) -> bool | None:
        return self._there()


def poisoned(items: Collection[UUID], outcome: Outcome) -> Behave:
    return lambda item: outcome if item.id in items else Delivered(None)


class _Slots(_Asked):
    keeps_slot = True


@pytest.mark.parametrize("number", [1, 8, 20])
@pytest.mark.parametrize("outcome", [FAILED, UNCLEAR], ids=["500", "no answer"])
@pytest.mark.parametrize("asked", [True, False], ids=["a target that can be asked", "a target that cannot"])
async def test_items_that_always_fail_hold_up_no_other(
    engine: AsyncEngine, asked: bool, outcome: Retry, number: int
) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    bad = await put(engine, number)
    target = (_Asked if asked else Target)(poisoned(bad, outcome))
    runner = relay(engine, clock, target)
    for _ in range(20):
        clock.pass_by(timedelta(seconds=20))
        await runner.step()
    for _ in range(3):
        [well] = await put(engine, 1, at=clock.now())
        for _ in range(10):
            if (await row(engine, well))["state"] == "delivered":
                break
            clock.pass_by(timedelta(seconds=1))
            await settle_all([runner])
        assert (await row(engine, well))["state"] == "delivered", "it started within seconds"


async def test_a_target_that_is_asked_and_is_away_is_left_alone_at_once(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    await put(engine, 20)
    is_there = False
    target = _Asked(lambda _item: UNCLEAR, lambda: is_there)
    runner = relay(engine, clock, target)
    for _ in range(30):
        clock.pass_by(timedelta(minutes=1))
        await runner.step()
    assert len(target.asked) == 8 + 29, "a round, then one item a minute"
    assert {r["answered_seconds"] for r in await rows(engine)} == {0.0}


@pytest.mark.parametrize("asked", [True, False], ids=["a target that can be asked", "a target that cannot"])
async def test_an_item_that_fails_alone_dies_within_its_deadline_and_is_named(engine: AsyncEngine, asked: bool) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [bad] = await put(engine, 1)
    target = (_Asked if asked else Target)(poisoned([bad], FAILED))
    runner = relay(engine, clock, target, deadline=600.0)
    await runner.step()
    await put(engine, 1)
    for _ in range(16):
        clock.pass_by(timedelta(minutes=1))
        await runner.step()
    found = await row(engine, bad)
    assert (found["state"], found["slot"]) == ("dead", False)
    assert found["detail"].startswith("given up after")
    assert found["detail"].endswith("500")


async def test_an_outage_kills_no_item_that_failed_alone_before(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [bad] = await put(engine, 1)
    target = Target(poisoned([bad], FAILED))
    runner = relay(engine, clock, target, deadline=600.0)
    await runner.step()
    await put(engine, 1)
    await runner.step()
    target.behave = lambda item: FAILED if item.id == bad else AWAY
    await put(engine, 1)
    for _ in range(600):
        clock.pass_by(timedelta(minutes=1))
        await runner.step()
    assert (await row(engine, bad))["state"] == "pending"


#: Attempts at an item that had no clear answer before, and whether it keeps its slot afterwards.
SLOTS = {
    "no answer of a target that is away": (AWAY, 0.0, True),
    "no answer again": (UNCLEAR, 0.0, True),
    "an error of the target itself, and nothing is there": (Retry("x", "", absent=True, ambiguous=True), 0.0, False),
    "an answer that does not show whether it is there": (Retry("x", "", ambiguous=True), 0.0, True),
    "the same after minutes of answers": (Retry("x", "", ambiguous=True), 500.0, False),
    "the same after minutes of answers, and the target is away": (AWAY, 100.0, True),
    "nothing is there": (Retry("x", "", absent=True), 0.0, False),
}


@pytest.mark.parametrize(("outcome", "used", "kept"), SLOTS.values(), ids=SLOTS)
async def test_a_slot_is_kept_only_while_something_may_have_begun(
    engine: AsyncEngine, outcome: Retry, used: float, kept: bool
) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1, slot=True, ambiguous=True, attempts=20, answered_seconds=used)
    await relay(engine, clock, _Slots(lambda _item: outcome, lambda: False), cap=1).step()
    found = await row(engine, item)
    assert found["slot"] is kept
    if kept and outcome.answered:
        assert found["available_at"] <= clock.now() + timedelta(seconds=10), "it is read back soon"


async def test_an_attempt_that_breaks_in_our_own_code_is_no_outage_either(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [bad] = await put(engine, 1)

    def behave(item: Item) -> Outcome:
        if item.id == bad:
            raise KeyError("a bug")
        return Delivered(None)

    runner = relay(engine, clock, _Asked(behave))
    await runner.step()
    [well] = await put(engine, 1)
    await runner.step()
    assert (await row(engine, well))["state"] == "delivered"


async def test_words_that_postgres_cannot_hold_are_settled_all_the_same(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1)
    await relay(engine, clock, Target(lambda _item: Retry("x", "a\0b\ud800c", absent=True))).step()
    assert (await row(engine, item))["detail"] == "ab?c"
    [attempt] = await rows(engine, tables.attempts)
    assert attempt["detail"] == "ab?c"
