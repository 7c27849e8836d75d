"""The second phase of a start: open the servers, build what every room needs, and make the loops that belong to no room."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from app.bootstrap.settings import Settings
from app.deadman.watchdog import Watchdog
from app.groups.aftermath import Aftermath
from app.groups.memory import Memory
from app.intake.batcher import Batcher
from app.kit.clock import Clock, SystemClock
from app.kit.db import database_now
from app.kit.embedded import start_postgres, start_valkey
from app.kit.errors import UsageError
from app.kit.http import Http, open_http
from app.kit.loop import Loop
from app.kit.metrics import Metrics
from app.kit.postgres.faults import FILLING_IN, naming_postgres
from app.kit.redis.client import Redis, open_redis
from app.kit.replica import Reader, open_engines
from app.policy.core import Bells, Core
from app.policy.file.load import load_policy
from app.policy.holder import Holder
from app.policy.reload import LOOK_EVERY, Reloader
from app.policy.schema import Policy
from app.web.ratelimit import RateLimit
from app.web.security import is_loopback, refuse_open_bind
from app.web.tokens import Tokens, tokens_exist


@dataclass(frozen=True, slots=True)
class Urls:
    """Where Postgres and Redis are: as configured, or embedded."""

    database: str
    redis: str


@asynccontextmanager
async def servers(settings: Settings) -> AsyncIterator[Urls]:
    """The configured servers. For a server that is not configured, start PostgreSQL or Valkey from its wheel. The last
    process that uses such a server stops it."""
    async with AsyncExitStack() as stack:
        database = settings.database_url.get_secret_value() if settings.database_url else None
        redis = settings.redis_url.get_secret_value() if settings.redis_url else None
        if database is None:
            # asyncpg would add what these say, and they are about another server.
            for name in FILLING_IN:
                os.environ.pop(name, None)
            postgres = await asyncio.to_thread(start_postgres, settings.data_dir)
            stack.callback(postgres.stop)
            database = postgres.url
        if redis is None:
            valkey = await asyncio.to_thread(start_valkey, settings.data_dir)
            stack.callback(valkey.stop)
            redis = valkey.url
        yield Urls(database, redis)


def read_policy(settings: Settings) -> Policy:
    """Read the policy file. Raises UsageError, which names `init`, when there is no file; PolicyError when it is wrong."""
    path = settings.policy_file
    if not Path(path).is_file():
        raise UsageError(f"there is no policy at {path}: `trigger-gateway init` writes one, or set GATEWAY_POLICY_FILE")
    return load_policy(path)


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every room needs. `intake` is the core with database connections of its own. A list or a delivery can take none
    of them, so neither can keep an alert from being written."""

    settings: Settings
    urls: Urls
    core: Core
    intake: Core
    reader: Reader
    redis: Redis
    memory: Memory
    aftermath: Aftermath
    tokens: Tokens
    limiter: RateLimit
    http: Http


@asynccontextmanager
async def open_foundation(
    settings: Settings, policy: Policy, urls: Urls, *, clock: Clock | None, http: Http | None
) -> AsyncIterator[Foundation]:
    """Build the foundation on migrated servers; it is closed in reverse order. Tests pass their own `clock` and `http`."""
    refuse_open_bind(settings.host, tokens_exist(settings.tokens_path))
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        engines = await stack.enter_async_context(open_engines(urls.database, settings.database_read_url))
        if clock is None:
            clock = SystemClock()
            with naming_postgres(urls.database):
                await clock.synchronise(lambda: database_now(engines.everything))
        redis = open_redis(urls.redis, settings.redis_timeout, prefix=settings.redis_prefix)
        stack.push_async_callback(redis.aclose)
        if http is None:
            http = open_http()
            stack.push_async_callback(http.aclose)
        reorder = timedelta(seconds=settings.reorder_window)
        holder = Holder(policy, clock.now())
        core = Core(engines.everything, clock, holder, metrics, Bells(), reorder, settings.record_repeats)
        named = settings.tokens_file is not None
        tokens = Tokens(settings.tokens_path, clock, loopback=is_loopback(settings.host), named=named)
        metrics.tokens_faults.set_function(lambda: len(tokens.faults))
        memory = Memory(redis, metrics, ttl=settings.memory_ttl)
        yield Foundation(
            settings=settings,
            urls=urls,
            core=core,
            intake=replace(core, engine=engines.intake),
            reader=Reader(engines.everything, engines.copy, metrics.replica_failures.inc),
            redis=redis,
            memory=memory,
            aftermath=Aftermath(core, memory),
            tokens=tokens,
            limiter=RateLimit(redis, settings.rate_limit, clock, metrics),
            http=http,
        )


def constant_loops(core: Core, reloader: Reloader) -> tuple[Loop, ...]:
    """The loops that every process runs, with the worker's loops or without: the database's time and the newest policy."""

    async def synchronise() -> bool:
        if isinstance(core.clock, SystemClock):
            await core.clock.synchronise(lambda: database_now(core.engine))
        return False

    return Loop("clock", synchronise, idle=60.0), Loop("policy", reloader.step, idle=LOOK_EVERY)


def watchdog_loops(base: Foundation, loops: tuple[Loop, ...], batcher: Batcher) -> tuple[Loop, ...]:
    """The loop that pings an address outside, if one is set."""
    settings = base.settings
    if settings.watchdog_url is None:
        return ()
    secret = settings.watchdog_authorization
    headers = {"Authorization": secret.get_secret_value()} if secret else {}
    watchdog = Watchdog(base.core, base.http, settings.watchdog_url.get_secret_value(), headers, loops, batcher)
    return (Loop("watchman", watchdog.step, idle=settings.watchdog_interval),)
