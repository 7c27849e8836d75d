"""Pauses: a person mutes a route, or every route, at once. Every function takes the transaction; `Pauses` opens one.

After the answer to a pause nothing fires on any replica. Every transaction that may fire reads the pauses under a shared
lock, and a pause takes that lock alone. So a pause waits for the decisions under way (milliseconds); later ones see it.
"""

from datetime import datetime

from sqlalchemy import delete, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables
from app.decide.rules import EVERY_ROUTE, Pause
from app.kit.db import with_retries
from app.kit.errors import Problem
from app.kit.links import page
from app.policy.core import Core
from app.tables import audit_log as audit

_pauses = tables.pauses
_LOCK = 0x7061757365  # the number of this application lock; no other lock may use it
_SHARED = text(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")
_ALONE = text(f"SELECT pg_advisory_xact_lock({_LOCK})")


async def in_force(conn: AsyncConnection) -> dict[str, Pause]:
    """The pauses by route, for a transaction that may fire: no pause begins before the transaction ends. Call it before
    any lock on a route, a group or an alert."""
    await conn.execute(_SHARED)
    return await read(conn)


async def read(conn: AsyncConnection) -> dict[str, Pause]:
    """The pauses by route, without a lock: to show them."""
    rows = (await conn.execute(select(_pauses))).mappings()
    return {row["route"]: Pause(**row) for row in rows}


class Pauses:
    """Pause a route and lift the pause. Both raise Problem 404 for a route that the policy does not have."""

    def __init__(self, core: Core) -> None:
        self._engine, self._clock = core.engine, core.clock
        self._policy = core.policies.current
        self._bells = core.bells

    async def pause(self, route: str, until: datetime | None, reason: str, caller: str) -> Pause:
        """Mute a route until `until`, or until the pause is lifted. It replaces an earlier pause of the route. When this
        returns, the route fires nothing more. Raises Problem 422 when `until` is past."""
        self._check(route)
        now = self._clock.now()
        if until is not None and until <= now:
            raise Problem(422, "invalid", "A pause must end in the future: `until` is past.")
        pause = Pause(route, until, reason, caller, now)
        values = {"until": until, "reason": reason, "by": caller, "at": now}

        async def write(conn: AsyncConnection) -> None:
            await conn.execute(_ALONE)
            await conn.execute(delete(_pauses).where(_pauses.c.until <= now))
            statement = insert(_pauses).values(route=route, **values)
            await conn.execute(statement.on_conflict_do_update(index_elements=["route"], set_=values))
            details = {"until": until.isoformat() if until else None, "reason": reason}
            await audit.write(conn, now, caller, "pause", f"route {route}", details)

        await with_retries(self._engine, write)
        self._bells.waker.ring()
        self._bells.confirmer.ring()
        return pause

    async def lift(self, route: str, caller: str) -> Pause:
        """End the pause of exactly this route now. Its alerts that still fire are decided again. Raises Problem 404 when it
        has no pause."""
        self._check(route)
        now = self._clock.now()

        async def write(conn: AsyncConnection) -> Pause | None:
            await conn.execute(_ALONE)
            # A pause that is over stays. It is no pause to lift, and a change of this table has every group decided again.
            in_force = or_(_pauses.c.until.is_(None), _pauses.c.until > now)
            statement = delete(_pauses).where(_pauses.c.route == route, in_force).returning(*_pauses.c)
            row = (await conn.execute(statement)).mappings().one_or_none()
            if row is None:
                return None
            lifted = Pause(**row)
            await audit.write(conn, now, caller, "resume", f"route {route}", {"reason": lifted.reason})
            return lifted

        lifted = await with_retries(self._engine, write)
        if lifted is None:
            raise Problem(404, "not_found", f"Nobody has paused {_named(route)}.", page=page("policy"))
        self._bells.waker.ring()
        self._bells.confirmer.ring()
        return lifted

    def _check(self, route: str) -> None:
        if route != EVERY_ROUTE and self._policy().route(route) is None:
            raise Problem(404, "not_found", f"The policy has no route named {route!r}.")


def _named(route: str) -> str:
    return "every route" if route == EVERY_ROUTE else f"the route {route}"
