"""The event loop of these tests."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """That of `serve`, which takes a sixth less time than Python's own."""
    return {"uvloop": uvloop.new_event_loop}
