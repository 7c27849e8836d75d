"""Outbox items for tests, and a destination whose outcomes a test chooses."""

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from app import tables
from app.kit.db import transaction
from app.kit.metrics import Metrics
from app.kit.outbox.model import Delivered, Item, Outcome, Retry
from app.kit.outbox.relay import Destination, Limits, Relay
from tests.fakes.clock import ManualClock

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TARGET = "airflow:default"
NO_ANSWER = Retry("unreachable", "connection refused", answered=False)

Behave = Callable[[Item], Outcome]


async def put(engine: AsyncEngine, number: int = 1, *, at: datetime = NOON, **values: Any) -> list[UUID]:
    """`number` pending items, a second apart from `at` on; their ids, the oldest first."""
    rows = [
        {
            "id": uuid7(),
            "kind": "test",
            "target": TARGET,
            "payload": {"n": n},
            "state": "pending",
            "detail": "",
            "created_at": at + timedelta(seconds=n),
            "available_at": at,
            "slot": False,
            "ambiguous": False,
            "attempts": 0,
            "answered_seconds": 0,
            **values,
        }
        for n in range(number)
    ]
    async with transaction(engine) as conn:
        await conn.execute(tables.outbox.insert(), rows)
    return [row["id"] for row in rows]


async def rows(engine: AsyncEngine, table: Any = tables.outbox) -> list[dict[str, Any]]:
    """Every row of a table, the oldest first."""
    order = tables.outbox.c.created_at if table is tables.outbox else table.c.id
    async with engine.connect() as conn:
        return [dict(row) for row in (await conn.execute(select(table).order_by(order))).mappings()]


async def row(engine: AsyncEngine, item: UUID) -> dict[str, Any]:
    """One item."""
    return next(r for r in await rows(engine) if r["id"] == item)


class Target(Destination):
    """`behave(item)` makes the outcome of an attempt, `meanwhile()` happens during it. The lists keep the items that were
    asked for, and the outcomes that were settled and committed."""

    kind = "test"

    def __init__(self, behave: Behave | None = None, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
        self._meanwhile = meanwhile
        self.behave: Behave = behave or (lambda _item: Delivered(None))
        self.asked: list[Item] = []
        self.settlements: list[tuple[UUID, Outcome]] = []
        self.commits: list[tuple[UUID, Outcome]] = []

    async def deliver(self, item: Item) -> Outcome:
        self.asked.append(item)
        if self._meanwhile is not None:
            await self._meanwhile()
        return self.behave(item)

    async def settled(self, conn: AsyncConnection, item: Item, outcome: Outcome, now: datetime) -> None:
        self.settlements.append((item.id, outcome))

    async def after(self, item: Item, outcome: Outcome) -> None:
        self.commits.append((item.id, outcome))

    def delivered(self) -> list[UUID]:
        return [item for item, outcome in self.settlements if isinstance(outcome, Delivered)]


def relay(engine: AsyncEngine, clock: ManualClock, target: Target, **limits: Any) -> Relay:
    """A relay with one destination. Limits: seconds; `cap` for every target."""
    cap: int | None = limits.pop("cap", None)
    chance: random.Random | None = limits.pop("chance", None)
    chosen: dict[str, Any] = {
        "deadline": 3600.0,
        "attempt": 30.0,
        "retry_max": 60.0,
        "parallel": 8,
        "turn": 1e6,
    } | limits
    made = Limits(**chosen, cap=lambda _target: cap)
    return Relay(engine, clock, [target], made, Metrics(), chance)


async def settle_all(relays: Sequence[Relay], most: int = 200) -> None:
    """Step until nothing is due at this moment."""
    for _ in range(most):
        if not any([await r.step() for r in relays]):
            return
    raise AssertionError("the relay never came to rest")


def missing(wanted: Iterable[UUID], found: Iterable[UUID]) -> list[UUID]:
    """The items of `wanted` that are not in `found`."""
    left = list(wanted)
    for item in found:
        with suppress(ValueError):
            left.remove(item)
    return left
