"""Postgres and Redis: what the gateway's promises need from them (docs/contract.md, README Limits)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.cli.doctor.finding import Finding, fail, good, warn
from app.kit.clock import SystemClock
from app.kit.db import database_now, is_pooled, open_engine, sqlstate
from app.kit.errors import GatewayError, UsageError, quotable
from app.kit.postgres.connection import UnusableDatabase
from app.kit.postgres.faults import FAULTS, explain, place
from app.kit.redis.client import open_redis
from app.tables import migrate

#: The gateway uses Postgres' time, so a wrong clock of this machine makes only the log hard to read.
SKEW: Final = timedelta(seconds=5)
PATIENCE: Final = 3.0  # seconds for Redis; the gateway itself waits much less

_FACTS: Final = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only,
       (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit,
       current_setting('synchronous_standby_names') AS standbys,
       current_setting('fsync') AS fsync
"""
_GROUPS: Final = "SELECT DISTINCT labels FROM groups WHERE route = :route LIMIT 200"


@dataclass(frozen=True, slots=True)
class Database:
    """What Postgres answered. `groups` has the labels of each route's groups so far."""

    findings: tuple[Finding, ...]
    groups: Mapping[str, list[dict[str, str]]]


async def examine_postgres(url: str, clock: SystemClock, routes: list[str], *, embedded: bool) -> Database:
    """Everything about Postgres; `clock` takes over its time. `embedded`: `serve` migrates it, and there is no failover."""
    where = "embedded" if embedded else place(url)
    try:
        engine = open_engine(url, pool_size=1)
    except UsageError as error:
        return Database((fail("postgres reachable", str(error), "Correct GATEWAY_DATABASE_URL."),), {})
    try:
        await clock.synchronise(lambda: database_now(engine))
        found, groups = await _look(engine, routes, embedded=embedded)
        findings = [good("postgres reachable", where), *found, judge_offset(clock.offset)]
        return Database(tuple(findings), groups)
    except UnusableDatabase as error:
        return Database((fail("postgres usable", error.cause, error.step),), {})
    except FAULTS as error:
        cause, step = explain(error, os.environ)
        return Database((fail("postgres reachable", f"{where}: {cause}", f"{step}."),), {})
    finally:
        await engine.dispose()


async def _look(
    engine: AsyncEngine, routes: list[str], *, embedded: bool
) -> tuple[list[Finding], dict[str, list[dict[str, str]]]]:
    async with engine.connect() as conn:
        facts = (await conn.execute(text(_FACTS))).mappings().one()
        findings = [judge_writes(facts), *judge_durability(facts, embedded=embedded)]
        if is_pooled(conn):
            findings.append(good("postgres pooler", "there is one, so settings go with each transaction"))
        current, head = await migrate.current_and_head(conn)
        newer = await migrate.is_newer(conn, current)
        groups = {}
        if current == head or newer:
            groups = {route: await _groups(conn, route) for route in routes}
            whose = " of a newer gateway; this version works with it until you replace it" if newer else ""
            findings.append(good("postgres migrated", f"at revision {current}{whose}"))
        elif embedded:
            findings.append(good("postgres migrated", "`serve` migrates the embedded database by itself"))
        else:
            cause = f"at revision {current}, not {head}" if current else "it has no tables of the gateway"
            findings.append(fail("postgres migrated", cause, "Run `trigger-gateway migrate`."))
    return findings, groups


async def _groups(conn: AsyncConnection, route: str) -> list[dict[str, str]]:
    return [dict(row[0]) for row in await conn.execute(text(_GROUPS), {"route": route})]


def judge_writes(facts: Mapping[Any, Any]) -> Finding:
    """Whether it accepts writes."""
    if not facts["read_only"]:
        return good("postgres writable", "it accepts writes")
    cause = "it is read-only: a standby, or default_transaction_read_only is on"
    step = "Set GATEWAY_DATABASE_URL to the primary, or to all hosts with target_session_attrs=read-write."
    return fail("postgres writable", cause, step)


