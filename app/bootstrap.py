"""The only place that builds real clients. Straight down: what each part is made of stands before it."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.airflow.clients import AirflowClients
from app.clock import Clock, SystemClock
from app.db import database_now
from app.errors import Problem, UsageError
from app.http import Http, open_http
from app.loop import Loop
from app.metrics import Metrics
from app.outbox.relay import Destination, Limits, Relay
from app.policy.holder import Holder
from app.policy.load import load_policy
from app.policy.reload import LOOK_EVERY, Reloader
from app.policy.schema import Policy
from app.ratelimit import RateLimit
from app.replica import Reader, open_engines
from app.security import is_loopback, refuse_open_bind
from app.servers import Urls, servers
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
from app.triggers.retention import Retention
from app.triggers.service import TriggerServices
from app.triggers.wakes import Waker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that runs. `loops` are the worker's, `constant` every process'; `batcher.run` is the web process' own."""

    settings: Settings
    policies: Holder
    reloader: Reloader
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
    retention: Retention
    loops: tuple[Loop, ...]
    constant: tuple[Loop, ...]

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.policies.current()

    @property
    def running(self) -> tuple[Loop, ...]:
        """The loops that run in this process; `serve --no-worker` has only the constant ones."""
        return tuple(loop for loop in (*self.constant, *self.loops) if loop.started)

    def reload_soon(self) -> None:
        """Read the policy file again, changed or not. For a signal handler."""
        self.reloader.ask()
        for loop in self.constant:
            loop.wake()


def read_policy(settings: Settings) -> Policy:
    """The policy in force. Raises UsageError naming `init` when there is none."""
    path = settings.policy_file
    if not Path(path).is_file():
        raise UsageError(f"there is no policy at {path}: `trigger-gateway init` writes one, or set GATEWAY_POLICY_FILE")
    return load_policy(path)


@dataclass(frozen=True, slots=True)
class _Base:
    """What every part is built on."""

    settings: Settings
    policies: Holder
    clock: Clock
    engine: AsyncEngine
    intake_engine: AsyncEngine
    reader: Reader
    memory: Memory
    tokens: Tokens
    metrics: Metrics
    limiter: RateLimit
    http: Http
    bells: dict[str, Loop]  # filled when the loops are built: they and what wakes them need each other

    @property
    def reorder(self) -> timedelta:
        return timedelta(seconds=self.settings.reorder_window)

    @property
    def current(self) -> Callable[[], Policy]:
        return self.policies.current

    def ring(self, *names: str) -> None:
        """Wake loops of this process. Others find the work by polling."""
        for name in names:
            if name in self.bells:
                self.bells[name].wake()


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
        metrics = Metrics()
        engines = await stack.enter_async_context(open_engines(urls.database, settings.database_read_url))
        engine = engines.everything
        if clock is None:
            clock = SystemClock()
            await clock.synchronise(lambda: database_now(engine))
        redis = open_redis(urls.redis, settings.redis_timeout)
        stack.push_async_callback(redis.aclose)
        if http is None:
            http = open_http()
            stack.push_async_callback(http.aclose)
        base = _Base(
            settings=settings,
            policies=Holder(policy, clock.now()),
            clock=clock,
            engine=engine,
            intake_engine=engines.intake,
            reader=Reader(engine, engines.copy, metrics.replica_failures.inc),
            memory=Memory(
                redis,
                ttl=settings.memory_ttl,
                failed=metrics.redis_failures.labels("memory").inc,
                prefix=settings.redis_prefix,
            ),
            tokens=Tokens(settings.tokens_path, clock, loopback=is_loopback(settings.host)),
            metrics=metrics,
            limiter=RateLimit(
                redis,
                settings.rate_limit,
                on_unlimited=metrics.redis_failures.labels("rate_limit").inc,
                timeout=settings.redis_timeout,
                prefix=f"{settings.redis_prefix}:limit:",
            ),
            http=http,
            bells={},
        )
        yield _assemble(base)


