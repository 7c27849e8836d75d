"""The relay on a real Postgres: what each outcome leads to, and how attempts in a row count."""

import random
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import update
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app import tables
from app.kit.db import transaction
from app.kit.outbox import store
from app.kit.outbox.model import Dead, Delivered, Item, Outcome, Retry
from app.lineage.record_store import add, item_of, wake_again
from mlflow_spool.records import Call, Kind, Record
from tests.fakes.clock import ManualClock
from tests.integration.outbox_items import NO_ANSWER, NOON, Target, put, relay, row, rows, settle_all

WAITS = Retry("dag_paused", "the DAG is paused", waits=True, absent=True, after=15)
AMBIGUOUS = Retry("timeout", "no answer came", answered=False, ambiguous=True)
REFUSED = Retry("no_dag", "there is no such DAG", absent=True, after=10)


# What an outcome leads to.


async def test_equal_attempts_are_folded_into_one_row_and_different_ones_are_not(engine: AsyncEngine) -> None:
    item, now = uuid7(), NOON
    results = [("retry", "unreachable"), ("retry", "unreachable"), ("retry", "timeout"), ("retry", "unreachable")]
    first_of_kind = []
    for n, (result, code) in enumerate(results):
        async with transaction(engine) as conn:
            at = now + timedelta(minutes=n)
            first_of_kind.append(await store.record_attempt(conn, item, result, code, f"try {n}", at))
    assert first_of_kind == [True, False, True, True]
    found = [(r["code"], r["count"], r["detail"], r["last_at"] - now) for r in await rows(engine, tables.attempts)]
    assert found == [
        ("unreachable", 2, "try 1", timedelta(minutes=1)),
        ("timeout", 1, "try 2", timedelta(minutes=2)),
        ("unreachable", 1, "try 3", timedelta(minutes=3)),
    ]


OUTCOMES = {
    "delivered": (Delivered(None), {"state": "delivered", "slot": False, "ambiguous": False}),
    "dead": (Dead("rejected", "no"), {"state": "dead", "slot": False, "detail": "no"}),
    "unreachable": (NO_ANSWER, {"state": "pending", "slot": False, "ambiguous": False, "answered_at": None}),
    "ambiguous": (AMBIGUOUS, {"state": "pending", "slot": True, "ambiguous": True}),
    "paused": (WAITS, {"state": "pending", "slot": False, "ambiguous": False, "answered_at": None}),
    "refused": (REFUSED, {"state": "pending", "slot": False, "answered_at": NOON + timedelta(hours=1)}),
}


@pytest.mark.parametrize(("outcome", "expected"), [pytest.param(*v, id=k) for k, v in OUTCOMES.items()])
async def test_each_outcome_is_settled_in_its_way(
    engine: AsyncEngine, outcome: Outcome, expected: dict[str, object]
) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1)
    target = Target(lambda _item: outcome)
    await relay(engine, clock, target).step()
    found = await row(engine, item)
    assert {name: found[name] for name in expected} == expected
    assert (found["claim"], found["lease_until"], found["attempts"]) == (None, None, 1)
    assert [i for i, _ in target.settlements] == [i for i, _ in target.commits] == [item]
    [attempt] = await rows(engine, tables.attempts)
    assert (attempt["item"], attempt["code"]) == (item, outcome.code)


class _Runs(Target):
    """What it starts goes on after the delivery."""

    keeps_slot = True


@pytest.mark.parametrize(
    ("target", "delivered"), [pytest.param(Target(), 3, id="over"), pytest.param(_Runs(), 1, id="goes on")]
)
async def test_a_delivered_item_keeps_its_slot_while_what_it_started_goes_on(
    engine: AsyncEngine, target: Target, delivered: int
) -> None:
    await put(engine, 3)
    await settle_all([relay(engine, ManualClock(NOON + timedelta(hours=1)), target, cap=1)])
    assert len(target.delivered()) == delivered
    assert [r["slot"] for r in await rows(engine) if r["state"] == "delivered"] == [target.keeps_slot] * delivered


async def test_a_deliverer_that_breaks_is_an_ambiguous_attempt_not_the_end(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1)

    def broken(_item: Item) -> Outcome:
        raise KeyError("a bug")

    await relay(engine, clock, Target(broken)).step()
    found = await row(engine, item)
    assert (found["state"], found["ambiguous"]) == ("pending", True)
    assert "KeyError" in found["detail"]


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("postgres"), PoolTimeout("no connection is free"), TimeoutError("postgres hangs")]
)
async def test_a_postgres_that_fails_within_an_attempt_is_not_the_targets_fault(
    engine: AsyncEngine, error: Exception
) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    items = await put(engine, 8)

    def broken(_item: Item) -> Outcome:
        raise error

    target = Target(broken)
    runner = relay(engine, clock, target)
    await runner.step()
    assert {(await row(engine, item))["attempts"] for item in items} == {0}
    target.behave = lambda _item: Delivered(None)
    clock.pass_by(timedelta(seconds=61))
    await runner.step()
    assert set(target.delivered()) == set(items), "no breaker keeps all but one of them back"
    assert {item.ambiguous for item in target.asked[8:]} == {True}, "nobody knows what had been sent"


