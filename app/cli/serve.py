"""Processes: one that serves, several that share a port, or one that runs only the loops."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import uvicorn
from fastapi import FastAPI

from app.bootstrap.core import Urls, read_policy, servers
from app.bootstrap.parts import Services, open_services
from app.bootstrap.settings import Settings
from app.cli.workers import bind, cannot_serve, reloading_on_hangup, run_workers
from app.kit import log as logs
from app.kit.errors import GatewayError, refused_by_machine
from app.kit.http import proxy_warnings
from app.kit.loop import running
from app.kit.postgres.faults import naming_postgres
from app.kit.telemetry import telemetry
from app.tables import migrate
from app.web import listener
from app.web.door import Limits, raise_open_files
from app.web.main import create_app
from app.web.security import refuse_no_tokens, refuse_open_bind
from app.web.tokens import tokens_exist

log = logging.getLogger(__name__)

DRAIN = 20  # seconds that open requests have to end after SIGTERM


def serve(settings: Settings, *, workers: int, loops: bool, limits: Limits = Limits()) -> None:
    """Serve in `workers` processes until SIGTERM or Ctrl-C. `loops` says whether they run the worker's loops as well.
    `limits` are those of each process's connections.

    Raises UsageError for a missing or bad policy, and for an address that would be open to everybody.
    """
    read_policy(settings)
    refuse_no_tokens(settings.tokens_file)
    refuse_open_bind(settings.host, tokens_exist(settings.tokens_path))
    bound = bind(settings.host, settings.port)
    # With GATEWAY_PORT=0 the kernel has chosen the port: from here on it is the one that was meant.
    settings = settings.model_copy(update={"port": bound[0].getsockname()[1]})
    if workers > 1:
        run_workers(workers, partial(_serve_child, settings, bound, loops, limits))
    else:
        _serve_one(settings, bound, limits, loops=loops)


def _serve_one(settings: Settings, sockets: list[socket.socket], limits: Limits, *, loops: bool) -> None:
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
            except OSError as error:
                failures.append(refused_by_machine(error))
                raise failures[0] from error
            yield services

    # Without this uvicorn prints a traceback before the sentence that says it all.
    logging.getLogger("uvicorn.error").addFilter(lambda r: not (failures and r.getMessage().startswith("Traceback")))
    # When every request has ended, uvicorn raises the signal again. That is a good end: exit code 0.
    signal.signal(signal.SIGTERM, _end)
    server = uvicorn.Server(_config(create_app(settings, opened, worker=loops), limits))
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


def _config(app: FastAPI, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=listener.protocol(limits),
        ws="none",
        log_config=None,
        access_log=False,
        workers=1,  # Otherwise uvicorn reads WEB_CONCURRENCY, which is meant for other programs.
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
    for sentence in proxy_warnings():
        log.warning("%s", sentence)
    async with AsyncExitStack() as stack:
        stack.enter_context(telemetry())
        urls = await stack.enter_async_context(servers(settings))
        await _migrate(urls, settings)
        services = await stack.enter_async_context(open_services(settings, policy, urls))
        _announce(settings, services)
        # The objects of the start live as long as the process. Each full collection would visit them all again, and every
        # request would wait for it: about 90 ms every few seconds under load.
        gc.freeze()
        with reloading_on_hangup(services.reload_soon):
            yield services


def _serve_child(settings: Settings, bound: list[socket.socket], loops: bool, limits: Limits) -> None:
    logs.configure(settings.log_level, settings.log_json)
    try:
        _serve_one(settings, bound, limits, loops=loops)
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
        with naming_postgres(urls.database):
            await migrate.upgrade(urls.database)
    return migrate.head()


async def _migrate(urls: Urls, settings: Settings) -> None:
    """Migrate an embedded database. The operator migrates a configured one with `trigger-gateway migrate`."""
    if settings.database_url is None:
        with naming_postgres(urls.database):
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
