"""What a person may ask of a switch: pause, resume, forget. Each request is one transaction and is audited."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.deadman import store
from app.deadman.flips import Flips
from app.deadman.rules import State
from app.deadman.store import Record
from app.deadman.watch import Roster
from app.kit.db import with_retries
from app.kit.errors import Problem
from app.kit.links import page
from app.policy.core import Core
from app.tables import audit_log as audit


class SwitchRequests:
    """Every method raises Problem: 404 for an unknown switch, 409 when it is not in the state that the request needs."""

    def __init__(self, core: Core, flips: Flips) -> None:
        self._engine, self._clock = core.engine, core.clock
        self._policy = core.policies.current
        self._flips = flips

    async def pause(self, name: str, until: datetime | None, reason: str, caller: str) -> None:
        """Expect nothing until `until`, or until a person resumes it. A new pause replaces the old one.

        A pause whose end has passed already is lifted at the next step of the watch.
        """
        note = f"paused by {caller}" + (f": {reason}" if reason else "")

        async def pause(conn: AsyncConnection) -> Record:
            now, record = self._clock.now(), await self._locked(conn, name)
            detail = {"until": str(until or ""), "reason": reason}
            await audit.write(conn, now, caller, "pause", f"switch {name}", detail)
            await self._flips.pause(conn, record, until, note, now)
            return record

        self._flips.count(await with_retries(self._engine, pause))

    async def resume(self, name: str, caller: str) -> None:
        """End the pause. The period starts again."""

        async def resume(conn: AsyncConnection) -> Record:
            now, record = self._clock.now(), await self._locked(conn, name)
            if record.state != State.PAUSED:
                detail = f"Only a paused switch can be resumed; this one is {record.state}."
                raise Problem(409, "wrong_state", detail, page=page("switches", name), state=record.state)
            await audit.write(conn, now, caller, "resume", f"switch {name}", {})
            await self._flips.resume(conn, record, f"resumed by {caller}", now)
            return record

        self._flips.count(await with_retries(self._engine, resume))

    async def forget(self, name: str, caller: str) -> bool:
        """Forget what it has received. True: the policy names it, so it is new. False: it is gone until its value comes
        again."""
        roster = Roster(self._policy())

        async def forget(conn: AsyncConnection) -> Record:
            now, record = self._clock.now(), await self._locked(conn, name)
            await audit.write(conn, now, caller, "forget", f"switch {name}", {})
            await self._flips.forget(conn, record, f"forgotten by {caller}", now, begin_anew=roster.names(record))
            return record

        record = await with_retries(self._engine, forget)
        self._flips.count(record)
        return roster.names(record)

    async def _locked(self, conn: AsyncConnection, name: str) -> Record:
        record = await store.lock_one(conn, name)
        if record is None or record.state == store.FORGOTTEN:
            raise unknown(name)
        return record


def unknown(name: str) -> Problem:
    """The problem for a switch that does not exist."""
    return Problem(404, "not_found", f"There is no switch {name[:200]!r}.")
