"""The rounds of the relay on a real Postgres: its breaker, its errors, and that no target holds up another."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.kit.outbox.model import Delivered, Item, Outcome
from tests.fakes.clock import ManualClock
from tests.integration.outbox_items import NO_ANSWER, NOON, Target, put, relay, row, rows, settle_all

# Rounds of a target, and its breaker.


@pytest.mark.parametrize(
    ("failures", "asked_after", "asked_at_once"),
    [
        pytest.param({0, 1, 2, 3, 4, 5, 6, 7}, 2, 0, id="nobody answered: one failure, not eight"),
        pytest.param({7}, 0, 4, id="one did not, the last"),
        pytest.param({0, 1, 2, 3, 4, 5, 6}, 0, 4, id="one answered, the last"),
        pytest.param({1, 2, 3, 4, 5, 6, 7}, 0, 4, id="one answered, the first"),
    ],
)
async def test_a_round_is_a_failure_of_its_target_when_no_item_was_answered_and_counts_once(
    engine: AsyncEngine, failures: set[int], asked_after: float, asked_at_once: int
) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    await put(engine, 8)
    target = Target(lambda item: NO_ANSWER if item.payload["n"] in failures else Delivered(None))
    runner = relay(engine, clock, target)
    await runner.step()
    target.behave = lambda _item: Delivered(None)
    late = await put(engine, 4, payload={"n": 99})
    before = len(target.asked)
    await runner.step()
    assert len(target.asked) - before == asked_at_once
    clock.pass_by(timedelta(seconds=asked_after))
    await settle_all([runner])
    assert set(late) <= set(target.delivered())


class _Broken(Target):
    """Items whose payload is in `broken` cannot be settled."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self._broken = broken

    async def settled(self, conn: AsyncConnection, item: Item, outcome: Outcome, now: datetime) -> None:
        name = item.payload.get("name")
        if name in self._broken:
            raise ValueError(name)
        await super().settled(conn, item, outcome, now)


def _all_of(error: BaseException) -> list[str]:
    """The texts of an error, or of all errors of a group."""
    if isinstance(error, BaseExceptionGroup):
        return sorted(text for each in error.exceptions for text in _all_of(each))
    return [str(error)]


async def test_every_error_of_a_step_is_reported_and_holds_up_no_neighbour(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    for target, name in [("a", "a1"), ("a", "a2"), ("a", "fine"), ("b", "b1"), ("b", "fine")]:
        await put(engine, 1, target=target, payload={"name": name})
    broken = _Broken("a1", "a2", "b1")
    with pytest.raises(BaseExceptionGroup) as caught:
        await relay(engine, clock, broken).step()
    assert _all_of(caught.value) == ["a1", "a2", "b1"]
    assert len(broken.delivered()) == 2
    states = {(r["payload"]["name"], r["state"]) for r in await rows(engine)}
    assert states == {("a1", "pending"), ("a2", "pending"), ("b1", "pending"), ("fine", "delivered")}


async def test_a_round_with_an_error_ends_when_its_slowest_item_does(engine: AsyncEngine) -> None:
    """Or attempts would go on that nobody waits for, nor stops."""
    clock = ManualClock(NOON + timedelta(hours=1))
    await put(engine, 1, payload={"name": "broken"})
    [slow] = await put(engine, 1, payload={"name": "slow"})
    opened = asyncio.Event()

    class Gate(_Broken):
        async def deliver(self, item: Item) -> Outcome:
            if item.id == slow:
                await opened.wait()
            return await super().deliver(item)

    target = Gate("broken")
    stepping = asyncio.create_task(relay(engine, clock, target).step())
    await asyncio.wait([stepping], timeout=0.5)
    assert not stepping.done()
    opened.set()
    with pytest.raises(BaseExceptionGroup):
        await stepping
    assert target.delivered() == [slow]


# Several targets.


class _Gate(Target):
    """Does not answer for one target until `opened` is set."""

    def __init__(self, slow: str) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self._slow = slow

    async def deliver(self, item: Item) -> Outcome:
        if item.target == self._slow:
            await self.opened.wait()
        return await super().deliver(item)


async def test_a_target_that_does_not_answer_holds_up_no_other(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    slow = await put(engine, 2, target="receiver:slow")
    gate = _Gate("receiver:slow")
    runner = relay(engine, clock, gate, turn=0.5)

    async def step() -> bool:
        """As long as a step waits for others, time passes."""
        stepping = asyncio.create_task(runner.step())
        while not stepping.done():
            await asyncio.wait([stepping], timeout=0.1)
            if not stepping.done():
                clock.pass_by(timedelta(seconds=0.2))
        return stepping.result()

    assert await step(), "something is under way"
    for _ in range(3):
        fast = await put(engine, 3, at=clock.now() - timedelta(minutes=1))
        assert await step()
        assert {(await row(engine, item))["state"] for item in fast} == {"delivered"}
    assert [(await row(engine, item))["attempts"] for item in slow] == [0, 0], "and it was not asked twice"
    gate.opened.set()
    while await step():
        pass
    assert len(gate.delivered()) == 2 + 9


async def test_a_relay_that_ends_gives_up_what_is_under_way_and_another_goes_on(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1, target="receiver:slow")
    gate = _Gate("receiver:slow")
    runner = relay(engine, clock, gate, turn=0.0)
    assert await runner.step()
    await runner.stop()
    assert not any(task.get_name().startswith("relay ") for task in asyncio.all_tasks()), "it waits for their end"
    gate.opened.set()
    assert (await row(engine, item))["state"] == "pending"
    clock.pass_by(timedelta(seconds=61))
    other = Target()
    await relay(engine, clock, other).step()
    assert other.delivered() == [item]


@pytest.mark.parametrize("others", [0, 1])
async def test_a_round_that_never_ends_makes_the_step_stuck_so_that_livez_fails(
    engine: AsyncEngine, others: int
) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    await put(engine, 1, target="receiver:slow")
    gate = _Gate("receiver:slow")
    runner = relay(engine, clock, gate, turn=0.0, attempt=3600.0)
    assert await runner.step()
    clock.pass_by(timedelta(hours=4))
    if others:
        await put(engine, others, target="receiver:fast")
    stepping = asyncio.create_task(runner.step())
    await asyncio.wait([stepping], timeout=0.5)
    assert not stepping.done()
    gate.opened.set()
    assert await stepping


async def test_a_relay_that_is_cancelled_while_it_waits_leaves_nothing_running(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    await put(engine, 1, target="receiver:slow")
    gate = _Gate("receiver:slow")
    stepping = asyncio.create_task(relay(engine, clock, gate).step())
    await asyncio.wait([stepping], timeout=0.3)
    stepping.cancel()
    with suppress(asyncio.CancelledError):
        await stepping
    assert stepping.cancelled()
    gate.opened.set()
    await asyncio.sleep(0)
    assert gate.settlements == []
