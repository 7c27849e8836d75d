"""Held groups after an outage of the gateway. No end of an alert could arrive meanwhile, so the hold is made longer."""

import secrets
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: When the watch is silent for longer, the gateway had an outage.
GAP: Final = timedelta(seconds=60)

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


async def move(conn: AsyncConnection, since: datetime, now: datetime) -> int:
    """Make every hold longer by the outage: from `since`, when the watch stopped, or from the hold's own beginning, until
    `now`. Each held group is due now, so that its next wake is computed anew. Returns the number of groups."""
    parameters = {"since": since, "now": now, "nonce": secrets.token_hex(4)}
    return (await conn.execute(_MOVE, parameters)).rowcount