def judge_durability(facts: Mapping[Any, Any], *, embedded: bool) -> list[Finding]:
    """Whether the data that it acknowledged outlives a crash and a failover."""
    check = "postgres durable"
    level, standbys = facts["synchronous_commit"], facts["standbys"]
    found = []
    if facts["fsync"] != "on":
        step = "Set `fsync = on` in postgresql.conf."
        found.append(fail(check, "fsync is off: a crash of the machine can lose everything", step))
    if level == "off":
        cause = "synchronous_commit is off for the database or the role; the gateway turns it on for itself alone"
        found.append(fail(check, cause, "Set `synchronous_commit = on` for the database and the gateway's role."))
    if found:
        return found
    if embedded:
        return [good(check, f"fsync on, synchronous_commit {level}; one server, without failover")]
    if not standbys or level == "local":
        cause = "no synchronous standby: a failover can lose alerts that were acknowledged, and fire again"
        step = "Set synchronous_standby_names if you use failover; without a standby do nothing."
        if level == "local":
            step = "Set `synchronous_commit = on`: with `local` Postgres does not wait for the standby."
        return [warn(check, cause, step)]
    return [good(check, f"synchronous_commit {level}, synchronous standbys {standbys}")]


def judge_offset(offset: timedelta) -> Finding:
    """`offset` is the database's clock minus this machine's."""
    seconds = abs(offset.total_seconds())
    if abs(offset) <= SKEW:
        return good("postgres clock", "agrees with this machine's")
    way = "ahead of" if offset > timedelta(0) else "behind"
    step = "Run NTP on both machines. The gateway uses Postgres' time, but its log uses this machine's."
    return warn("postgres clock", f"{seconds:.0f} s {way} this machine's", step)


async def examine_read_database(url: str) -> Finding:
    """The copy that the gateway reads lists from. While it is away the gateway reads them from the primary."""
    where = place(url)
    try:
        engine = open_engine(url, pool_size=1, read_only=True)
    except UsageError as error:
        return fail("postgres read copy", str(error), "Correct GATEWAY_DATABASE_READ_URL.")
    try:
        async with engine.connect() as conn:
            current, head = await migrate.current_and_head(conn)
    except UnusableDatabase as error:
        return fail("postgres read copy", error.cause, error.step)
    except FAULTS as error:
        cause, _ = explain(error, os.environ)
        step = "Start it, or correct GATEWAY_DATABASE_READ_URL. Until then the gateway reads lists from the primary."
        return warn("postgres read copy", f"{where}: {cause}", step)
    finally:
        await engine.dispose()
    if current == head:
        return good("postgres read copy", where)
    step = "Look at its replication; it has the tables when it has caught up."
    return warn("postgres read copy", f"{where} is at revision {current or 'none'}, not {head}", step)


async def examine_redis(url: str, *, embedded: bool) -> Finding:
    """Whether Redis answers. Without it everything works, but slower and without rate limits."""
    step = "Start Redis, or correct GATEWAY_REDIS_URL. Until then the gateway decides correctly, but slower."
    try:
        redis = open_redis(url, PATIENCE)
    except (ValueError, GatewayError) as error:
        return warn("redis reachable", _quoted(error, url), step)
    try:
        fault = await redis.fault()
    finally:
        await redis.aclose()
    where = "embedded" if embedded else f"{redis.url.kind} at {redis.url}"
    return good("redis reachable", where) if fault is None else warn("redis reachable", f"{where}: {fault}", step)


def _quoted(error: Exception, url: str) -> str:
    """The error in one line, without the password. A driver that cannot read a URL may repeat it; a server may not."""
    text = " ".join((str(getattr(error, "orig", None) or error) or type(error).__name__).split())
    login = url.partition("://")[2].rpartition("@")[0]
    return text if sqlstate(error) else quotable(text, login.partition(":")[2], sent=login)
