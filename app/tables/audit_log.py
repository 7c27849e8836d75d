"""The audit: what a person or a script asked for, kept beside its effect. Only this file writes its rows."""

from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app import tables


async def write(
    conn: AsyncConnection, now: datetime, caller: str, action: str, subject: str, detail: dict[str, Any]
) -> None:
    """Keep one request in the audit. Call it in the transaction of the request: both are kept, or neither is."""
    row = {"id": uuid7(), "at": now, "caller": caller, "action": action, "subject": subject, "detail": detail}
    await conn.execute(tables.audit.insert(), row)
