"""Held groups over an outage of our own: nobody could tell us that an alert ended, so the calm is waited for again."""

import secrets
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: A longer silence of the watch is an outage of ours.
GAP: Final = timedelta(seconds=60)

# The start of the hold moves, so that every place that computes its end from it agrees; the version does too, so that
# what memory holds of the group is not believed. Rows are locked in the order of every flow.
_MOVE = text("""
    UPDATE groups SET held_since = held_since + (:now - greatest(held_since, :since)), wake_at = :now,
        version = version + 1, nonce = :nonce
    WHERE key IN (
        SELECT key FROM groups WHERE key IN (SELECT group_key FROM triggers WHERE state = 'held')
          AND held_since < :now ORDER BY key FOR UPDATE
    )
""")


async def move(conn: AsyncConnection, since: datetime, now: datetime) -> int:
    """Every hold ends later by the time from `since`, when we stopped watching, or from its own beginning, until `now`. It
    is looked at once now, which finds out when that is. How many there were."""
    parameters = {"since": since, "now": now, "nonce": secrets.token_hex(4)}
    return (await conn.execute(_MOVE, parameters)).rowcount
