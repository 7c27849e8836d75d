"""Twenty attacks at once on a running `serve`, with limits on its memory and its open files, while an honest Alertmanager
sends. The figures stand in docs/operations/security.md."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.kit.clock import monotonic
from demo.processes import launch, stop, wait_until
from tests import plain
from tests.integration.api import token_of
from tests.integration.processes import START_SECONDS, WEBHOOK, Process, alert
from tests.servers import TestServers
from tests.sizes import PROVE, size

pytestmark = pytest.mark.slow

MOST_MEMORY = 700  # MiB of the process, as docs/operations/security.md says
ADDRESSES = 2048  # MiB that it may map, which is the limit that the kernel keeps; most of them are never touched
NATIVE = "/api/v1/alerts"
BIG = 4 * 2**20 - 1000


def request(path: str, body: bytes = b"", *fields: str, length: int | None = None) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *fields]
    return "\r\n".join([*head, f"Content-Length: {len(body) if length is None else length}", "", ""]).encode() + body


def bodies() -> dict[str, bytes]:
    """What senders with a token send, each in one request."""
    labels = {f"a{number}": 1 for number in range(300_000)}
    fat = {f"l{number}": "x" * 4000 for number in range(120)}
    many = {"alerts": [alert(f"m{number % 50}", instance=str(number)) for number in range(size(300, 9_000))]}
    return {
        "empty alerts": request(WEBHOOK, b'{"alerts":[' + b",".join([b"{}"] * (BIG // 3)) + b"]}"),
        "empty native alerts": request(NATIVE, b"[" + b",".join([b"{}"] * (BIG // 3)) + b"]"),
        "numeric labels": request(WEBHOOK, json.dumps({"alerts": [alert("x") | {"labels": labels}]}).encode()),
        "unknown members": request(NATIVE, json.dumps([labels]).encode()),
        "bad params": request(
            "/api/v1/metadata",
            json.dumps({"component": "a", "state": "started", "run": "1", "params": labels}).encode(),
        ),
        "a deep conf": request(
            "/api/v1/triggers", b'{"route":"accuracy","reason":"x","conf":' + b'{"a":' * 900 + b"1" + b"}" * 901
        ),
        "a long time": request(WEBHOOK, json.dumps({"alerts": [alert("x") | {"startsAt": "9" * 2_000_000}]}).encode()),
        "fat alerts": request(WEBHOOK, json.dumps({"alerts": [alert("x") | {"labels": fat}] * 8}).encode()),
        "many good alerts": request(WEBHOOK, json.dumps(many).encode()),
        "nested": request(NATIVE, b"[" * 1_000_000),
    }


def half_sent() -> dict[str, bytes]:
    """What comes and then stops, or never ends: each byte string is sent again and again."""
    return {
        "a head without end": b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        "a long target": b"GET /" + b"x" * 1_000_000,
        "silence": b"",
        "half a body without a token": request("/api/v1/triggers", b"x" * 300_000, length=BIG),
        "half a body for metadata": request("/api/v1/metadata", b"x" * 300_000, length=BIG),
        "bad JSON without a token": request("/api/v1/promotions", b"{" * 200_000),
        "a trickle": request(WEBHOOK, b"{", length=BIG),
        "trailers": b"POST /api/v1/alerts HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"X: y\r\n" * 9_999,
        "garbage": os.urandom(100_000),
    }


def resident(pid: int) -> int:
    """MiB in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


async def attack(port: int, words: bytes, token: str, until: float) -> None:
    """Send it on new connections until the end; what comes back is dropped."""
    words = words.replace(b"\r\nHost: localhost\r\n", f"\r\nHost: localhost\r\n{token}".encode(), 1)
    while monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            async with asyncio.timeout(min(12.0, max(until - monotonic(), 0.1))):
                await writer.drain()
                await reader.read(65536)
            writer.close()
        except (OSError, TimeoutError):
            continue


async def slow_reader(port: int, token: str, until: float) -> None:
    """Asks for large pages, and takes nothing."""
    while monotonic() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(f"GET /api/v1/alerts?limit=1000 HTTP/1.1\r\nHost: localhost\r\n{token}\r\n".encode() * 5)
        await asyncio.sleep(min(5.0, max(until - monotonic(), 0)))
        writer.close()
        del reader


