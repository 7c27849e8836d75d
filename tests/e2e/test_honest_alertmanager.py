"""A real Alertmanager is never refused by the limits of the gateway: neither its large notifications, nor those that come
over a slow link or after a pause on the same connection, while others keep bodies and connections open."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.kit.embedded.processes import free_ports
from demo.processes import wait_until
from tests import plain
from tests.e2e.processes import Process, require_binary, write_yaml
from tests.integration.processes import START_SECONDS, WEBHOOK, running
from tests.integration.processes import Process as Gateway
from tests.servers import TestServers
from tests.sizes import size

MANY = 150  # alerts in one notification: more than 64 KiB
SLOW = 2_000  # bytes a second, as over a modem


@dataclass
class TwoWays(Process):
    """An Alertmanager that sends every notification to `direct`, and those of the model `far` to `slow` too."""

    direct: str
    slow: str

    def __post_init__(self) -> None:
        self.name, self.ready_path = "alertmanager", "/-/ready"

    def command(self) -> list[str | Path]:
        quick = {"group_by": ["alertname"], "group_wait": "100ms", "group_interval": "2s", "repeat_interval": "2s"}
        far = {"receiver": "slow", "matchers": ['model="far"'], "continue": True}
        receivers = [{"name": name, "webhook_configs": [{"url": getattr(self, name)}]} for name in ("direct", "slow")]
        routes = [far, {"receiver": "direct"}]
        config = {"route": {"receiver": "direct", "routes": routes, **quick}, "receivers": receivers}
        file = write_yaml(self.folder / "alertmanager.yml", config)
        options = [f"--config.file={file}", f"--storage.path={self.folder / 'data'}", "--cluster.listen-address="]
        return [require_binary("prometheus-alertmanager"), *options, f"--web.listen-address=127.0.0.1:{self.port}"]

    def notifications(self) -> tuple[int, int]:
        """How many requests it has sent, and how many of them failed, by its own count."""
        page = plain.get(f"{self.url}/metrics").text

        def count(name: str) -> int:
            return sum(int(float(n)) for n in re.findall(rf'^{name}{{.*integration="webhook".*}} (\S+)$', page, re.M))

        return (
            count("alertmanager_notification_requests_total"),
            count("alertmanager_notification_requests_failed_total"),
        )


@asynccontextmanager
async def slow_link(port: int) -> AsyncIterator[int]:
    """A port that passes everything on to `port`, slowly towards it."""

    async def passes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int) -> None:
        while data := await reader.read(rate // 10):
            writer.write(data)
            await asyncio.sleep(len(data) / rate)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        with suppress(OSError):
            await asyncio.gather(passes(reader, back, SLOW), passes(there, writer, 1_000_000))

    server = await asyncio.start_server(connected, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def bodies_without_end(port: int, number: int) -> AsyncIterator[None]:
    """So many connections that have sent half a body each, again as soon as one is closed."""

    async def hold() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"
            writer.write(head.encode() + b"{" * 200_000)
            with suppress(OSError):
                await reader.read()
            writer.close()

    holding = [asyncio.create_task(hold()) for _ in range(number)]
    try:
        yield
    finally:
        for task in holding:
            task.cancel()


async def test_a_real_alertmanager_is_never_refused(servers: TestServers, database: str, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, {"database_url": database, "redis_url": servers.valkey.url})
    labels = {"alertname": "ModelAccuracyLow", "severity": "critical"}
    many = [{"labels": labels | {"model": f"m{number}", "note": "x" * 400}} for number in range(MANY)]
    # Its own group, by its name: a notification of 5 KB takes the slow link some seconds.
    far = [{"labels": labels | {"alertname": "Far", "model": "far", "note": str(n) * 900}} for n in range(4)]
    rounds = size(4, 25)
    async with running(gateway), slow_link(gateway.port) as slow, bodies_without_end(gateway.port, 12):
        hooks = (gateway.url + WEBHOOK, f"http://127.0.0.1:{slow}{WEBHOOK}")
        manager = TwoWays(tmp_path / "alertmanager", free_ports(1)[0], *hooks)
        await asyncio.to_thread(manager.start)
        try:
            async with plain.client(base_url=manager.url) as client:
                assert (await client.post("/api/v2/alerts", json=many + far)).status_code == 200

            async def sent() -> bool:
                return (await asyncio.to_thread(manager.notifications))[0] >= 3 * rounds

            await wait_until("the notifications to be sent", sent, within=START_SECONDS + 10 * rounds)
            _, failed = await asyncio.to_thread(manager.notifications)
            assert failed == 0
        finally:
            await asyncio.to_thread(manager.stop)
        for model in ("m0", f"m{MANY - 1}", "far"):
            found = await asyncio.to_thread(gateway.get, "/api/v1/alerts", label=f"model={model}")
            assert found["items"], model
            assert all(item["count"] >= 2 for item in found["items"])
