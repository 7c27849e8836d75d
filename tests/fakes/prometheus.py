"""A Prometheus as its HTTP API shows it: the test says what it answers to the next questions."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx

from tests.fakes.clock import ManualClock


class FakePrometheus:
    """`queries` are the questions that came; `says` answers one. `hangs` keeps every question waiting until it is set."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.queries: list[str] = []
        self.says: Callable[[str], Any] = lambda _: self.vector(0.7)
        self.hangs: asyncio.Event | None = None

    def vector(self, *values: Any) -> dict[str, Any]:
        """An instant vector of these values, of now."""
        result = [{"metric": {}, "value": [self.clock.now().timestamp(), str(value)]} for value in values]
        return {"status": "success", "data": {"resultType": "vector", "result": result}}

    def transport(self) -> httpx.AsyncBaseTransport:
        async def answer(request: httpx.Request) -> httpx.Response:
            assert (request.method, request.url.path) == ("GET", "/api/v1/query")
            query = request.url.params["query"]
            self.queries.append(query)
            if self.hangs is not None:
                await self.hangs.wait()
            answer = self.says(query)
            if isinstance(answer, Exception):
                raise answer
            status, body = answer if isinstance(answer, tuple) else (200, answer)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return httpx.Response(status, content=content, headers={"Content-Type": "application/json"})

        return httpx.MockTransport(answer)
