"""The change of a registry, step by step, so that a crash at any of them is completed or undone.

    journal row (state open)  ->  who holds the mark?  ->  tags  ->  who holds it still?
        ->  row: moving  ->  the mark  ->  read back  ->  row: promoted

Until the row says `moving` the mark is where it was, so that whoever comes later undoes the tags. From then on the mark may
have moved, so whoever comes later moves it again, which does no harm, and completes the tags. Nobody works on a row whose
fence is newer than his, nor after his lease. Registries compare nothing when they write: a change by somebody else is
found by reading before and after, and is never written over knowingly. No transaction is open while a registry is asked.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.db import transaction, with_retries
from app.kit.errors import Ambiguous, Rejected, TargetError
from app.kit.loop import each_alone
from app.policy.core import Core
from app.promotion import store
from app.promotion.model import Registry
from app.promotion.store import Promotion
from app.promotion.telling import Telling

log = logging.getLogger(__name__)

WITHIN: Final = 15.0  # seconds that one worker takes for a change; a request under way then ends within 10 more
#: Longer: after it nobody works on the row, and no write of its can arrive any more.
LEASE: Final = timedelta(seconds=30)
SOON: Final = timedelta(seconds=5)  # until a change is tried again that stands still


_Step = Callable[..., Awaitable[Promotion]]


class Overtaken(Exception):
    """Somebody else moved the mark meanwhile; str() says what it is now."""


class Fenced(Exception):
    """Somebody newer works on this row."""


class Change:
    """Carries out the change that an open row intends, or repairs it. `registry` gives the registry of a name."""

    def __init__(self, core: Core, registries: Mapping[str, Registry], telling: Telling) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._registries = registries
        self._telling = telling

    async def carry_out(self, row: Promotion) -> Promotion:
        """Every step, within WITHIN seconds; the row as it stands then. What fails with a clear answer is repaired at once,
        else it stays open for the sweeper."""
        return await self._work(row, self._forward)

    async def repair(self, row: Promotion) -> Promotion:
        """Complete or undo a change that its worker left behind."""
        return await self._work(row, self._mend)

    async def _work(self, row: Promotion, how: _Step) -> Promotion:
        try:
            async with asyncio.timeout(WITHIN):
                try:
                    return await how(row)
                except TargetError as error:
                    log.warning("a promotion stumbled", extra={"promotion": str(row.id), "detail": error.detail})
                    row = await self._current(row)
                    if isinstance(error, Ambiguous) or how == self._mend:
                        raise
                    return await self._mend(row, error.detail)
        except TargetError as error:
            # A write without a clear answer may take effect later, over whatever comes next: nothing does for so long.
            return await self._leave(row, error.detail, LEASE if isinstance(error, Ambiguous) else SOON)
        except TimeoutError:
            return await self._leave(row, "the registry was too slow", LEASE)
        except Fenced:
            return await self._current(row)

    async def _forward(self, row: Promotion, _why: str = "") -> Promotion:
        registry = self._registries[row.registry]
        try:
            await self._expect(registry, row, row.previous)
            await registry.tag(row.model, row.version, row.tags)
            await self._expect(registry, row, row.previous)
            row = await self._advance(row, state="moving")
            await registry.move(row.model, row.mark, row.target, row.previous)
            await self._expect(registry, row, row.target)
            return await self._complete(registry, row)
        except Overtaken as change:
            return await self._undo(registry, row, "lost", str(change))

    async def _mend(self, row: Promotion, why: str = "its worker was lost") -> Promotion:
        registry = self._registries[row.registry]
        if row.state == "open":
            return await self._undo(
                registry, row, "undone", f"{why}; the mark was not touched, and the tags are undone"
            )
        holder = await registry.holder(row.model, row.mark)
        try:
            if holder != row.target:
                await self._expect(registry, row, row.previous)
            # Also when it is there already: SageMaker's is not taken from the old one yet.
            await registry.move(row.model, row.mark, row.target, row.previous)
            await self._expect(registry, row, row.target)
            await registry.tag(row.model, row.version, row.tags)
            return await self._complete(registry, row)
        except Overtaken as change:
            return await self._undo(registry, row, "lost", str(change))
        except Rejected as error:
            if await registry.holder(row.model, row.mark) != row.previous:
                raise
            return await self._undo(registry, row, "undone", error.detail)

    async def _expect(self, registry: Registry, row: Promotion, holder: str | None) -> None:
        found = await registry.holder(row.model, row.mark)
        if found != holder:
            wanted = f"version {holder}" if holder else "nobody"
            seen = f"version {found}" if found else "nobody"
            raise Overtaken(f"{row.mark} was with {wanted}, and is now with {seen}: somebody else moved it")

    async def _complete(self, registry: Registry, row: Promotion) -> Promotion:
        """The mark is where it should be; when the tags are as well, this is done."""
        found = await registry.own_tags(row.model, row.version)
        if found is None or any(found.get(key) != value for key, value in row.tags.items()):
            raise Ambiguous("tags", "the tags read back are not those that were written")
        state = "promoted" if row.kind == "promote" else "rolled_back"
        holder = f"version {row.target}" if row.target else "nobody"
        return await self._end(row, state, f"{row.mark} is with {holder}")

    async def _undo(self, registry: Registry, row: Promotion, state: str, why: str) -> Promotion:
        """Put back what the tags were, where they still are as we set them, and leave no second mark behind."""
        if row.state == "moving" and row.target is not None:
            await registry.withdraw(row.model, row.mark, row.target)
        found = await registry.own_tags(row.model, row.version) or {}
        back = {key: row.tags_before.get(key) for key, value in row.tags.items() if found.get(key) == value}
        if back and found:
            await registry.tag(row.model, row.version, {k: v for k, v in back.items() if found.get(k) != v})
        return await self._end(row, state, why)

    async def _end(self, row: Promotion, state: str, detail: str) -> Promotion:
        now = self._clock.now()
        ended: dict[str, Any] = {"state": state, "detail": detail[:1000], "ended_at": now, "lease_until": None}
        settled = replace(row, **ended)

        async def end(conn: AsyncConnection) -> None:
            if not await store.advance(conn, row, **ended):
                raise Fenced
            await self._telling.ended(conn, settled, now)

        await with_retries(self._engine, end)
        self._metrics.promotions.labels(state).inc()
        log.info("a promotion ended", extra={"promotion": str(row.id), "state": state, "detail": detail})
        return settled

    async def _advance(self, row: Promotion, **values: Any) -> Promotion:
        if not await with_retries(self._engine, lambda conn: store.advance(conn, row, **values)):
            raise Fenced
        return replace(row, **values)

    async def _leave(self, row: Promotion, why: str, wait: timedelta) -> Promotion:
        """It stays open, and after `wait` the sweeper takes it."""
        detail = f"not settled yet: {why}"[:1000]
        values = {"detail": detail, "lease_until": self._clock.now() + wait}
        await with_retries(self._engine, lambda conn: store.advance(conn, row, **values))
        return await self._current(row)

    async def _current(self, row: Promotion) -> Promotion:
        async with self._engine.connect() as conn:
            found = await store.get(conn, row.id)
        return replace(found, fence=row.fence) if found else row


class Sweeper:
    """Repairs what a worker left behind. One row a step, of any replica."""

    def __init__(self, core: Core, change: Change) -> None:
        self._engine, self._clock = core.engine, core.clock
        self._change = change

    async def step(self) -> bool:
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            row = await store.take(conn, now, now + LEASE)
        if row is None:
            return False
        # Its lease puts off a row that fails, so that the next step takes another one.
        describe = {"promotion": str(row.id), "model": row.model}
        await each_alone([row], self._change.repair, lambda _row: describe, "a promotion cannot be repaired")
        return True
