"""Claims, leases and caps on a real Postgres: one relay at a time holds an item, and slots never exceed the cap."""

import asyncio
import random
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.kit.db import open_engine, transaction
from app.kit.outbox import store
from app.kit.outbox.model import Dead, Item
from tests.fakes.clock import ManualClock
from tests.integration.outbox_items import NOON, TARGET, Target, missing, put, relay, row, rows
from tests.sizes import seed, size


async def claim(engine: AsyncEngine, *, after: float = 0, most: int = 8, cap: int | None = None) -> list[Item]:
    now = NOON + timedelta(seconds=3600 + after)
    async with transaction(engine) as conn:
        return await store.claim(conn, TARGET, now, most=most, lease=60, cap=cap)


async def settle(engine: AsyncEngine, item: Item, **values: object) -> bool:
    async with transaction(engine) as conn:
        return await store.settle(conn, item, **values)


async def release(engine: AsyncEngine, item: UUID) -> None:
    async with transaction(engine) as conn:
        await store.release_slot(conn, item)


# Claims and leases.


async def test_the_oldest_go_first(engine: AsyncEngine) -> None:
    younger = await put(engine, 3, at=NOON + timedelta(minutes=5))
    older = await put(engine, 3)
    assert [i.id for i in await claim(engine, most=4)] == [*older, younger[0]]


async def test_what_is_not_yet_due_is_left_alone(engine: AsyncEngine) -> None:
    await put(engine, 1, available_at=NOON + timedelta(hours=2))
    await put(engine, 1, state="dead")
    await put(engine, 1, state="delivered")
    [due] = await put(engine, 1)
    assert [i.id for i in await claim(engine)] == [due]


async def test_many_claimers_at_once_never_share_an_item(engine: AsyncEngine) -> None:
    number = size(60, 2000)
    wanted = await put(engine, number)
    taken: list[UUID] = []

    async def take() -> None:
        while items := await claim(engine, most=3):
            taken.extend(i.id for i in items)

    await asyncio.gather(*(take() for _ in range(8)))
    assert len(taken) == len(set(taken)) == number
    assert not missing(wanted, taken)


async def test_nobody_else_takes_a_claimed_item_until_its_lease_has_expired(engine: AsyncEngine) -> None:
    await put(engine, 1)
    [mine] = await claim(engine)
    assert await claim(engine, after=59.9) == []
    [theirs] = await claim(engine, after=60)
    assert theirs.id == mine.id
    assert theirs.claim != mine.claim


async def test_the_result_of_a_lost_lease_is_dropped(engine: AsyncEngine) -> None:
    await put(engine, 1)
    [mine] = await claim(engine)
    [theirs] = await claim(engine, after=61)
    assert not await settle(engine, mine, state="dead", detail="too late")
    assert (await row(engine, mine.id))["state"] == "pending"
    assert await settle(engine, theirs, state="delivered", detail="delivered")
    assert not await settle(engine, theirs, state="dead"), "a claim settles once"
    found = await row(engine, mine.id)
    assert (found["state"], found["attempts"], found["claim"]) == ("delivered", 1, None)


async def test_a_relay_that_lost_its_lease_writes_no_consequences(engine: AsyncEngine) -> None:
    """The slow relay gets its answer after another one has delivered the item."""
    clock = ManualClock(NOON + timedelta(hours=1))
    await put(engine, 1)
    fast = Target()
    quick = relay(engine, clock, fast)

    async def meanwhile() -> None:
        clock.pass_by(timedelta(seconds=61))
        await quick.step()

    slow = Target(lambda _item: Dead("rejected", "an old answer"), meanwhile)
    await relay(engine, clock, slow).step()
    [item] = await rows(engine)
    assert item["state"] == "delivered"
    assert (len(fast.settlements), slow.settlements, slow.commits) == (1, [], [])


# The cap.


async def test_a_slot_is_held_until_what_it_started_is_over(engine: AsyncEngine) -> None:
    wanted = await put(engine, 3)
    [first, second] = await claim(engine, cap=2)
    assert await claim(engine, cap=2) == []
    await settle(engine, first, state="delivered")
    assert await claim(engine, cap=2) == [], "delivered is not over: its DAG run is open"
    await release(engine, first.id)
    assert [i.id for i in await claim(engine, cap=2)] == [wanted[2]]
    await settle(engine, second, state="dead", slot=False)
    assert [i.id for i in await claim(engine, after=61, cap=2)] == [wanted[2]], "its own slot is still its own"


async def test_a_cap_belongs_to_one_target(engine: AsyncEngine) -> None:
    await put(engine, 2, slot=True, state="delivered", target="airflow:other")
    await put(engine, 1)
    assert len(await claim(engine, cap=1)) == 1


async def test_a_cap_that_was_lowered_takes_no_slot_away_and_gives_none(engine: AsyncEngine) -> None:
    await put(engine, 4, slot=True, state="delivered")
    await put(engine, 2)
    assert await claim(engine, cap=2) == []


@pytest.mark.parametrize("waiting", [1, 8, 20])
async def test_an_item_that_holds_a_slot_is_not_kept_out_by_older_ones_without(
    engine: AsyncEngine, waiting: int
) -> None:
    """Items that must be read back hold every slot, so older items cannot go: the read-back must come first."""
    [holder] = await put(engine, 1, at=NOON + timedelta(minutes=30), slot=True, ambiguous=True)
    older = await put(engine, waiting)
    assert [i.id for i in await claim(engine, most=8, cap=1)] == [holder]
    await release(engine, holder)
    assert [i.id for i in await claim(engine, most=8, cap=1)] == [older[0]]


async def test_an_item_that_holds_a_slot_does_not_go_before_one_that_waits_longer(engine: AsyncEngine) -> None:
    """An item that fails again and again would win each try of a target that is slow to come back."""
    [holder] = await put(engine, 1, at=NOON + timedelta(minutes=30), slot=True, ambiguous=True, attempts=9)
    [older] = await put(engine, 1)
    assert [i.id for i in await claim(engine, most=1)] == [older]
    assert [i.id for i in await claim(engine, most=1)] == [holder]


async def test_only_new_items_leave_what_was_tried_before(engine: AsyncEngine) -> None:
    await put(engine, 3, attempts=1)
    [new] = await put(engine, 1, at=NOON + timedelta(minutes=1))
    async with transaction(engine) as conn:
        now = NOON + timedelta(hours=1)
        items = await store.claim(conn, TARGET, now, most=8, lease=60, cap=None, only_new=True)
    assert [i.id for i in items] == [new]


async def test_many_claimers_at_once_never_exceed_the_cap(database: str) -> None:
    """Each has connections of its own, as replicas have."""
    chance = random.Random(seed())
    number, cap = size(40, 400), 4
    engines = [open_engine(database, pool_size=2) for _ in range(4)]
    wanted = await put(engines[0], number)
    most_open = 0
    finished: list[UUID] = []

    async def work(engine: AsyncEngine) -> None:
        nonlocal most_open
        while len(finished) < number:
            for item in await claim(engine, most=chance.randrange(1, 9), cap=cap):
                await settle(engine, item, state="delivered")
                held = [r for r in await rows(engine) if r["slot"]]
                most_open = max(most_open, len(held))
                await release(engine, item.id)
                finished.append(item.id)

    try:
        async with asyncio.timeout(size(30, 300)):
            await asyncio.gather(*(work(engine) for engine in engines))
    finally:
        for engine in engines:
            await engine.dispose()
    assert most_open <= cap
    assert sorted(finished) == sorted(wanted)
