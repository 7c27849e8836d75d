"""Heavy bodies: those that take long to read. They are read in a thread, and their values are counted before that.

A body of 4 MiB can hold a million empty objects, or a hundred thousand faults. Read at once it would stop every other
request for seconds. One thread reads them one after the other, so memory holds the parts of one such body only. The tokens
take turns at it.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request

from app.kit.clock import monotonic
from app.kit.errors import Problem

Result = TypeVar("Result")

LARGE: Final = 65536  # bytes
_MANY: Final = 500  # objects
MOST_DEPTH: Final = 32  # of any JSON that is kept: a person can read no more, and a parser on its way may stop at less

_PATIENCE: Final = 8.0  # seconds until the result, like the longest that an alert waits
_FOR_THE_TURN: Final = 0.75  # of that time; the rest is for the work itself, and for what follows it


def is_heavy(raw: bytes) -> bool:
    """Whether a body is read aside."""
    return len(raw) > LARGE or raw.count(b"{") > _MANY


class Late(Problem):
    """The work of others took so long that this work would come too late. It was not begun, or its result is dropped."""

    def __init__(self) -> None:
        detail = "Too many large bodies wait to be read. Send it again."
        super().__init__(503, "unavailable", detail, headers={"Retry-After": "5"})


@dataclass(slots=True, eq=False)
class _Turn:
    """Some work that waits for the thread, and its result."""

    work: Callable[[], Any]
    done: "Future[Any]" = field(default_factory=Future)


@dataclass(slots=True)
class _Lane:
    """The turns of one token, in order of arrival. Any of them can leave at no cost. `used`: seconds of the thread, counted
    from what those who waited had used when this lane began."""

    used: float
    turns: OrderedDict[_Turn, None] = field(default_factory=OrderedDict)


class Turns:
    """A thread for work that takes long, which tokens share. Next is a token that has used the thread least, among those
    that wait. So a new one waits for the work under way at most, however much others want. The work of one token keeps its
    order."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()  # for all below
        self._lanes: dict[str, _Lane] = {}
        self._least = 0.0  # what the lane of the last turn had used before it
        self._running = False

    async def take(self, lane: str, work: Callable[..., Result], *given: Any, within: float = _PATIENCE) -> Result:
        """The result of `work(*given)`, or its error, from the thread. `lane`: the name of the token.

        Raises Late when the turn does not come in most of `within` seconds, or the result in all of them. Whoever waits no
        longer leaves nothing behind.
        """
        turn, due = _Turn(partial(work, *given)), monotonic() + within
        done: asyncio.Future[Result] = asyncio.wrap_future(turn.done)
        try:
            self._join(lane, turn)
            await asyncio.wait([done], timeout=within * _FOR_THE_TURN)
            if not done.done() and not self._leave(lane, turn):
                await asyncio.wait([done], timeout=due - monotonic())  # It is under way.
            if not done.done():
                raise Late
            return done.result()
        finally:
            self._leave(lane, turn)
            done.cancel()
            del turn, work, given, done  # An error keeps this frame, and a body may be large.

    def _join(self, name: str, turn: _Turn) -> None:
        with self._lock:
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = _Lane(self._least)
            lane.turns[turn] = None
            if not self._running:
                self._thread.submit(self._run)
                self._running = True

    def _leave(self, name: str, turn: _Turn) -> bool:
        """Whether the turn has still been waiting. It no longer does."""
        with self._lock:
            lane = self._lanes.get(name)
            if lane is None or turn not in lane.turns:
                return False
            del lane.turns[turn]
            return True

    def _run(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """Give the next turn. False: nobody waits."""
        with self._lock:
            self._lanes = {name: lane for name, lane in self._lanes.items() if lane.turns}
            if not self._lanes:
                self._running = False
                return False
            # The lane of a turn stays until its end, so that its token cannot begin anew meanwhile.
            lane = min(self._lanes.values(), key=lambda lane: lane.used)
            turn, _ = lane.turns.popitem(last=False)
            self._least = lane.used
            if not turn.done.set_running_or_notify_cancel():
                return True
        began = monotonic()
        try:
            turn.done.set_result(turn.work())
        except BaseException as error:
            turn.done.set_exception(error)
        finally:
            lane.used += monotonic() - began
            del turn  # The error keeps this frame.
        return True


aside = Turns("heavy-bodies").take


async def gone(request: Request) -> None:
    """Return when the sender has gone away. Call it when the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def while_there(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`. When the sender goes away the work is cancelled, and ClientDisconnect is raised: nobody waits
    for an answer, and the bytes are free."""
    leaves, done = asyncio.ensure_future(gone(request)), asyncio.ensure_future(work)
    try:
        await asyncio.wait({leaves, done}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ClientDisconnect
        return done.result()
    finally:
        leaves.cancel()
        done.cancel()
        del done  # Its error keeps this frame.


def values_of(raw: bytes) -> int:
    """At least as many values as a JSON text has. It counts commas and brackets, in strings too."""
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{") + 1


def within_depth(value: Any) -> Any:
    """The JSON value. Raises ValueError when its lists and objects are nested deeper than MOST_DEPTH."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEPTH):
        if not level:
            return value
        parts = (each.values() if isinstance(each, dict) else each for each in level)
        level = [inner for inside in parts for inner in inside if isinstance(inner, dict | list)]
    if not level:
        return value
    raise ValueError(f"its lists and objects are nested deeper than {MOST_DEPTH}")
