"""Every policy that was in force: its text without secrets, from when until when, and on which replica.

Each process keeps its own policy, at its start and when it takes another one. Processes of one host share a row.
"""

import asyncio
import difflib
import logging
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import RowMapping, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app import tables
from app.kit.db import OF_THE_DATABASE, transaction
from app.kit.log import Seldom
from app.kit.pages import Found, read_page
from app.kit.prune import EPOCH, Prune, by_id
from app.policy.core import Core
from app.policy.schema import Policy

log = logging.getLogger(__name__)

#: How often a process writes that its policy is still in force.
EVERY: Final = timedelta(hours=1)
_DIFF_LINES: Final = 5_000  # of a policy that is compared line by line: longer ones take long
_DIFF_LENGTH: Final = 50_000  # characters of a difference that are kept

_in_force, _policies = tables.in_force, tables.policies

# The update locks the row: a text that is deleted in this moment is written anew.
_KEEP_TEXT = text("""
    INSERT INTO policies (hash, text, first_at) VALUES (:hash, :text, :at)
    ON CONFLICT (hash) DO UPDATE SET first_at = least(policies.first_at, :at)
""")
_LOCK = text("LOCK TABLE in_force IN SHARE ROW EXCLUSIVE MODE")
_BEFORE = text("""
    SELECT f.id, f.hash, p.text FROM in_force f JOIN policies p ON p.hash = f.hash
    WHERE f.replica = :replica ORDER BY f.id DESC LIMIT 1
""")
_PROLONG = text("UPDATE in_force SET until = greatest(until, :until) WHERE id = :id")

_NEWEST = text("SELECT hash, since FROM in_force WHERE until >= :lately ORDER BY since DESC, id DESC LIMIT 1")

_PAGE = text("SELECT id FROM in_force WHERE id > :id ORDER BY id LIMIT :most")
_OVER = text("""
    SELECT id FROM in_force WHERE id = ANY(CAST(:ids AS uuid[])) AND until < :before FOR UPDATE SKIP LOCKED
""")
_TEXTS = text("""
    SELECT hash AS id, first_at AS at FROM policies WHERE (first_at, hash) > (:at, :id) ORDER BY first_at, hash LIMIT :most
""")
_UNUSED = text("""
    SELECT hash AS id FROM policies p WHERE hash = ANY(CAST(:ids AS text[])) AND first_at < :before
      AND NOT EXISTS (SELECT FROM in_force f WHERE f.hash = p.hash) FOR UPDATE SKIP LOCKED
""")
#: A policy is kept as long as it was in force within the retention.
PRUNES: Final = (
    Prune("policies in force", _PAGE, _OVER, (by_id("in_force"),), start={"id": UUID(int=0)}),
    Prune("policies", _TEXTS, _UNUSED, (by_id("policies", "hash", "text"),), start={"at": EPOCH, "id": ""}),
)


class InForce:
    """`keep()` writes the policy in force of this process, once for each policy, and now and then that it still is."""

    def __init__(self, core: Core, replica: str) -> None:
        self._core = core
        self._replica = replica
        self._kept: str | None = None  # the hash of the policy that was written
        self._next = EPOCH
        self._may_log = Seldom(60)

    async def keep(self) -> None:
        """Never raises the errors of the database: what could not be written is written by the next call."""
        policy, now = self._core.policy, self._core.clock.now()
        if policy.hash == self._kept and now < self._next:
            return
        try:
            await self._write(policy, self._core.policies.loaded_at, now)
        except OF_THE_DATABASE as error:
            if self._may_log():
                log.warning("the policy in force could not be kept", extra={"error": type(error).__name__})
            return
        self._kept, self._next = policy.hash, now + EVERY

    async def _write(self, policy: Policy, since: datetime, now: datetime) -> None:
        async with self._core.engine.connect() as conn:
            before = await self._before(conn)
        same = before is not None and before["hash"] == policy.hash
        # A thread, because a difference of long texts takes long.
        diff = "" if before is None or same else await asyncio.to_thread(difference, before["text"], policy.text)
        async with transaction(self._core.engine) as conn:
            await conn.execute(_LOCK)
            newest = await self._before(conn)
            if newest is not None and newest["hash"] == policy.hash:
                await conn.execute(_PROLONG, {"id": newest["id"], "until": now})
                return
            if newest is not None:
                await conn.execute(_PROLONG, {"id": newest["id"], "until": since})
            await conn.execute(_KEEP_TEXT, {"hash": policy.hash, "text": policy.text, "at": since})
            row = {"id": uuid7(), "hash": policy.hash, "replica": self._replica, "since": since, "until": now}
            await conn.execute(_in_force.insert(), row | {"diff": diff})

    async def _before(self, conn: AsyncConnection) -> RowMapping | None:
        return (await conn.execute(_BEFORE, {"replica": self._replica})).mappings().one_or_none()


async def is_behind(conn: AsyncConnection, core: Core, now: datetime) -> bool:
    """Whether another replica has taken another policy later than this process took its own. Then what is missing here may
    only be new: this process must not conclude from it that somebody took it out."""
    newest = (await conn.execute(_NEWEST, {"lately": now - 2 * EVERY})).one_or_none()
    return newest is not None and newest.hash != core.policy.hash and newest.since > core.policies.loaded_at


def difference(before: str, after: str) -> str:
    """What differs between two policies, as `diff -u` writes it. Of very long ones it says only that they differ."""
    old, new = before.splitlines(), after.splitlines()
    if max(len(old), len(new)) > _DIFF_LINES:
        return f"the policies are too long to compare: {len(old)} lines before, {len(new)} lines now"
    lines = "\n".join(difflib.unified_diff(old, new, "before", "now", lineterm="", n=2))
    return lines if len(lines) <= _DIFF_LENGTH else f"{lines[:_DIFF_LENGTH]}\n... (cut)"


async def list_in_force(
    conn: AsyncConnection, limit: int, cursor: UUID | None
) -> tuple[list[dict[str, Any]], UUID | None]:
    """The policies that were in force, the newest first; and the next page's cursor."""
    statement = select(_in_force, _policies.c.text).join(_policies, _policies.c.hash == _in_force.c.hash)
    if cursor is not None:
        statement = statement.where(_in_force.c.id < cursor)
    rows, more = await read_page(conn, statement.order_by(_in_force.c.id.desc()), limit, "id")
    return [_shown(row) for row in rows], rows[-1]["id"] if more else None


def _shown(row: Found) -> dict[str, Any]:
    names = ("id", "hash", "replica")
    return {name: row[name] for name in names} | {
        "from": row["since"],
        "until": row["until"],
        "diff": row["diff"],
        "text": row["text"],
    }
