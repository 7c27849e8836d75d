"""What a person asks of a switch: pause, resume, forget. Each in one transaction, each audited."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.deadman import store
from app.deadman.flips import Flips
from app.deadman.rules import State
from app.deadman.store import Record
from app.deadman.watch import Roster
from app.kit.db import transaction
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
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            record = await self._locked(conn, name)
            note = f"paused by {caller}" + (f": {reason}" if reason else "")
            await self._flips.pause(conn, record, until, note, now)
            await audit.write(
                conn, now, caller, "pause", f"switch {name}", {"until": str(until or ""), "reason": reason}
            )

    async def resume(self, name: str, caller: str) -> None:
        """It counts anew."""
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            record = await self._locked(conn, name)
            if record.state != State.PAUSED:
                detail = f"Only a paused switch can be resumed; this one is {record.state}."
                raise Problem(409, "wrong_state", detail, state=record.state)
            await self._flips.resume(conn, record, f"resumed by {caller}", now)
            await audit.write(conn, now, caller, "resume", f"switch {name}", {})

    async def forget(self, name: str, caller: str) -> bool:
        """What was heard of it is gone. True: the policy names it, and it begins anew; else with the next sign of it."""
        now = self._clock.now()
        async with transaction(self._engine) as conn:
            record = await self._locked(conn, name)
            named = name in Roster(self._policy()).named()
            await self._flips.forget(conn, record, f"forgotten by {caller}", now, begin_anew=named)
            await audit.write(conn, now, caller, "forget", f"switch {name}", {})
        return named

    async def _locked(self, conn: AsyncConnection, name: str) -> Record:
        record = await store.lock_one(conn, name)
        if record is None or record.state == store.FORGOTTEN:
            raise unknown(name)
        return record


def unknown(name: str) -> Problem:
    """There is no such switch."""
    return Problem(404, "not_found", f"There is no switch {name[:200]!r}.")
