"""A loop never ends by itself, rests when there is nothing to do, and tells when a step does not come back."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

from app.kit.clock import monotonic
from app.kit.loop import Loop, all_of, each_alone, in_turns

LONG = 3600.0  # seconds; a test that waited for it would never end


async def run_until(loop: Loop, done: asyncio.Event) -> None:
    """Run it until the test has seen what it wanted."""
    task = asyncio.create_task(loop.run())
    try:
        await asyncio.wait_for(done.wait(), 30)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def steps(*answers: bool | Exception, done: asyncio.Event) -> Callable[[], Coroutine[Any, Any, bool]]:
    """A step that answers these in turn, and rings at the last."""
    left = list(answers)

    async def step() -> bool:
        answer = left.pop(0) if left else False
        if not left:
            done.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    return step


async def test_while_there_is_more_it_takes_no_rest() -> None:
    done = asyncio.Event()
    await run_until(Loop("busy", steps(True, True, True, False, done=done), idle=LONG), done)


async def test_a_busy_loop_lets_others_run() -> None:
    done, turns = asyncio.Event(), []

    async def other() -> None:
        for turn in range(5):
            turns.append(turn)
            await asyncio.sleep(0)
        done.set()

    async def always() -> bool:
        return True

    await asyncio.gather(run_until(Loop("busy", always, idle=LONG), done), other())
    assert turns == [0, 1, 2, 3, 4]


async def test_a_wake_cuts_its_rest_short() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def step() -> bool:
        (second if first.is_set() else first).set()
        return False

    loop = Loop("resting", step, idle=LONG)

    async def wake() -> None:
        await first.wait()
        loop.bell.ring()

    await asyncio.gather(run_until(loop, second), wake())


async def test_a_wake_during_a_step_is_not_lost() -> None:
    done = asyncio.Event()
    taken: list[int] = []

    async def step() -> bool:
        taken.append(len(taken))
        if len(taken) == 1:
            loop.bell.ring()
        else:
            done.set()
        return False

    loop = Loop("ringing", step, idle=LONG)
    await run_until(loop, done)
    assert taken[:2] == [0, 1]


async def test_an_error_is_logged_and_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()
    loop = Loop("failing", steps(ValueError("no"), ValueError("no"), False, done=done), idle=0.001)
    with caplog.at_level(logging.ERROR):
        await run_until(loop, done)
    assert [r.getMessage() for r in caplog.records] == ["loop step failed"] * 2
    assert [vars(r)["loop"] for r in caplog.records] == ["failing"] * 2
    assert [vars(r)["failures"] for r in caplog.records] == [1, 2]
    assert loop.failures == 0


async def test_it_ends_when_it_is_cancelled() -> None:
    begun = asyncio.Event()

    async def step() -> bool:
        begun.set()
        await asyncio.Event().wait()
        return False

    loop = Loop("cancelled", step, idle=LONG)
    assert not loop.started
    await run_until(loop, begun)
    assert loop.started


async def test_a_step_that_does_not_come_back_is_stuck() -> None:
    begun = asyncio.Event()

    async def step() -> bool:
        begun.set()
        await asyncio.Event().wait()
        return False

    hanging = Loop("hanging", step, idle=LONG, patience=-1.0)
    patient = Loop("patient", step, idle=LONG, patience=LONG)
    for loop, stuck in ((hanging, True), (patient, False)):
        begun.clear()
        task = asyncio.create_task(loop.run())
        await asyncio.wait_for(begun.wait(), 30)
        assert loop.stuck() is stuck
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(("idle", "patience", "stuck"), [(1.0, 60.0, False), (1.0, -2.0, True)])
def test_a_loop_that_has_ended_is_stuck_after_rest_and_patience(idle: float, patience: float, stuck: bool) -> None:
    async def step() -> bool:
        return False

    assert Loop("ended", step, idle=idle, patience=patience).stuck() is stuck


def named(item: str) -> dict[str, str]:
    return {"key": item}


@pytest.mark.parametrize("at_once", [1, 2, 9])
async def test_an_item_that_fails_stops_no_other(at_once: int, caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    async def work(item: str) -> None:
        await asyncio.sleep(0)
        if item.startswith("bad"):
            raise ValueError(item)
        done.append(item)

    with caplog.at_level(logging.ERROR):
        failed = await each_alone(["a", "bad1", "b", "bad2", "c"], work, named, "an item failed", at_once=at_once)
    assert done == ["a", "b", "c"]
    assert [(item, str(error)) for item, error in failed] == [("bad1", "bad1"), ("bad2", "bad2")]
    assert [(r.getMessage(), vars(r)["key"]) for r in caplog.records] == [
        ("an item failed", "bad1"),
        ("an item failed", "bad2"),
    ]
    assert all(r.exc_info for r in caplog.records)


@pytest.mark.parametrize(("at_once", "begun"), [(1, ["a", "bad"]), (3, ["a", "bad", "b"]), (9, ["a", "bad", "b", "c"])])
async def test_an_error_of_our_postgres_ends_the_round_and_lets_what_has_begun_end(
    at_once: int, begun: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    started: list[str] = []
    ended: list[str] = []

    async def work(item: str) -> None:
        started.append(item)
        await asyncio.sleep(0)
        if item == "bad":
            raise ConnectionResetError("Postgres is away")
        await asyncio.sleep(0)
        ended.append(item)

    with pytest.raises(ConnectionResetError, match="Postgres is away"):
        await each_alone(["a", "bad", "b", "c"], work, named, "an item failed", at_once=at_once)
    assert started == begun
    assert ended == [item for item in begun if item != "bad"]
    assert caplog.records == []


async def test_of_several_errors_of_our_postgres_none_is_lost() -> None:
    async def work(item: str) -> None:
        await asyncio.sleep(0)
        raise OSError(item)

    with pytest.raises(OSError, match="a") as raised:
        await each_alone(["a", "b", "c"], work, named, "an item failed", at_once=3)
    assert raised.value.__notes__ == ["Another item met OSError: b", "Another item met OSError: c"]


@pytest.mark.parametrize("at_once", [1, 2])
async def test_a_round_that_is_cancelled_leaves_no_task_behind(at_once: int) -> None:
    begun = asyncio.Event()
    given_up: list[str] = []

    async def work(item: str) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(item)

    before = asyncio.all_tasks()
    round_ = asyncio.create_task(each_alone(["a", "b", "c"], work, named, "an item failed", at_once=at_once))
    await asyncio.wait_for(begun.wait(), 30)
    round_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await round_
    assert sorted(given_up) == ["a", "b", "c"][:at_once]
    assert asyncio.all_tasks() == before


async def test_no_items_are_no_work() -> None:
    async def work(item: str) -> None:
        raise AssertionError(item)

    assert await each_alone([], work, named, "an item failed") == []


async def test_all_of_them_side_by_side_in_their_order() -> None:
    both = asyncio.Barrier(2)

    async def work(item: str) -> str:
        await asyncio.wait_for(both.wait(), 30)
        return item

    assert await all_of(work(item) for item in "ab") == ["a", "b"]


async def test_when_one_of_them_raises_the_others_are_given_up_and_its_error_is_raised() -> None:
    given_up: list[str] = []

    async def work(item: str) -> str:
        if item == "bad":
            await asyncio.sleep(0)
            raise LookupError(item)
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(item)
        return item

    before = asyncio.all_tasks()
    with pytest.raises(LookupError, match="bad"):
        await all_of(work(item) for item in ("a", "bad", "b"))
    assert sorted(given_up) == ["a", "b"]
    assert asyncio.all_tasks() == before


async def test_a_long_computation_lets_the_others_have_their_turns() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def long() -> Iterator[int]:
        for number in range(6):
            began = monotonic()
            while monotonic() - began < 0.003:
                pass
            yield number

    task = asyncio.create_task(other())
    assert [number async for number in in_turns(long())] == list(range(6))
    task.cancel()
    assert turns >= 5


async def test_a_short_computation_takes_no_turns_away() -> None:
    assert [item async for item in in_turns("abc")] == ["a", "b", "c"]
    assert [item async for item in in_turns("")] == []