def _assemble(base: _Base) -> Services:
    intake = _intake(base)
    batcher = Batcher(intake.commit, max_queue=base.settings.intake_queue)
    waker = Waker(
        base.engine,
        base.memory,
        base.current,
        base.clock,
        base.metrics,
        new_id=uuid7,
        reorder=base.reorder,
        fired=lambda: base.ring("relay"),
    )
    relay, follower = _airflow(base)
    reloader = Reloader(base.policies, base.settings.policy_file, base.engine, base.clock, base.metrics)
    gauges = Gauges(base.engine, base.clock, base.metrics)
    retention = Retention(base.engine, base.clock, base.current, base.metrics, keep=base.settings.retention)
    tidy = Loop("retention", retention.step, idle=600.0, pace=0.1)
    loops = (*_loops(base, waker, relay, follower, gauges), tidy)
    constant = _constant_loops(base, reloader)
    base.bells.update({loop.name: loop for loop in loops})
    for loop in (*constant, *loops):
        base.metrics.loop_failures.labels(loop.name).set_function(partial(getattr, loop, "failures"))
    return Services(
        settings=base.settings,
        policies=base.policies,
        reloader=reloader,
        clock=base.clock,
        engine=base.engine,
        memory=base.memory,
        tokens=base.tokens,
        metrics=base.metrics,
        triggers=_requests(base, batcher),
        batcher=batcher,
        intake=intake,
        waker=waker,
        relay=relay,
        follower=follower,
        gauges=gauges,
        retention=retention,
        loops=loops,
        constant=constant,
    )


def _intake(base: _Base) -> Intake:
    return Intake(
        base.intake_engine,
        base.memory,
        base.current,
        base.clock,
        base.metrics,
        new_id=uuid7,
        reorder=base.reorder,
        fired=lambda: base.ring("relay"),
        limits=quarantine.Limits(base.settings.quarantine_rows, base.settings.quarantine_body),
    )


def _airflow(base: _Base) -> tuple[Relay, Follower]:
    """The way to Airflow and the eyes on it."""
    settings, metrics = base.settings, base.metrics
    airflows = AirflowClients(base.current, base.http, base.clock)
    endings = Endings(base.current, metrics, ended=lambda: base.ring("relay", "waker"))
    delivery = Delivery(
        base.engine,
        airflows,
        endings,
        paused_retry=settings.paused_retry,
        follow=lambda: base.ring("follower"),
        follow_interval=settings.follow_interval,
    )
    limits = Limits(
        deadline=settings.delivery_deadline,
        attempt=settings.delivery_timeout,
        retry_max=settings.retry_max,
        parallel=settings.delivery_parallel,
        cap=airflows.cap,
    )
    destinations = {"airflow.dag_run": Destination(delivery.deliver, delivery.settled, delivery.after)}
    relay = Relay(base.engine, base.clock, destinations, limits, metrics, uuid7)
    follower = Follower(
        base.engine,
        base.clock,
        airflows,
        endings,
        interval=settings.follow_interval,
        parallel=settings.delivery_parallel,
    )
    return relay, follower


def _requests(base: _Base, batcher: Batcher) -> TriggerServices:
    async def limit(caller: Caller) -> None:
        if base.tokens.is_open:
            return
        try:
            await base.limiter.check(caller.name, base.clock.now())
        except Problem:
            base.metrics.rate_limited.inc()
            raise

    return TriggerServices(
        engine=base.engine,
        reader=base.reader,
        batcher=batcher,
        requests=Requests(
            base.engine,
            base.current,
            base.clock,
            new_id=uuid7,
            reorder=base.reorder,
            changed=lambda: base.ring("relay", "waker"),
            decided=lambda route, v: base.metrics.decided([(route, v.action, v.reason)]),
        ),
        policy=base.current,
        clock=base.clock,
        metrics=base.metrics,
        limit=limit,
        max_alerts=base.settings.max_alerts,
        timeout=base.settings.intake_timeout,
        memory=base.memory,
        signatures=base.settings.signatures,
    )


def _loops(base: _Base, waker: Waker, relay: Relay, follower: Follower, gauges: Gauges) -> tuple[Loop, ...]:
    settings = base.settings
    # A step of the relay or the follower may wait for Airflow; longer than twice its time limit is stuck.
    patient = 2 * settings.delivery_timeout + 30
    return (
        Loop("waker", waker.step, idle=1.0),
        Loop("relay", relay.step, idle=1.0, patience=patient),
        Loop("follower", follower.step, idle=min(1.0, settings.follow_interval), patience=patient),
        Loop("gauges", gauges.step, idle=15.0),
    )


def _constant_loops(base: _Base, reloader: Reloader) -> tuple[Loop, ...]:
    """What a process without the worker's loops needs as well: the right time, and the policy of the day."""
    clock = base.clock

    async def synchronise() -> bool:
        if isinstance(clock, SystemClock):
            await clock.synchronise(lambda: database_now(base.engine))
        return False

    return Loop("clock", synchronise, idle=60.0), Loop("policy", reloader.step, idle=LOOK_EVERY)


__all__ = ["Services", "Urls", "open_services", "read_policy", "servers"]
