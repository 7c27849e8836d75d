"""The audit: the requests of people and scripts, each kept with its effect. Only this file writes and deletes its rows."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app import tables
from app.kit.prune import Prune, by_id

# Ids grow with time, so the oldest rows come first.
_PAGE = text("SELECT id, at FROM audit WHERE id > :id ORDER BY id LIMIT :most")
_LOCK = text("SELECT id FROM audit WHERE id = ANY(CAST(:ids AS uuid[])) AND at < :before FOR UPDATE SKIP LOCKED")
PRUNE: Final = Prune("audit", _PAGE, _LOCK, (by_id("audit"),))


async def write(
    conn: AsyncConnection, now: datetime, caller: str, action: str, subject: str, detail: dict[str, Any]
) -> None:
    """Keep one request in the audit. Call it in the transaction of the request: both are kept, or neither is."""
    row = {"id": uuid7(), "at": now, "caller": caller, "action": action, "subject": subject, "detail": detail}
    await conn.execute(tables.audit.insert(), row)
