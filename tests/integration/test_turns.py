"""Tokens take turns at the thread that reads heavy bodies: nobody waits for all that another one sent."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.web.heavy import aside
from mlflow_spool.records import API
from tests.integration.api import ALERTMANAGER, notification, opened, problem, token_of, webhook_alert, word
from tests.servers import TestServers
from tests.sizes import size

METADATA = "/api/v1/metadata"
BODIES, ENTRIES = size((24, 1_500), (26, 9_990))


@asynccontextmanager
async def busy() -> AsyncIterator[None]:
    """The thread works for another token meanwhile. So a test does not depend on how fast it reads."""
    free = threading.Event()
    reading = asyncio.create_task(aside("another", free.wait, 60, within=60))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        free.set()
        assert await reading


def slow() -> bytes:
    """A body whose faults take long to name."""
    many = {"labels": {name: {} for name in "abcdef"}, "annotations": dict.fromkeys("abcdef", 1), "status": 1}
    return json.dumps(notification(*([many] * ENTRIES)), separators=(",", ":")).encode()


def record(number: int) -> dict[str, Any]:
    key = f"{number:032x}"
    tags = [{"key": "mlflow_spool.run_key", "value": key}]
    call = {"method": "POST", "path": f"{API}/runs/create", "body": {"experiment_id": "0", "tags": tags}}
    return (
        {"schema": 1, "key": key, "seq": number, "stream": f"run:spool-{key}", "kind": "create run"}
        | call
        | {"made_at": 1_800_000_000_000}
    )


#: Bodies that are read and kept at once. Spaces make them heavy.
OTHERS: dict[str, tuple[str, Any]] = {
    "an alert": (ALERTMANAGER, notification(webhook_alert(model="x"))),
    "a report": (METADATA, {"component": "training", "state": "started", "run": "x"}),
    "a hand-over": (METADATA, {"records": [record(1)]}),
}


async def test_the_heavy_bodies_of_one_token_do_not_hold_up_those_of_another(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    token, other = token_of(tmp_path, "ingest"), token_of(tmp_path, "ingest", "metadata")
    async with opened(servers, database, tokens_file=tmp_path / "tokens") as world:
        ended: list[str] = []  # Those that were read: others were told in time that they are not.

        async def post(name: str, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
            json_of_it = {"Content-Type": "application/json"}
            answer = await world.clients[0].post(path, content=body, headers=headers | json_of_it)
            if answer.status_code != 503:
                ended.append(name)
            return answer

        body = slow()
        async with busy():
            many = [asyncio.create_task(post("slow", ALERTMANAGER, body, token)) for _ in range(BODIES)]
            for _ in range(200):  # Each of them has come to its wait.
                await asyncio.sleep(0)
            few = [
                asyncio.create_task(post(name, path, json.dumps(value).encode().ljust(70_000), other))
                for name, (path, value) in OTHERS.items()
            ]
            for _ in range(200):
                await asyncio.sleep(0)
        for answer in await asyncio.gather(*few):
            assert answer.status_code == 202, answer.text
        assert ended.count("slow") < BODIES * 3 / 4
        assert {answer.status_code for answer in await asyncio.gather(*many)} <= {422, 503}


async def test_a_short_body_with_many_entries_is_read_aside_too(servers: TestServers, database: str) -> None:
    few, many = (notification(webhook_alert(model=word()), *([1] * number)) for number in (499, 9_000))
    async with opened(servers, database, intake_timeout=0.5) as world, busy():
        problem(await world.post(ALERTMANAGER, many), 503, "not_durable")
        async with asyncio.timeout(30):  # A busy machine may need several tries.
            while (answer := await world.post(ALERTMANAGER, few)).status_code == 503:
                pass
        assert answer.status_code == 202


async def test_a_body_that_is_not_read_in_time_is_refused_and_may_come_again(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    """The time counts from the arrival of the request."""
    token = token_of(tmp_path, "ingest")
    async with opened(servers, database, tokens_file=tmp_path / "tokens", intake_timeout=1.0) as world:
        world.clients[0].headers.update(token)
        body = notification(*(webhook_alert(model="x", place="y" * 400) for _ in range(200)))
        async with busy():
            began = asyncio.get_running_loop().time()
            answer = await world.post(ALERTMANAGER, body)
            took = asyncio.get_running_loop().time() - began
            detail = problem(answer, 503, "not_durable")["detail"]
            assert "too many large bodies wait to be read" in detail
            assert answer.headers["retry-after"] == "5"
            assert took < 4, "a busy machine may need longer than a second"
        async with asyncio.timeout(60):
            while (answer := await world.post(ALERTMANAGER, body)).status_code == 503:
                pass
        assert answer.status_code == 202
