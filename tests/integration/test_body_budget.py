"""All bodies together are bounded: from their first byte until they are answered."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.acceptance.world import World
from tests.integration.api import (
    ALERTMANAGER,
    NATIVE,
    native_alert,
    notification,
    opened,
    problem,
    token_of,
    webhook_alert,
)
from tests.integration.test_every_route import BODIES, filled
from tests.servers import TestServers

LIMIT, BUDGET = 100_000, 400_000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def other(tmp_path: Path) -> dict[str, str]:
    """The header of a second token."""
    return token_of(tmp_path, "ingest")


@pytest.fixture
async def world(servers: TestServers, database: str, tmp_path: Path) -> AsyncIterator[World]:
    more = {"max_body": LIMIT, "body_budget": BUDGET, "webhook_secret": SECRET, "tokens_file": tmp_path / "tokens"}
    token = token_of(tmp_path, "admin")
    async with opened(servers, database, **more) as world:
        world.clients[0].headers.update(token)
        yield world


async def post(world: World, path: str, size: int, **headers: str) -> httpx.Response:
    """An alert that is padded to so many bytes."""
    alert = native_alert() if path == NATIVE else notification(webhook_alert(model="churn"))
    return await world.clients[0].post(path, content=json.dumps(alert).encode().ljust(size), headers=headers)


@asynccontextmanager
async def held(world: World, path: str, bodies: int, size: int, **headers: str) -> AsyncIterator[list[int]]:
    """So many bodies of which this many bytes have come, and then nothing. The statuses that were answered already."""
    over = asyncio.Event()
    statuses: list[int] = []

    async def unfinished() -> AsyncIterator[bytes]:
        yield b" " * size
        await over.wait()

    async def send() -> None:
        own = {**world.clients[0].headers, "Content-Type": "application/json"} | headers
        async with httpx.AsyncClient(transport=world.clients[0]._transport, base_url="http://localhost") as client:
            request = client.build_request("POST", path, content=unfinished(), headers=own)
            if not headers.get("Authorization", "x"):
                del request.headers["Authorization"]
            statuses.append((await client.send(request)).status_code)

    tasks = [asyncio.create_task(send()) for _ in range(bodies)]
    for _ in range(200):  # Every task has come to its wait, or to its end.
        await asyncio.sleep(0)
    try:
        yield statuses
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def test_large_bodies_over_the_budget_are_refused_and_small_ones_are_taken(world: World) -> None:
    async with held(world, ALERTMANAGER, 4, 95_000) as refused:
        assert refused == [503], "three quarters of the budget"
        answer = await post(world, ALERTMANAGER, 90_000)
        assert "GATEWAY_BODY_BUDGET" in problem(answer, 503, "unavailable")["detail"]
        assert answer.headers["retry-after"] == "5"
        for method, path in BODIES:
            answer = await world.clients[0].request(
                method, filled(path), content=b" " * 90_000, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code in (401, 404, 503), path
    assert (await post(world, ALERTMANAGER, 2_000)).status_code == 202
    assert (await post(world, ALERTMANAGER, 90_000)).status_code == 202


async def test_a_token_that_holds_all_that_it_may_leaves_room_for_another(other: dict[str, str], world: World) -> None:
    async with held(world, ALERTMANAGER, 4, 95_000) as refused:
        assert refused == [503], "three quarters of the budget"
        assert (await post(world, ALERTMANAGER, 90_000)).status_code == 503
        assert (await post(world, ALERTMANAGER, 70_000, **other)).status_code == 202
        async with held(world, ALERTMANAGER, 1, 60_000) as refused:
            assert refused == []
            assert (await post(world, ALERTMANAGER, 50_000)).status_code == 503, "seven eighths, with small bodies"
            assert (await post(world, ALERTMANAGER, 20_000, **other)).status_code == 202
    assert (await post(world, ALERTMANAGER, 90_000)).status_code == 202


async def test_senders_who_have_not_shown_who_they_are_do_not_use_up_the_budget(world: World) -> None:
    """A signed request needs no token, and its signature is judged when the body is there."""
    async with held(world, NATIVE, 4, 95_000, Authorization="") as refused:
        assert refused == [503, 503]
        assert (await post(world, ALERTMANAGER, 90_000)).status_code == 202


async def sent(
    world: World, body: bytes, gone: asyncio.Event, path: str = ALERTMANAGER, more: Mapping[str, str] | None = None
) -> int:
    """The status of the answer to a body whose sender hangs up at `gone`. Without the headers `more` it has the client's
    token."""
    answers: list[Any] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answers.append(message)

    client = world.clients[0]
    own = more if more is not None else {"authorization": client.headers["authorization"]}
    headers = [(b"host", b"localhost"), *((name.lower().encode(), value.encode()) for name, value in own.items())]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"headers": headers, "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
    await client._transport.app(scope | {"asgi": {"version": "3.0"}}, receive, send)  # type: ignore[attr-defined]
    return int(answers[0]["status"])


@pytest.mark.parametrize("size", [2_000, 80_000])
async def test_who_hangs_up_while_postgres_stalls_waits_no_longer_and_holds_no_bytes(
    world: World, database: str, size: int
) -> None:
    body = json.dumps(notification(webhook_alert(model="gone"))).encode().ljust(size)
    gone = asyncio.Event()
    holder = await asyncpg.connect(database)
    async with holder.transaction():
        await holder.execute("LOCK TABLE groups IN ACCESS EXCLUSIVE MODE")
        senders = [asyncio.create_task(sent(world, body, gone)) for _ in range(3)]
        done, _ = await asyncio.wait(senders, timeout=0.5)
        assert not done
        gone.set()
        async with asyncio.timeout(7):  # They would wait for 8 s.
            assert await asyncio.gather(*senders) == [400] * 3  # Nobody reads it.
        async with held(world, ALERTMANAGER, 3, 95_000) as refused:
            assert refused == [], "the budget is whole again"
    await holder.close()
    assert (await post(world, ALERTMANAGER, 2_000)).status_code == 202
