"""Senders that keep the gateway waiting: silent, half-sent, slow to read. Others are served meanwhile, and all ends."""

import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.kit.clock import monotonic
from demo.processes import launch, stop, wait_until
from tests import plain
from tests.integration.processes import START_SECONDS, WEBHOOK, Process, alert
from tests.servers import TestServers
from tests.sizes import size

pytestmark = pytest.mark.slow

# The command `serve`, with deadlines for people in a hurry.
PROGRAM = """
import json, sys
from app.bootstrap.settings import read_settings
from app.cli.serve import serve
from app.kit import log
from app.web.door import Limits
if __name__ == "__main__":
    log.configure()
    serve(read_settings(), workers=int(sys.argv[1]), loops=True, limits=Limits(**json.loads(sys.argv[2])))
"""
SHORT = {"head": 2.0, "body": 3.0, "idle": 2.0, "answer": 2.0}

SILENT = b""
HALF_A_HEAD = f"POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nX".encode()
HALF_A_BODY = f"POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{".encode()
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
EMPTY_LINES = b"\r\n" * 9
UNREAD_BODY = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"  # Answered before it is complete.


@asynccontextmanager
async def serving(
    process: Process, files: str, workers: int = 1, limits: dict[str, float] | None = None
) -> AsyncIterator[Process]:
    """`serve` with these limits of open files, as a shell sets them."""
    process.write_policy()
    program = process.folder / "serve.py"
    program.write_text(PROGRAM)
    run = [sys.executable, str(program), str(workers), json.dumps(limits or {})]
    log = process.folder / "serve.log"
    argv = ["/bin/sh", "-c", f'ulimit {files} && exec "$@"', "sh", *run]
    process.server = launch("trigger-gateway", argv, env=process.environment(), log=log, cwd=process.folder)
    try:
        await process.ready()
        yield process
    finally:
        await stop([process.server])


async def open_and_send(
    process: Process, sent: Sequence[bytes]
) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    connections = []
    for words in sent:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(words)
        connections.append((reader, writer))
    return connections


