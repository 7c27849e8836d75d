"""Where one process of the gateway meets the others: each statement, commit and request crosses its border.

A crossing has a number, counted from the beginning of a step, and may meet the fault that the step asks for. The process
then stands still, loses its connection, or dies: a dead process reaches nobody any more.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_

from tests.simulation.schedule import Crossing, Fault


class Border:
    """`begin(fault)` starts a step. `news` is set when the process stands still, and by whoever else has news of it."""

    def __init__(self) -> None:
        self.dead = False
        self.news = asyncio.Event()
        self.cut_sessions: list[int] = []  # process ids in Postgres, which may take a moment to end
        self._fault: Fault | None = None
        self._crossings = 0
        self._parked: asyncio.Event | None = None

    def begin(self, fault: Fault | None) -> None:
        self._fault, self._crossings = fault, 0

    @property
    def parked(self) -> bool:
        return self._parked is not None

    def resume(self) -> None:
        """A process that stands still goes on."""
        if self._parked is not None:
            self._parked.set()
            self._parked = None

    async def cross(self, kind: Crossing) -> bool:
        """One crossing. False: it does not get through."""
        self._crossings += 1
        fault = self._fault
        if fault is not None and fault.at in (self._crossings, kind) and not self.dead:
            self._fault = None
            match fault.kind:
                case "park":
                    self._parked = waiting = asyncio.Event()
                    self.news.set()
                    await waiting.wait()
                case "cut":
                    return False
                case "crash":
                    self.dead = True
        return not self.dead

    # Postgres.

    def watch(self, engine: AsyncEngine) -> None:
        """Every statement and every commit of this engine is a crossing."""
        dialect: Any = engine.sync_engine.dialect
        commit: Callable[[Any], None] = dialect.do_commit

        def before(conn: Any, *_: Any) -> None:
            if not await_(self.cross("statement")):
                self._cut(conn.connection)

        def after(conn: Any, _cursor: Any, _statement: Any, _parameters: Any, context: Any, _many: Any) -> None:
            if context.execution_options.get("isolation_level") == "AUTOCOMMIT" and not await_(self.cross("committed")):
                self._cut(conn.connection)
                raise dialect.loaded_dbapi.InterfaceError("connection is closed")

        def do_commit(connection: Any) -> None:
            if not await_(self.cross("commit")):
                self._cut(connection)
            commit(connection)
            if not await_(self.cross("committed")):
                self._cut(connection)
                raise dialect.loaded_dbapi.InterfaceError("connection is closed")

        event.listen(engine.sync_engine, "before_cursor_execute", before)
        event.listen(engine.sync_engine, "after_cursor_execute", after)
        dialect.do_commit = do_commit

    def _cut(self, connection: Any) -> None:
        driver = connection.driver_connection
        if not driver.is_closed():
            self.cut_sessions.append(driver.get_server_pid())
            driver.terminate()

    # Other people's servers.

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """Each request and each answer is a crossing."""
        return _Transport(self, inner)


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, border: Border, inner: httpx.AsyncBaseTransport) -> None:
        self._border = border
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not await self._border.cross("request"):
            raise httpx.ConnectError("All connection attempts failed", request=request)
        response = await self._inner.handle_async_request(request)
        if not await self._border.cross("answer"):
            raise httpx.ReadTimeout("", request=request)
        return response
