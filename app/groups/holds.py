"""Held groups after an outage of the gateway. No end of an alert could arrive meanwhile, so each hold is made longer.

The wakes keep the time until which they ran, in a row of their own. They need nothing of the dead man's watch.
"""

import logging
import secrets
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

log = logging.getLogger(__name__)

#: A longer silence was an outage of the gateway.
GAP: Final = timedelta(seconds=60)
#: How often a process writes that it ran.
EVERY: Final = timedelta(seconds=5)

_ROW: Final = 2  # of the table `watch`; the dead man's watch has the first row
# An older version of the gateway knew the watch's row alone: it ran as long as that says.
_BEGIN = text(f"""
    INSERT INTO watch (id, watched_until)
    SELECT {_ROW}, least(:now, (SELECT watched_until FROM watch WHERE id = 1)) ON CONFLICT (id) DO NOTHING
""")
_READ = text(f"SELECT watched_until FROM watch WHERE id = {_ROW} FOR UPDATE SKIP LOCKED")
_KEEP = text(f"UPDATE watch SET watched_until = greatest(watched_until, :now) WHERE id = {_ROW}")

#: A condition in SQL: the holds have been made longer since the newest outage. `:watched` is now - GAP.
KEPT: Final = f"NOT EXISTS (SELECT FROM watch WHERE id = {_ROW} AND watched_until < :watched)"

# The start of the hold moves, so that every place that computes its end from it agrees. The version changes too, so that
# memory's copy of the group counts as stale. Rows are locked in the order that every flow uses.
_MOVE = text("""
    UPDATE groups SET held_since = held_since + (:now - greatest(held_since, :since)), wake_at = :now,
        version = version + 1, nonce = :nonce
    WHERE key IN (
        SELECT key FROM groups WHERE key IN (SELECT group_key FROM triggers WHERE state = 'held')
          AND held_since < :now ORDER BY key FOR UPDATE
    )
""")


async def keep(conn: AsyncConnection, now: datetime) -> None:
    """Note that the gateway runs. After an outage of it, make every hold longer by that time first."""
    await conn.execute(_BEGIN, {"now": now})
    until: datetime | None = (await conn.execute(_READ)).scalar_one_or_none()
    if until is None:  # Another replica is at it.
        return
    if now - until > GAP:
        moved = await move(conn, until, now)
        log.warning(
            "holds end later by an outage", extra={"seconds": (now - until).total_seconds(), "holds_moved": moved}
        )
    await conn.execute(_KEEP, {"now": now})


async def move(conn: AsyncConnection, since: datetime, now: datetime) -> int:
    """Make every hold longer by the outage: from `since`, when it began, or from the hold's own beginning, until
    `now`. Each held group is due now, so that its next wake is computed anew. Returns the number of groups."""
    parameters = {"since": since, "now": now, "nonce": secrets.token_hex(4)}
    return (await conn.execute(_MOVE, parameters)).rowcount
