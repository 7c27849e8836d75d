"""Heavy bodies: those that take long to read. They are read in a thread, and their values are counted before that.

A body of 4 MiB can hold a million empty objects, or a hundred thousand faults. Read at once it would stop every other
request for seconds. One thread reads them one after the other, so memory holds the parts of one such body only.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request

Result = TypeVar("Result")

LARGE: Final = 65536  # bytes
_MANY: Final = 500  # objects
MOST_DEPTH: Final = 32  # of any JSON that is kept: a person can read no more, and a parser on its way may stop at less

_thread = ThreadPoolExecutor(1, thread_name_prefix="heavy-bodies")


def is_heavy(raw: bytes) -> bool:
    """Whether a body is read aside."""
    return len(raw) > LARGE or raw.count(b"{") > _MANY


async def aside(work: Callable[..., Result], *given: Any) -> Result:
    """The result of `work(*given)`, or its error, from the thread for heavy bodies. A cancelled caller leaves nothing in its
    queue but an empty turn."""
    waiting = [(work, given)]

    def turn() -> Result:
        work, given = waiting.pop()
        return work(*given)

    try:
        return await asyncio.get_running_loop().run_in_executor(_thread, turn)
    finally:
        waiting.clear()
        del work, given  # The queue keeps the error of a cancelled caller, and with it this frame.


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
