"""The outbox against a model of it: any sequence of claims, answers, crashes, expiries and redrives on a real Postgres."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from sqlalchemy import delete

from app import tables
from app.kit.db import open_engine, transaction
from app.kit.outbox import store
from app.kit.outbox.model import Item
from tests.fakes.clock import ManualClock
from tests.integration.outbox_items import NOON, TARGET, put, rows
from tests.sizes import size

Value = TypeVar("Value")
LEASE = 60.0
CAP = 3


class OutboxMachine(RuleBasedStateMachine):
    """`holders`: item -> the claim that the model says is in force, and until when. `states`, `slots` by item; `lanes`: the
    items of each in their order."""

    claims = Bundle("claims")

    def __init__(self, database: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.engine = open_engine(database, pool_size=2)
        self.clock = ManualClock(NOON)
        self.holders: dict[UUID, tuple[UUID, Any]] = {}
        self.states: dict[UUID, str] = {}
        self.slots: set[UUID] = set()
        self.lanes: dict[str | None, list[UUID]] = {}
        self.arrivals: set[UUID] = set()

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        async def clear() -> None:
            async with transaction(self.engine) as conn:
                await conn.execute(delete(tables.outbox))
            await self.engine.dispose()

        self.run(clear())

    @rule(number=st.integers(1, 4), lane=st.sampled_from([None, "a", "b"]))
    def put(self, number: int, lane: str | None) -> None:
        for item in self.run(put(self.engine, number, at=self.clock.now(), lane=lane)):
            self.states[item] = "pending"
            self.lanes.setdefault(lane, []).append(item)

    @rule(seconds=st.sampled_from([1, 10, LEASE - 1, LEASE, 500]))
    def time_passes(self, seconds: float) -> None:
        self.clock.pass_by(timedelta(seconds=seconds))

    @rule(target=claims, most=st.integers(1, 5))
    def claim(self, most: int) -> Any:
        async def work() -> list[Item]:
            async with transaction(self.engine) as conn:
                return await store.claim(conn, TARGET, self.clock.now(), most=most, lease=LEASE, cap=CAP)

        items = self.run(work())
        assert len(items) <= most
        for item in items:
            assert self.states[item.id] == "pending"
            lane = next((name for name, members in self.lanes.items() if item.id in members), None)
            before = self.lanes[lane][: self.lanes[lane].index(item.id)] if lane else []
            assert "pending" not in [self.states[each] for each in before], "it overtook one of its lane"
            held = self.holders.get(item.id)
            assert held is None or held[1] <= self.clock.now(), "the lease of another claim was still good"
            self.holders[item.id] = (item.claim, self.clock.now() + timedelta(seconds=LEASE))
            self.slots.add(item.id)
        return multiple(*items)

    @rule(item=claims, outcome=st.sampled_from(["delivered", "dead", "pending", "ambiguous"]))
    def settle(self, item: Item, outcome: str) -> None:
        state = "pending" if outcome == "ambiguous" else outcome
        slot = outcome in ("delivered", "ambiguous")

        async def work() -> bool:
            async with transaction(self.engine) as conn:
                return await store.settle(conn, item, state=state, slot=slot, available_at=self.clock.now())

        held = self.holders.get(item.id)
        in_force = held is not None and held[0] == item.claim
        assert self.run(work()) == in_force, "a claim settles if and only if nobody claimed after it"
        if not in_force:
            return
        del self.holders[item.id]
        self.states[item.id] = state
        if outcome == "delivered":
            assert item.id not in self.arrivals, "delivered twice"
            self.arrivals.add(item.id)
        if not slot:
            self.slots.discard(item.id)

    @rule(item=claims)
    def its_run_is_over(self, item: Item) -> None:
        if self.states[item.id] != "delivered":
            return

        async def work() -> None:
            async with transaction(self.engine) as conn:
                await store.release_slot(conn, item.id)

        self.run(work())
        self.slots.discard(item.id)

    @rule(item=claims)
    def redrive(self, item: Item) -> None:
        async def work() -> bool:
            async with transaction(self.engine) as conn:
                return await store.redrive(conn, item.id, self.clock.now())

        was_dead = self.states[item.id] == "dead"
        assert self.run(work()) == was_dead
        if was_dead:
            self.states[item.id] = "pending"

    @invariant()
    def the_cap_holds(self) -> None:
        assert len(self.slots) <= CAP

    @invariant()
    def the_table_is_as_the_model_says(self) -> None:
        found = self.run(rows(self.engine))
        assert {r["id"]: r["state"] for r in found} == self.states
        assert {r["id"] for r in found if r["slot"]} == self.slots
        assert {r["id"]: r["claim"] for r in found if r["claim"]} == {i: c for i, (c, _) in self.holders.items()}


@pytest.mark.slow
def test_no_sequence_of_claims_and_crashes_shares_or_loses_an_item(database: str) -> None:
    examples, steps = size(15, 60), size(25, 40)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        run_state_machine_as_test(
            lambda: OutboxMachine(database, loop),  # type: ignore[arg-type] # it is called, and may be any factory
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
