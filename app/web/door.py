"""The door of the listener (app.web.listener): how many connections a process may have, how long each may keep it waiting,
and which one makes room for a new one."""

import asyncio
import logging
import resource
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from app.kit.log import Seldom

log = logging.getLogger(__name__)

_FILES: Final = 65_536  # open files that a process asks for
_OTHERS: Final = 128  # open files for Postgres, Redis, Airflow, MLflow and the policy


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for a complete head, a complete body and the pause between two requests, and to take an answer; and the
    connections of one process. `last` is for the rest of a body after SIGTERM.

    `rate` is how many bytes of a body must come in a second, on average after the first `free` seconds. `unread` is how many
    bytes of answers the senders of one process may leave untaken.
    """

    head: float = 10.0
    body: float = 30.0
    idle: float = 75.0
    answer: float = 30.0
    last: float = 10.0
    connections: int = 2048
    free: float = 10.0
    rate: int = 512
    unread: int = 64 * 2**20


def raise_open_files() -> int:
    """Raise the soft limit of open files as far as this process may. Returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return _FILES if soft == resource.RLIM_INFINITY else soft


class Connection(Protocol):
    """What the door knows of a connection."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    def look(self, now: float) -> None:
        """End the connection when it is overdue."""


class Door:
    """The connections of one process, and which of them keep us waiting, longest first."""

    def __init__(self, limits: Limits) -> None:
        files = raise_open_files()
        self.limits = limits
        self._cap = min(limits.connections, max(files - max(_OTHERS, files // 4), 16))
        self._open: set[Connection] = set()
        self.waiting: dict[Connection, None] = {}  # longest first; a connection adds and removes itself
        self._unread: dict[Connection, None] = {}  # the one that has not read for the longest time is first
        self._watched = False
        self._may_log_cap = Seldom(60)
        self.may_log_refusal = Seldom(10)

    def enter(self, connection: Connection) -> bool:
        """Count a new connection. False: the cap is reached, and every other connection waits for our own answer."""
        crowded = len(self._open) >= self._cap
        if crowded and self._may_log_cap():
            log.warning("too many connections: the one that waits longest makes room", extra={"cap": self._cap})
        longest = next(iter(self.waiting), None)
        if crowded and longest is not None:
            self.leave(longest)
            longest.transport.abort()
        self._open.add(connection)
        self.waiting[connection] = None
        if not self._watched:
            self._watched = True
            self._watch(connection.loop)
        return not crowded or longest is not None

    def unread(self, connection: Connection) -> None:
        """The connection leaves bytes of its answers untaken. When that is too much for all together, the one that has not
        read for the longest time is cut off."""
        self.has_read(connection)
        self._unread[connection] = None
        sizes = {each: each.transport.get_write_buffer_size() for each in self._unread}
        while sum(sizes.values()) > self.limits.unread and len(sizes) > 1:
            slowest = next(iter(sizes))
            del sizes[slowest]
            self.leave(slowest)
            slowest.transport.abort()

    def has_read(self, connection: Connection) -> None:
        self._unread.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        self._unread.pop(connection, None)
        self._open.discard(connection)
        self.waiting.pop(connection, None)

    def waits(self, connection: Connection) -> None:
        """From now on the connection keeps us waiting."""
        if connection in self._open:
            self.waiting.pop(connection, None)
            self.waiting[connection] = None

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at every connection, again and again while there are any. One timer for all costs a request nothing."""
        now = loop.time()
        for connection in list(self._open):
            connection.look(now)
        self._watched = bool(self._open)
        if self._watched:
            limits = self.limits
            pause = min(1.0, min(limits.head, limits.body, limits.idle, limits.answer) / 4)
            loop.call_later(pause, self._watch, loop)
