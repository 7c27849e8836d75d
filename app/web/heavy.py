"""Heavy bodies: those that take long to read. They are read in a thread, and their values are counted before that.

A body of 4 MiB can hold a million empty objects, or a hundred thousand faults. Read at once it would stop every other
request for seconds. One thread reads them one after the other, so memory holds the parts of one such body only.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

LARGE: Final = 65536  # bytes
_MANY: Final = 500  # objects
MOST_DEPTH: Final = 32  # of any JSON that is kept: a person can read no more, and a parser on its way may stop at less

_thread = ThreadPoolExecutor(1, thread_name_prefix="heavy-bodies")


def is_heavy(raw: bytes) -> bool:
    """Whether a body is read aside."""
    return len(raw) > LARGE or raw.count(b"{") > _MANY


async def aside(work: Callable[..., Result], *given: Any) -> Result:
    """The result of `work(*given)`, or its error, from the thread for heavy bodies."""
    return await asyncio.get_running_loop().run_in_executor(_thread, work, *given)


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