async def test_an_outage_kills_nothing_however_long_it_lasts(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    await put(engine, 5)
    target = Target(lambda _item: NO_ANSWER)
    runner = relay(engine, clock, target, deadline=3600.0)
    for _ in range(40):
        clock.pass_by(timedelta(hours=1))
        await runner.step()
    assert {r["state"] for r in await rows(engine)} == {"pending"}
    assert len(target.asked) == 5 + 39, "after the first round an open breaker lets one item through"
    target.behave = lambda _item: Delivered(None)
    for _ in range(10):
        clock.pass_by(timedelta(minutes=2))
        await settle_all([runner])
    assert {r["state"] for r in await rows(engine)} == {"delivered"}
    assert len(target.delivered()) == 5


async def test_after_an_outage_items_go_out_one_two_four_at_a_time(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    await put(engine, 20)
    target = Target(lambda _item: NO_ANSWER)
    runner = relay(engine, clock, target)
    await runner.step()
    target.behave = lambda _item: Delivered(None)
    clock.pass_by(timedelta(minutes=5))
    sizes = []
    for _ in range(6):
        before = len(target.asked)
        await runner.step()
        sizes.append(len(target.asked) - before)
    assert sizes[:4] == [1, 2, 4, 8]
    assert sum(sizes) == 20


async def test_only_time_in_which_the_target_answers_counts_against_the_deadline(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1)
    target = Target()
    runner = relay(engine, clock, target, deadline=600.0)

    async def hours(number: int, outcome: Outcome, step: timedelta) -> None:
        target.behave = lambda _item: outcome
        for _ in range(number):
            clock.pass_by(step)
            await runner.step()

    await hours(5, NO_ANSWER, timedelta(hours=1))
    await hours(5, WAITS, timedelta(hours=1))
    await hours(5, REFUSED, timedelta(minutes=2))  # four intervals of 120 s between five answers
    found = await row(engine, item)
    assert (found["state"], found["answered_seconds"]) == ("pending", 480.0)
    await hours(2, REFUSED, timedelta(minutes=2))
    found = await row(engine, item)
    assert found["state"] == "dead"
    assert found["detail"].startswith("given up after 720 s of answers: there is no such DAG")


async def test_an_ambiguous_item_does_not_die_before_a_read_has_shown_that_nothing_is_there(
    engine: AsyncEngine,
) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1, ambiguous=True, slot=True)
    target = Target(lambda _item: Retry("conflict", "409", answered=True, ambiguous=True))
    runner = relay(engine, clock, target, deadline=60.0)
    for _ in range(20):
        clock.pass_by(timedelta(minutes=10))
        await runner.step()
    assert (await row(engine, item))["state"] == "pending"
    target.behave = lambda _item: REFUSED
    clock.pass_by(timedelta(minutes=10))
    await runner.step()
    assert (await row(engine, item))["state"] == "dead"


async def test_a_dead_item_that_is_redriven_is_read_back_and_has_a_new_deadline(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1, answered_seconds=5000.0, answered_at=NOON)
    target = Target(lambda _item: Dead("rejected", "no"))
    runner = relay(engine, clock, target)
    await runner.step()
    async with transaction(engine) as conn:
        assert await store.redrive(conn, item, clock.now())
        assert not await store.redrive(conn, item, clock.now()), "only what is dead is redriven"
    target.behave = lambda _item: Delivered(None)
    await runner.step()
    assert [i.ambiguous for i in target.asked] == [False, True]
    assert target.asked[1].answered_seconds == 0
    assert (await row(engine, item))["state"] == "delivered"


async def test_an_item_of_an_unknown_kind_is_put_off_by_name_and_its_neighbours_arrive(engine: AsyncEngine) -> None:
    """A newer version has put it there."""
    clock = ManualClock(NOON + timedelta(hours=1))
    [newer] = await put(engine, 1, kind="newer")
    others = await put(engine, 3)
    target = Target()
    await relay(engine, clock, target).step()
    assert set(target.delivered()) == set(others)
    found = await row(engine, newer)
    assert (found["state"], found["claim"], found["slot"]) == ("pending", None, False)
    assert "'newer'" in found["detail"]
    assert found["available_at"] > clock.now()
    [attempt] = [a for a in await rows(engine, tables.attempts) if a["item"] == newer]
    assert (attempt["result"], attempt["code"]) == ("retry", "unknown_kind")


# Attempts in a row.


async def _hiccup(
    engine: AsyncEngine, clock: ManualClock, item: UUID, outcome: Outcome = NO_ANSWER
) -> tuple[int, float]:
    """Fail one attempt at an item: the attempts in a row that are kept, and the longest pause that may follow."""
    longest: list[float] = []

    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            longest.append(b)
            return b

    await relay(engine, clock, Target(lambda _item: outcome), chance=Longest()).step()
    return (await row(engine, item))["attempts"], longest[0]


async def test_a_dead_item_that_is_redriven_forgets_its_earlier_attempts(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1, state="dead", attempts=40)
    async with transaction(engine) as conn:
        assert await store.redrive(conn, item, clock.now())
    assert await _hiccup(engine, clock, item) == (1, 2.0)


async def test_a_stream_of_records_that_goes_on_forgets_the_attempts_of_what_arrived(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    stream = "run:nightly"
    [item] = await put(engine, 1, id=item_of(stream), attempts=40, payload={"stream": stream})
    call = Call("POST", "/api/2.0/mlflow/runs/log-batch", {})
    record = Record("k1", stream, Kind.LOG, call, 0)
    async with transaction(engine) as conn:
        await add(conn, [record], clock.now())
        await conn.execute(update(tables.outbox).values(state="delivered"))
        await wake_again(conn, item, stream, clock.now())
    assert (await row(engine, item))["state"] == "pending"
    assert await _hiccup(engine, clock, item) == (1, 2.0)


async def test_an_attempt_that_brought_a_part_begins_a_new_row_of_attempts(engine: AsyncEngine) -> None:
    clock = ManualClock(NOON + timedelta(hours=1))
    [item] = await put(engine, 1, attempts=40)
    part = Retry("away", "no answer", progress=True)
    assert await _hiccup(engine, clock, item, part) == (1, 2.0)