async def status(reader: asyncio.StreamReader) -> bytes:
    """The status of the next answer, which is read whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    if length := re.search(rb"(?i)\r\ncontent-length: (\d+)", head):
        await reader.readexactly(int(length[1]))
    return head[9:12]


async def ended(connections: Sequence[tuple[asyncio.StreamReader, asyncio.StreamWriter]], within: float) -> list[bytes]:
    """What each connection got until the gateway closed it."""

    async def rest(reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read()
        except ConnectionResetError:  # It had to make room.
            return b""

    async with asyncio.timeout(within):
        got = await asyncio.gather(*(rest(reader) for reader, _ in connections))
    for _, writer in connections:
        writer.close()
    return got


async def push(process: Process, model: str) -> None:
    """An honest sender, on a connection of its own."""
    async with plain.client(timeout=15) as client:
        answer = await client.post(process.url + WEBHOOK, json={"version": "4", "alerts": [alert(model)]})
    assert answer.status_code == 202, answer.text


def process_of(servers: TestServers, database: str, folder: Path) -> Process:
    return Process(folder, {"database_url": database, "redis_url": servers.valkey.url, "log_json": "true"})


async def test_silent_and_half_sent_connections_stop_nobody_and_end(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    files, workers, connections, limits = size(("-n 256", 2, 600, SHORT), ("-n 1024", 1, 2400, {}))
    kinds = [SILENT, HALF_A_HEAD, HALF_A_BODY, EMPTY_LINES, UNREAD_BODY]
    async with serving(process_of(servers, database, tmp_path), files, workers, limits) as process:
        held = []
        for number in range(10):
            held += await open_and_send(process, kinds * (connections // len(kinds) // 10))
            await push(process, f"model-{number}")
        slowest = max(limits.values()) if limits else 75.0
        got = await ended(held, within=slowest + START_SECONDS)
        statuses = {words[9:12] for words in got}
        assert statuses <= {b"", b"200", b"408"}
        assert b"408" in statuses
        for number in range(10):
            await push(process, f"model-{number}")
        assert [found["count"] for found in process.get("/api/v1/alerts")["items"]] == [2] * 10
        assert process.get("/readyz", verbose="")["policy"]["refused"] is None
    log = (tmp_path / "serve.log").read_text()
    assert "too many connections" in log
    assert "refused: the old policy stays" not in log
    assert "Traceback" not in log


async def test_who_has_just_begun_is_not_the_first_to_make_room(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    """An idle connection begins a request. Others sent a whole request with half of the next one behind it."""
    limits = {"connections": 20, "head": 60.0, "body": 60.0, "free": 60.0, "idle": 60.0}
    body = json.dumps({"alerts": [alert("honest")]}).encode()
    async with serving(process_of(servers, database, tmp_path), "-n 1024", limits=limits) as process:
        [(reader, writer)] = await open_and_send(process, [LIVEZ])
        assert await status(reader) == b"200"
        held = await open_and_send(process, [LIVEZ + half for half in (HALF_A_HEAD, HALF_A_BODY)] * 30)
        await push(process, "crowd")  # Such connections keep nobody out.
        [(reader, writer)] = await open_and_send(process, [LIVEZ])
        assert await status(reader) == b"200"
        held += await open_and_send(process, [LIVEZ + HALF_A_HEAD] * 15)
        await push(process, "crowd")  # By now it has let them all in.
        fields = f"Host: localhost\r\nExpect: 100-continue\r\nContent-Length: {len(body)}"
        writer.write(f"POST {WEBHOOK} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
        assert await status(reader) == b"100"
        held += await open_and_send(process, [SILENT] * 15)
        await push(process, "crowd")
        writer.write(body)
        async with asyncio.timeout(15):
            assert await status(reader) == b"202"
        for _, other in [*held, (reader, writer)]:
            other.close()


async def test_a_body_that_is_incomplete_when_the_gateway_stops_is_sent_again_by_its_sender(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    process = process_of(servers, database, tmp_path)
    async with serving(process, "-n 1024", limits={"last": 1.0}):
        held = await open_and_send(process, [HALF_A_BODY, LIVEZ + HALF_A_BODY, HALF_A_HEAD])
        await push(process, "churn")
        assert await asyncio.to_thread(process.end) == 0
        got = await ended(held, within=15)
    assert [words.count(b"HTTP/1.1 ") for words in got] == [1, 2, 0]
    for words in got[:2]:
        assert b"HTTP/1.1 503 " in words
        assert b"retry-after: " in words
    assert "Traceback" not in (tmp_path / "serve.log").read_text()


async def test_a_body_that_trickles_ends_early_and_a_slow_honest_one_is_taken(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    """A byte now and then does not help, however it is framed. An honest sender may have a link of a few KiB a second."""
    limits = {"free": 1.0, "body": 40.0}
    head = f"POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\n"
    fixed = f"{head}Content-Length: 4000000\r\n\r\n".encode()
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    async with serving(process_of(servers, database, tmp_path), "-n 1024", limits=limits) as process:

        async def trickle(begun: bytes, more: bytes) -> bytes:
            [(reader, writer)] = await open_and_send(process, [begun])
            while not (words := await _read_for(reader, 0.1)):
                writer.write(more)
            writer.close()
            return words

        body = json.dumps({"alerts": [alert(f"slow-{n}") | {"generatorURL": "x" * 400} for n in range(8)]}).encode()
        pieces = [body[start : start + 400] for start in range(0, len(body), 400)]
        framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]

        async def honest(begun: bytes, parts: Sequence[bytes]) -> bytes:
            [(reader, writer)] = await open_and_send(process, [begun])
            for part in parts:
                await asyncio.sleep(0.2)
                writer.write(part)
            got = await status(reader)
            writer.close()
            return got

        async with asyncio.timeout(35):
            *refused, first, second = await asyncio.gather(
                trickle(fixed, b"{"),
                trickle(chunked, b"1\r\n{\r\n"),
                honest(f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), pieces),
                honest(chunked, [*framed, b"0\r\n\r\n"]),
            )
        assert [words[9:12] for words in refused] == [b"408", b"408"]
        assert all(b"less than 512 bytes a second" in words for words in refused)
        assert (first, second) == (b"202", b"202")


@pytest.fixture
async def hurried(servers: TestServers, database: str, tmp_path: Path) -> AsyncIterator[Process]:
    async with serving(process_of(servers, database, tmp_path), "-Sn 300", limits=SHORT) as process:
        yield process


async def test_a_connection_is_held_no_longer_than_it_may_keep_us_waiting(hurried: Process) -> None:
    """The soft limit of open files is raised; and each way to wait has an end, with a reason where a request has begun."""
    assert _open_files(hurried.pid) > 300

    began = monotonic()
    kinds = [SILENT, HALF_A_HEAD, HALF_A_BODY, EMPTY_LINES, UNREAD_BODY]
    got = await ended(await open_and_send(hurried, kinds), within=20)
    assert [words[9:12] for words in got] == [b"", b"408", b"408", b"", b"200"]
    assert monotonic() - began > 2
    assert b'"code": "too_slow"' in got[1]
    # A byte now and then does not help.
    [(reader, writer)] = await open_and_send(hurried, [HALF_A_HEAD])
    async with asyncio.timeout(20):
        while not reader.at_eof() and not (words := await _read_for(reader, 0.2)):
            writer.write(b"x")
    assert words[9:12] == b"408"
    writer.close()

    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", hurried.port))
        slow.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 90)

        async def cut_off() -> bool:
            return not _established(hurried.port, slow.getsockname()[1])

        assert not await cut_off()
        await wait_until("the sender that does not read to be cut off", cut_off, within=30)
    await push(hurried, "churn")


async def _read_for(reader: asyncio.StreamReader, seconds: float) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(65536), seconds)
    except TimeoutError:
        return b""


def _open_files(pid: int) -> int:
    """The soft limit."""
    return int(Path(f"/proc/{pid}/limits").read_text().partition("Max open files")[2].split()[0])


def _established(port: int, remote: int) -> bool:
    """Whether the gateway has this connection open, as the kernel sees it. Source: proc(5), /proc/net/tcp."""
    table = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    ends = [line.split()[1:4] for line in table.splitlines()]
    return any(
        mine.endswith(f":{port:04X}") and far.endswith(f":{remote:04X}") and state == "01" for mine, far, state in ends
    )
