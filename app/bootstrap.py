"""The only place that builds real clients. Straight down: what each part is made of stands before it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app import migrate
from app.airflow.client import AirflowClient, Auth, PasswordAuth, TokenAuth, TokenFileAuth
from app.clock import Clock, SystemClock
from app.db import database_now, open_engine
from app.embedded import start_postgres, start_valkey
from app.errors import UsageError
from app.http import Http, open_http
from app.loop import Loop
from app.metrics import Metrics
from app.outbox.relay import Destination, Limits, Relay
from app.policy.load import load_policy
from app.policy.schema import Airflow, Policy
from app.policy.schema import PasswordAuth as PasswordPolicy
from app.policy.schema import TokenAuth as TokenPolicy
from app.ratelimit import RateLimit
from app.security import is_loopback, refuse_open_bind
from app.settings import Settings
from app.tokens import Caller, Tokens, tokens_exist
from app.triggers import quarantine
from app.triggers.batcher import Batcher
from app.triggers.delivery import Delivery
from app.triggers.ending import Endings
from app.triggers.following import Follower
from app.triggers.gauges import Gauges
from app.triggers.intake import Intake
from app.triggers.memory import Memory, open_redis
from app.triggers.requests import Requests
from app.triggers.service import TriggerServices
from app.triggers.wakes import Waker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Urls:
    """Where Postgres and Redis are: as configured, or embedded."""

    database: str
    redis: str


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that runs. `loops` are the worker's; `batcher.run` is the web process' own."""

    settings: Settings
    policy: Policy
    clock: Clock
    engine: AsyncEngine
    memory: Memory
    tokens: Tokens
    metrics: Metrics
    triggers: TriggerServices
    batcher: Batcher
    intake: Intake
    waker: Waker
    relay: Relay
    follower: Follower
    gauges: Gauges
    loops: tuple[Loop, ...]

    @property
    def running(self) -> bool:
        """True when the loops run in this process (not with `serve --no-worker`)."""
        return any(loop.started for loop in self.loops)


@asynccontextmanager
async def servers(settings: Settings) -> AsyncIterator[Urls]:
    """The configured servers; PostgreSQL and Valkey from their wheels for what is not configured. Stopped at the end by
    the last process that uses them."""
    async with AsyncExitStack() as stack:
        database = settings.database_url.get_secret_value() if settings.database_url else None
        redis = settings.redis_url.get_secret_value() if settings.redis_url else None
        if database is None:
            postgres = await asyncio.to_thread(start_postgres, settings.data_dir)
            stack.callback(postgres.stop)
            database = postgres.url
        if redis is None:
            valkey = await asyncio.to_thread(start_valkey, settings.data_dir)
            stack.callback(valkey.stop)
            redis = valkey.url
        yield Urls(database, redis)


def read_policy(settings: Settings) -> Policy:
    """The policy in force. Raises UsageError naming `init` when there is none."""
    path = settings.policy_file
    if not Path(path).is_file():
        raise UsageError(f"there is no policy at {path}: `trigger-gateway init` writes one, or set GATEWAY_POLICY_FILE")
    return load_policy(path)


@asynccontextmanager
async def open_services(
    settings: Settings,
    policy: Policy,
    urls: Urls,
    *,
    clock: Clock | None = None,
    http: Http | None = None,
) -> AsyncIterator[Services]:
    """Everything, built on migrated servers; closed again in reverse. `clock` and `http` are replaced by tests."""
    refuse_open_bind(settings.host, tokens_exist(settings.tokens_path))
    async with AsyncExitStack() as stack:
        engine = open_engine(urls.database)
        stack.push_async_callback(engine.dispose)
        if clock is None:
            clock = SystemClock()
            await clock.synchronise(lambda: database_now(engine))
        redis = open_redis(urls.redis, settings.redis_timeout)
        stack.push_async_callback(redis.aclose)
        if http is None:
            http = open_http()
            stack.push_async_callback(http.aclose)
        metrics = Metrics()
        metrics.policy_info.labels(policy.hash).set(1)
        tokens = Tokens(settings.tokens_path, clock, loopback=is_loopback(settings.host))
        memory = Memory(redis, ttl=settings.memory_ttl, failed=metrics.redis_failures.labels("memory").inc)
        limiter = RateLimit(
            redis,
            settings.rate_limit,
            on_unlimited=metrics.redis_failures.labels("rate_limit").inc,
            timeout=settings.redis_timeout,
        )
        yield _assemble(settings, policy, clock, engine, memory, tokens, metrics, limiter, http)