def begun(servers: TestServers, database: str, folder: Path) -> Process:
    """`serve` with limits of its memory and its open files."""
    variables = {"database_url": database, "redis_url": servers.valkey.url, "tokens_file": str(folder / "tokens")}
    process = Process(folder, variables)
    process.write_policy()
    program = [str(Path(sys.executable).with_name("trigger-gateway")), "serve"]
    argv = ["/bin/sh", "-c", f'ulimit -n 512 && ulimit -v {ADDRESSES * 1024} && exec "$@"', "sh", *program]
    process.server = launch("trigger-gateway", argv, env=process.environment(), log=folder / "serve.log", cwd=folder)
    return process


async def test_twenty_attacks_at_once_stop_no_honest_sender(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    seconds, patience = size((6.0, 20.0), (60.0, 2.0))  # A busy machine is no measure for two seconds.
    token = "".join(f"{name}: {value}\r\n" for name, value in token_of(tmp_path, "admin").items())
    process = begun(servers, database, tmp_path)
    honest = plain.client(base_url=process.url, timeout=60, headers=token_headers(token))
    slowest, sent, most = 0.0, 0, 0
    with_token, without = bodies(), half_sent()  # To make them takes seconds, which are none of the attack.
    try:
        await process.ready()
        before = resident(process.pid)
        until = monotonic() + seconds
        attacks: list[Callable[[], Coroutine[Any, Any, None]]] = [
            partial(attack, process.port, words, token, until) for words in with_token.values()
        ]
        attacks += [partial(attack, process.port, words, "", until) for words in without.values()]
        attacks += [partial(slow_reader, process.port, token, until)]
        assert len(attacks) == 20
        under_way = [asyncio.create_task(each()) for each in attacks]
        while monotonic() < until:
            began = monotonic()
            body = {"version": "4", "alerts": [alert(f"honest-{sent}")]}
            while (answer := await honest.post(WEBHOOK, json=body)).status_code == 503:
                assert monotonic() - began < patience, answer.text
            assert answer.status_code == 202, answer.text
            slowest, sent, most = max(slowest, monotonic() - began), sent + 1, max(most, resident(process.pid))
            await asyncio.sleep(0.1)
        await asyncio.gather(*under_way)
        print(
            f"attacks: {sent} honest notifications, the slowest {slowest:.2f} s; {before} -> {most} MiB",
            file=sys.stderr,
        )
        assert slowest < patience
        assert most < MOST_MEMORY
        for number in range(sent):
            found = await honest.get("/api/v1/alerts", params={"label": f"model=honest-{number}"})
            assert len(found.json()["items"]) == 1

        async def well() -> bool:
            return (await honest.get("/readyz")).status_code == 200 and resident(process.pid) < MOST_MEMORY

        await wait_until("everything to be well again", well, within=30 if PROVE else START_SECONDS)
        began = monotonic()
        assert (await honest.post(WEBHOOK, json={"alerts": [alert("after")]})).status_code == 202
        assert monotonic() - began < patience
    finally:
        await honest.aclose()
        await stop([process.server] if process.server else [])
    assert "Traceback" not in (tmp_path / "serve.log").read_text()


async def test_eighty_large_bodies_and_a_postgres_that_stalls_take_little_memory(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    """Those that find no room are refused at once, and may come again. Nobody is told that an alert is durable."""
    headers = token_of(tmp_path, "ingest")
    process = begun(servers, database, tmp_path)
    labels = {f"l{number}": "x" * 3_900 for number in range(110)}
    bodies = [
        json.dumps({"alerts": [alert(f"fat-{number}-{n}") | {"annotations": labels} for n in range(9)]}).encode()
        for number in range(size(24, 80))
    ]
    assert len(bodies[0]) > 3_700_000
    blocker = await asyncpg.connect(database)
    try:
        await process.ready()
        before = most = resident(process.pid)
        async with (
            plain.client(base_url=process.url, headers=headers, timeout=60) as client,
            blocker.transaction(),
        ):
            await blocker.execute("LOCK TABLE groups IN ACCESS EXCLUSIVE MODE")
            sending = [asyncio.create_task(client.post(WEBHOOK, content=body)) for body in bodies]
            while not all(task.done() for task in sending):
                most = max(most, resident(process.pid))
                await asyncio.sleep(0.1)
            assert {task.result().status_code for task in sending} == {503}
        print(f"attacks: a stalled Postgres; {before} -> {most} MiB", file=sys.stderr)
        assert most < MOST_MEMORY
        async with plain.client(base_url=process.url, headers=headers, timeout=60) as client:
            assert (await client.post(WEBHOOK, content=bodies[0])).status_code == 202
    finally:
        await blocker.close()
        await stop([process.server] if process.server else [])


def token_headers(line: str) -> dict[str, str]:
    name, _, value = line.strip().partition(": ")
    return {name: value}
