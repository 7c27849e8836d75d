"""Processes: one that serves, several that share a port, or one that runs only the loops."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial

import asyncpg
import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError

from app.bootstrap.core import Urls, read_policy, servers
from app.bootstrap.parts import Services, open_services
from app.bootstrap.settings import Settings
from app.cli.workers import bind, cannot_serve, reloading_on_hangup, run_workers
from app.kit import log as logs
from app.kit.errors import GatewayError, unless_out_of_files
from app.kit.loop import running
from app.kit.telemetry import telemetry
from app.tables import migrate
from app.web import listener
from app.web.door import Limits, raise_open_files
from app.web.main import create_app
from app.web.security import refuse_open_bind
from app.web.tokens import tokens_exist

log = logging.getLogger(__name__)

DRAIN = 20  # seconds that open requests have to end after SIGTERM


def serve(settings: Settings, *, workers: int, loops: bool, limits: Limits = Limits()) -> None:
    """Serve in `workers` processes until SIGTERM or Ctrl-C. `loops` says whether they run the worker's loops as well.
    `limits` are those of each process's connections.

    Raises UsageError for a missing or bad policy, and for an address that would be open to everybody.
    """
    read_policy(settings)
    refuse_open_bind(settings.host, tokens_exist(settings.tokens_path))
    if workers > 1:
        bound = bind(settings.host, settings.port)
        run_workers(workers, partial(_serve_child, settings, bound, loops, limits))
    else:
        _serve_one(settings, limits, loops=loops)


def _serve_one(settings: Settings, limits: Limits, *, loops: bool, sockets: list[socket.socket] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C. Then answer open requests, write the alerts in the queue, and end the loops."""

    failures: list[GatewayError] = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[Services]:
        async with AsyncExitStack() as stack:
            try:
                services = await stack.enter_async_context(_opened(settings))
            except GatewayError as error:
                failures.append(error)
                raise
            yield services

    # Without this uvicorn prints a traceback before the sentence that says it all.
    logging.getLogger("uvicorn.error").addFilter(lambda r: not (failures and r.getMessage().startswith("Traceback")))
    # When every request has ended, uvicorn raises the signal again. That is a good end: exit code 0.
    signal.signal(signal.SIGTERM, _end)
    server = uvicorn.Server(_config(create_app(settings, opened, worker=loops), settings, limits))
    try:
        server.run(sockets=sockets)
    except OSError as error:
        raise cannot_serve(settings.host, settings.port, error) from error
    except SystemExit as ended:
        if failures:
            raise failures[0] from ended
        raise
    if not server.started:
        raise SystemExit(1)


def _config(app: FastAPI, settings: Settings, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=listener.protocol(limits),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # Nothing asks who or what a proxy stands for, so nobody can lie about it.
        timeout_graceful_shutdown=DRAIN,
    )


def _end(*_: object) -> None:
    raise SystemExit(0)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Services]:
    """The servers and the services. Logs where they are. Raises GatewayError with one sentence for a person."""
    policy = read_policy(settings)
    for warning in policy.warnings:
        log.warning("policy: %s", warning)
    async with AsyncExitStack() as stack:
        stack.enter_context(telemetry())
        urls = await stack.enter_async_context(servers(settings))
        with _naming_postgres(urls):
            await _migrate(urls, settings)
            services = await stack.enter_async_context(open_services(settings, policy, urls))
        _announce(settings, services)
        # The objects of the start live as long as the process. Each full collection would visit them all again, and every
        # request would wait for it: about 90 ms every few seconds under load.
        gc.freeze()
        with reloading_on_hangup(services.reload_soon):
            yield services


@contextmanager
def _naming_postgres(urls: Urls) -> Iterator[None]:
    """Turn an error of Postgres, or of the way to it, into a sentence that says where it is and what to do."""
    try:
        yield
    except (OSError, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if isinstance(error, OSError):
            unless_out_of_files(error)
        where = urls.database.rpartition("@")[2].partition("?")[0]  # What follows the last @ holds no password.
        cause = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
        step = "Look at Postgres and at GATEWAY_DATABASE_URL; `trigger-gateway doctor` says more"
        raise GatewayError(f"Postgres at {where} cannot be used: {cause}. {step}") from error


def _serve_child(settings: Settings, bound: socket.socket, loops: bool, limits: Limits) -> None:
    logs.configure(settings.log_level, settings.log_json)
    try:
        _serve_one(settings, limits, loops=loops, sockets=[bound])
    except GatewayError as error:
        log.error("cannot serve: %s", error)
        raise SystemExit(1) from error


def work(settings: Settings) -> None:
    """Run the loops until SIGTERM or Ctrl-C. Raises UsageError for a missing or bad policy."""
    raise_open_files()
    read_policy(settings)
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _opened(settings) as services, running((*services.constant, *services.loops)):
        await stop.wait()


async def migrate_database(settings: Settings) -> str:
    """Bring the database, embedded or configured, to this version's schema. Returns its revision.

    Raises GatewayError with one sentence for a person.
    """
    async with servers(settings) as urls:
        with _naming_postgres(urls):
            await migrate.upgrade(urls.database)
    return migrate.head()


async def _migrate(urls: Urls, settings: Settings) -> None:
    """Migrate an embedded database. The operator migrates a configured one with `trigger-gateway migrate`."""
    if settings.database_url is None:
        await migrate.upgrade(urls.database)


def _announce(settings: Settings, services: Services) -> None:
    where = "embedded" if settings.database_url is None else "configured"
    log.info(
        "trigger gateway is up",
        extra={
            "url": f"{settings.url}/docs",
            "policy": services.core.policy.hash,
            "database": where,
        },
    )