def _assemble(
    settings: Settings,
    policy: Policy,
    clock: Clock,
    engine: AsyncEngine,
    memory: Memory,
    tokens: Tokens,
    metrics: Metrics,
    limiter: RateLimit,
    http: Http,
) -> Services:
    """The trigger side. One straight line on purpose: to split it would hide what depends on what."""

    def current() -> Policy:
        return policy

    airflows = {a.name: AirflowClient(http, a.url, _auth(a), clock) for a in policy.airflow}
    caps = {f"airflow:{a.name}": a.max_parallel for a in policy.airflow}
    reorder = timedelta(seconds=settings.reorder_window)
    bells: dict[str, Loop] = {}

    def ring(*names: str) -> None:
        for name in names:
            if name in bells:
                bells[name].wake()

    intake = Intake(
        engine,
        memory,
        current,
        clock,
        metrics,
        new_id=uuid7,
        reorder=reorder,
        fired=lambda: ring("relay"),
        limits=quarantine.Limits(settings.quarantine_rows, settings.quarantine_body),
    )
    batcher = Batcher(intake.commit, max_queue=settings.intake_queue)
    waker = Waker(engine, memory, current, clock, metrics, new_id=uuid7, reorder=reorder, fired=lambda: ring("relay"))
    endings = Endings(current, metrics, ended=lambda: ring("relay", "waker"))
    follower = Follower(
        engine,
        clock,
        lambda: airflows,
        endings,
        interval=settings.follow_interval,
        parallel=settings.delivery_parallel,
        succeeded=lambda route, at: metrics.last_success.labels(route).set(at.timestamp()),
    )
    delivery = Delivery(
        engine,
        lambda: airflows,
        endings,
        paused_retry=settings.paused_retry,
        follow=lambda: ring("follower"),
        follow_interval=settings.follow_interval,
    )
    relay = Relay(
        engine,
        clock,
        {"airflow.dag_run": Destination(delivery.deliver, delivery.settled, delivery.after)},
        _limits(settings, caps),
        metrics,
        uuid7,
    )
    requests = Requests(engine, current, clock, new_id=uuid7, reorder=reorder, changed=lambda: ring("relay", "waker"))
    gauges = Gauges(engine, clock, metrics)
    loops = _loops(engine, clock, waker, relay, follower, gauges, settings)
    bells |= {loop.name: loop for loop in loops}

    async def limit(caller: Caller) -> None:
        if not tokens.is_open:
            await limiter.check(caller.name, clock.now())

    services = TriggerServices(
        engine=engine,
        batcher=batcher,
        requests=requests,
        policy=current,
        clock=clock,
        metrics=metrics,
        limit=limit,
        max_alerts=settings.max_alerts,
        timeout=settings.intake_timeout,
    )
    return Services(
        settings=settings,
        policy=policy,
        clock=clock,
        engine=engine,
        memory=memory,
        tokens=tokens,
        metrics=metrics,
        triggers=services,
        batcher=batcher,
        intake=intake,
        waker=waker,
        relay=relay,
        follower=follower,
        gauges=gauges,
        loops=loops,
    )


def _limits(settings: Settings, caps: Mapping[str, int | None]) -> Limits:
    return Limits(
        deadline=settings.delivery_deadline,
        attempt=settings.delivery_timeout,
        retry_max=settings.retry_max,
        parallel=settings.delivery_parallel,
        cap=caps.get,
    )


def _loops(
    engine: AsyncEngine,
    clock: Clock,
    waker: Waker,
    relay: Relay,
    follower: Follower,
    gauges: Gauges,
    settings: Settings,
) -> tuple[Loop, ...]:
    async def synchronise() -> bool:
        if isinstance(clock, SystemClock):
            await clock.synchronise(lambda: database_now(engine))
        return False

    # A step of the relay or the follower may wait for Airflow; longer than twice its time limit is stuck.
    patient = 2 * settings.delivery_timeout + 30
    return (
        Loop("waker", waker.step, idle=1.0),
        Loop("relay", relay.step, idle=1.0, patience=patient),
        Loop("follower", follower.step, idle=min(1.0, settings.follow_interval), patience=patient),
        Loop("gauges", gauges.step, idle=15.0),
        Loop("clock", synchronise, idle=60.0),
    )


def _auth(airflow: Airflow) -> Auth | None:
    auth = airflow.auth
    if auth is None:
        return None
    if isinstance(auth, PasswordPolicy):
        return PasswordAuth(auth.username, auth.password.get_secret_value())
    if isinstance(auth, TokenPolicy):
        return TokenAuth(auth.token.get_secret_value())
    return TokenFileAuth(Path(auth.token_file))


async def schema_is_current(engine: AsyncEngine) -> bool:
    """True when the database has this version's schema."""
    async with engine.connect() as conn:
        current, head = await migrate.current_and_head(conn)
    return current == head


__all__ = ["Services", "Urls", "open_services", "read_policy", "schema_is_current", "servers"]
