"""The change of a registry, step by step. A crash at any step is completed or undone.

    journal row (state open)  ->  read the holder of the alias  ->  write the tags  ->  read the holder again
        ->  row: moving  ->  move the alias  ->  read everything back  ->  row: promoted

Until the row says `moving` the alias has not moved, so a later worker undoes the tags. From then on the alias may have
moved, so a later worker moves it again, which does no harm, and completes the tags. A worker stops when its lease has run
out or a newer fence is in the row. Registries compare nothing when they write: the worker reads before and after, and does
not overwrite a change that it finds. No transaction is open during a request to a registry.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.db import transaction, with_retries
from app.kit.errors import Ambiguous, Rejected, TargetError
from app.kit.loop import each_alone
from app.kit.times import iso
from app.policy.core import Core
from app.promotion import store
from app.promotion.incidents import PromotionIncidents
from app.promotion.model import Registry, Standing, Verdict, holds
from app.promotion.store import Promotion

log = logging.getLogger(__name__)

WITHIN: Final = 15.0  # seconds that one worker may take; a request that is under way then ends within 10 more
#: Longer than that: after the lease the worker has stopped, and none of its writes can still arrive.
LEASE: Final = timedelta(seconds=30)
SOON: Final = timedelta(seconds=5)  # until a change that stands still is tried again


_Step = Callable[..., Awaitable[Promotion]]


class Overtaken(Exception):
    """Somebody else moved the alias meanwhile; str() says which version holds it now."""


class Fenced(Exception):
    """A newer worker has this row."""


class Change:
    """Carries out the change of an open row, or repairs it. `registries` are the registries by name."""

    def __init__(self, core: Core, registries: Mapping[str, Registry], incidents: PromotionIncidents) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._policy = core.policies.current
        self._registries = registries
        self._incidents = incidents

    async def carry_out(self, row: Promotion) -> Promotion:
        """Do every step, within WITHIN seconds, and return the row as it then is. A failure with a clear answer is repaired
        at once. After any other failure the row stays open for the sweeper."""
        return await self._work(row, self._forward)

    async def repair(self, row: Promotion) -> Promotion:
        """Complete or undo a change that its worker left unfinished."""
        return await self._work(row, self._mend)

    async def _work(self, row: Promotion, step: _Step) -> Promotion:
        try:
            async with asyncio.timeout(WITHIN):
                try:
                    return await step(row)
                except TargetError as error:
                    log.warning("a promotion met an error", extra={"promotion": str(row.id), "detail": error.detail})
                    row = await self._current(row)
                    if isinstance(error, Ambiguous) or step == self._mend:
                        raise
                    return await self._mend(row, error.detail)
        except TargetError as error:
            # A write without a clear answer may still take effect. Until it no longer can, nobody works on the row.
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
            await registry.move(row.model, row.alias, row.target, row.previous)
            await self._expect(registry, row, row.target)
            return await self._complete(registry, row)
        except Overtaken as change:
            return await self._undo(registry, _overtaken(row, str(change)), "lost", str(change))

    async def _mend(self, row: Promotion, why: str = "its worker was lost") -> Promotion:
        registry = self._registries[row.registry]
        if row.state == "open":
            return await self._undo(
                registry, row, "undone", f"{why}; the alias was not touched, and the tags are undone"
            )
        holder = await registry.holder(row.model, row.alias)
        try:
            if holder != row.target:
                await self._expect(registry, row, row.previous)
            # Also when `target` holds it already: in SageMaker the old version may hold it still.
            await registry.move(row.model, row.alias, row.target, row.previous)
            await self._expect(registry, row, row.target)
            await registry.tag(row.model, row.version, row.tags)
            return await self._complete(registry, row)
        except Overtaken as change:
            return await self._undo(registry, _overtaken(row, str(change)), "lost", str(change))
        except Rejected as error:
            if await registry.holder(row.model, row.alias) != row.previous:
                raise
            return await self._undo(registry, row, "undone", error.detail)

    async def _expect(self, registry: Registry, row: Promotion, holder: str | None) -> None:
        found = await registry.holder(row.model, row.alias)
        if found != holder:
            before = f"version {holder}" if holder else "no version"
            after = f"version {found}" if found else "no version"
            raise Overtaken(f"{before} held {row.alias}, and now {after} holds it: somebody else moved it")

    async def _complete(self, registry: Registry, row: Promotion) -> Promotion:
        """End the row, after the alias moved, when the tags read back are right too."""
        found = await registry.own_tags(row.model, row.version)
        if found is None or any(found.get(key) != value for key, value in row.tags.items()):
            raise Ambiguous("tags", "the tags read back differ from the tags written")
        state = "promoted" if row.kind == "promote" else "rolled_back"
        holder = f"version {row.target}" if row.target else "no version"
        return await self._end(row, state, f"{holder} holds {row.alias}")

    async def _undo(self, registry: Registry, row: Promotion, state: str, why: str) -> Promotion:
        """Restore each tag that still has the value that we set, and leave no second holder of the alias."""
        if row.state == "moving" and row.target is not None:
            await registry.withdraw(row.model, row.alias, row.target)
        found = await registry.own_tags(row.model, row.version) or {}
        back = {key: row.tags_before.get(key) for key, value in row.tags.items() if found.get(key) == value}
        if back and found:
            await registry.tag(row.model, row.version, {k: v for k, v in back.items() if found.get(k) != v})
        return await self._end(row, state, why)

    async def _end(self, row: Promotion, state: str, detail: str) -> Promotion:
        now = self._clock.now()
        ended: dict[str, Any] = {"state": state, "detail": detail[:1000], "ended_at": now, "lease_until": None}
        ended |= {"verdicts": row.verdicts}
        if state == "promoted":
            ended |= self._probation(row, now)
        settled = replace(row, **ended)

        async def end(conn: AsyncConnection) -> None:
            if not await store.advance(conn, row, **ended):
                raise Fenced
            await self._incidents.open_or_resolve(conn, settled, now)

        await with_retries(self._engine, end)
        self._metrics.promotions.labels(state).inc()
        log.info("a promotion ended", extra={"promotion": str(row.id), "state": state, "detail": detail})
        return settled

    def _probation(self, row: Promotion, now: datetime) -> dict[str, Any]:
        """The probation of a version begins when its promotion ends, if the policy has one."""
        terms = self._policy().probation(row.registry, row.model, row.alias)
        if terms is None:
            return {}
        detail = f"no alert has spoken against version {row.version}"
        shown = {"state": Standing.WATCHING, "until": iso(now + terms.for_), "detail": detail}
        return {"probation": shown, "probation_at": now}

    async def _advance(self, row: Promotion, **values: Any) -> Promotion:
        if not await with_retries(self._engine, lambda conn: store.advance(conn, row, **values)):
            raise Fenced
        return replace(row, **values)

    async def _leave(self, row: Promotion, why: str, wait: timedelta) -> Promotion:
        """Leave the row open. After `wait` the sweeper takes it."""
        detail = f"not settled yet: {why}"[:1000]
        values = {"detail": detail, "lease_until": self._clock.now() + wait}
        await with_retries(self._engine, lambda conn: store.advance(conn, row, **values))
        return await self._current(row)

    async def _current(self, row: Promotion) -> Promotion:
        async with self._engine.connect() as conn:
            found = await store.get(conn, row.id)
        return replace(found, fence=row.fence) if found else row


def _overtaken(row: Promotion, detail: str) -> Promotion:
    """A rollback keeps what stopped it as a verdict."""
    if row.kind != "rollback":
        return row
    late = Verdict(holds(row.alias), passed=False, detail=detail, final=True)
    return replace(row, verdicts=[asdict(late), *(each for each in row.verdicts if each["rule"] != late.rule)])


class Sweeper:
    """Repairs what any replica left unfinished: one row a step."""

    def __init__(self, core: Core, change: Change) -> None:
        self._engine, self._clock, self._metrics = core.engine, core.clock, core.metrics
        self._change = change

    async def step(self) -> bool:
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            row = await store.take(conn, now, now + LEASE)
        if row is None:
            return False
        # Its lease puts off a row that fails, so that the next step takes another one.
        describe = {"promotion": str(row.id), "model": row.model}
        repair, problem = self._change.repair, "a promotion cannot be repaired"
        failed = await each_alone([row], repair, lambda _row: describe, problem)
        self._metrics.items_failed.labels("sweeper").inc(len(failed))
        return True
