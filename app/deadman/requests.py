"""What a person asks of a switch: pause, resume, forget. Each in one transaction, each audited."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.deadman import store
from app.deadman.flips import Flips
from app.deadman.rules import State
from app.deadman.store import Record
from app.deadman.watch import Roster
from app.kit.db import with_retries
from app.kit.errors import Problem
from app.policy.core import Core
from app.tables import audit_log as audit


class SwitchRequests:
    """Every method raises Problem: 404 for an unknown switch, 409 when it is not in the state that the request needs."""

    def __init__(self, core: Core, flips: Flips) -> None:
        self._engine, self._clock = core.engine, core.clock
        self._policy = core.policies.current
        self._flips = flips

    async def pause(self, name: str, until: datetime | None, reason: str, caller: str) -> None:
        """Await nothing, until then or until it is resumed. A new pause takes the place of the old one; one that is over
        already ends with the next look of the watch."""
        note = f"paused by {caller}" + (f": {reason}" if reason else "")

        async def pause(conn: AsyncConnection) -> Record:
            now, record = self._clock.now(), await self._locked(conn, name)
            detail = {"until": str(until or ""), "reason": reason}
            await audit.write(conn, now, caller, "pause", f"switch {name}", detail)
            await self._flips.pause(conn, record, until, note, now)
            return record

        self._flips.count(await with_retries(self._engine, pause))

    async def resume(self, name: str, caller: str) -> None:
        """It counts anew."""

        async def resume(conn: AsyncConnection) -> Record:
            now, record = self._clock.now(), await self._locked(conn, name)
            if record.state != State.PAUSED:
                detail = f"Only a paused switch can be resumed; this one is {record.state}."
                raise Problem(409, "wrong_state", detail, state=record.state)
            await audit.write(conn, now, caller, "resume", f"switch {name}", {})
            await self._flips.resume(conn, record, f"resumed by {caller}", now)
            return record

        self._flips.count(await with_retries(self._engine, resume))

    async def forget(self, name: str, caller: str) -> bool:
        """Drop what was heard of it. True: the policy names it, and it begins anew; else with the next sign of it."""
        named = name in Roster(self._policy()).named()

        async def forget(conn: AsyncConnection) -> Record:
            now, record = self._clock.now(), await self._locked(conn, name)
            await audit.write(conn, now, caller, "forget", f"switch {name}", {})
            await self._flips.forget(conn, record, f"forgotten by {caller}", now, begin_anew=named)
            return record

        self._flips.count(await with_retries(self._engine, forget))
        return named

    async def _locked(self, conn: AsyncConnection, name: str) -> Record:
        record = await store.lock_one(conn, name)
        if record is None or record.state == store.FORGOTTEN:
            raise unknown(name)
        return record


def unknown(name: str) -> Problem:
    """There is no such switch."""
    return Problem(404, "not_found", f"There is no switch {name[:200]!r}.")
