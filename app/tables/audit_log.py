"""What a person or a script asked for, kept beside what came of it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app import tables


async def write(
    conn: AsyncConnection, ident: UUID, now: datetime, caller: str, action: str, subject: str, detail: dict[str, Any]
) -> None:
    """One line of the audit, in the transaction of what was asked for."""
    row = {"id": ident, "at": now, "caller": caller, "action": action, "subject": subject, "detail": detail}
    await conn.execute(tables.audit.insert().values(**row))
