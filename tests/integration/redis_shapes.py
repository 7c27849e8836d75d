"""Redis as people run it, from the wheel's Valkey: a master that Sentinels watch, a Cluster; and Debian's with TLS."""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from redis import asyncio as aioredis

from app.kit.embedded.processes import free_ports
from app.kit.embedded.valkey import valkey_program
from demo.processes import Server, clean_environment, launch, stop, wait_until

PASSWORD = "s@cret/#1:x"  # What a password may hold, and a URL must not be broken by.
SENTINEL_PASSWORD = "watch&me"
START_SECONDS = 60.0
SLOTS = 16384


@dataclass
class Node:
    """One server process on loopback, with PASSWORD unless it is a Sentinel."""

    folder: Path
    name: str
    arguments: Sequence[str] = ()
    port: int = field(default_factory=lambda: free_ports(1)[0])
    password: str = PASSWORD
    program: str = field(default_factory=valkey_program)
    server: Server | None = None

    @property
    def address(self) -> tuple[bytes, int]:
        return b"127.0.0.1", self.port

    def begin(self) -> None:
        own = self.folder / self.name
        own.mkdir(exist_ok=True)
        usual = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(own), "--save", ""]
        secrets = ["--requirepass", self.password, "--masterauth", self.password]
        command = [self.program, *self.arguments, *([] if "--sentinel" in self.arguments else [*usual, *secrets])]
        self.server = launch(self.name, command, env=clean_environment(), log=own / "log", cwd=own)

    def client(self) -> "aioredis.Redis":
        # A command that gets no answer in time is sent again, and the second CLUSTER ADDSLOTSRANGE is an error.
        return aioredis.Redis(
            port=self.port, password=self.password, decode_responses=True, socket_timeout=START_SECONDS
        )

    async def ask(self, *command: Any) -> Any:
        async with self.client() as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def ready(self) -> None:
        assert self.server is not None

        async def answers() -> bool:
            try:
                return bool(await self.ask("PING"))
            except redis.RedisError:
                return False

        await wait_until(f"{self.name} to answer", answers, within=START_SECONDS, servers=[self.server], interval=0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self.server is not None
        os.kill(self.server.process.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        assert self.server is not None
        self.server.process.wait(timeout=10)


@asynccontextmanager
async def running_nodes(nodes: Sequence[Node]) -> AsyncIterator[None]:
    try:
        for node in nodes:
            node.begin()
        for node in nodes:
            await node.ready()
        yield
    finally:
        for node in nodes:
            if node.server is not None and node.server.exit_code is None:
                node.signal(signal.SIGCONT)
        await stop([node.server for node in nodes if node.server is not None])


@dataclass
class Watched:
    """A master, its replica, and three Sentinels that know the master as `memory`."""

    master: Node
    replica: Node
    sentinels: list[Node]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        login = f"?sentinel_password={quote(SENTINEL_PASSWORD)}"
        return f"redis+sentinel://:{quote(PASSWORD, safe='')}@{hosts}/memory/0{login}"

    async def replicating(self) -> bool:
        state = await self.replica.ask("INFO", "replication")
        return bool(state["master_link_status"] == "up")

    async def promoted(self) -> bool:
        """Whether the replica is the master, and the last two Sentinels say so."""
        if (await self.replica.ask("ROLE"))[0] != "master":
            return False
        addresses = [
            await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "memory") for sentinel in self.sentinels[1:]
        ]
        return all(int(address[1]) == self.replica.port for address in addresses)


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    master = Node(folder, "master")
    replica = Node(folder, "replica", ["--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0"])
    sentinels = []
    for n, port in enumerate(free_ports(3)):
        own = folder / f"sentinel-{n}"
        own.mkdir()
        (own / "conf").write_text(
            f'port {port}\nbind 127.0.0.1\ndir {own}\nrequirepass "{SENTINEL_PASSWORD}"\n'
            f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"\n'
            f"sentinel monitor memory 127.0.0.1 {master.port} 2\n"
            f'sentinel auth-pass memory "{PASSWORD}"\n'
            "sentinel down-after-milliseconds memory 1000\nsentinel failover-timeout memory 5000\n"
        )
        sentinels.append(Node(folder, own.name, [str(own / "conf"), "--sentinel"], port, SENTINEL_PASSWORD))
    shape = Watched(master, replica, sentinels)
    async with running_nodes([master, replica, *sentinels]):
        await wait_until("the replica", shape.replicating, within=START_SECONDS)

        async def known() -> bool:
            masters = [await sentinel.ask("SENTINEL", "MASTER", "memory") for sentinel in sentinels]
            return all((m["num-other-sentinels"], m["num-slaves"]) == ("2", "1") for m in masters)

        await wait_until("the Sentinels to know each other and the replica", known, within=START_SECONDS)
        yield shape


@dataclass
class Sharded:
    """Three masters with a third of the slots each, and a replica of the first."""

    masters: list[Node]
    replica: Node

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{master.port}" for master in self.masters)
        return f"redis+cluster://:{quote(PASSWORD, safe='')}@{hosts}"

    async def promoted(self) -> bool:
        """Whether the replica has taken over the slots of the first master, and the others say so."""
        slot_tables = [await node.ask("CLUSTER", "SLOTS") for node in (self.masters[1], self.masters[2], self.replica)]
        well = ["cluster_state:ok" in await node.ask("CLUSTER", "INFO") for node in self.masters[1:]]
        return all(well) and all(self.replica.port in {int(part[2][1]) for part in slots} for slots in slot_tables)


@asynccontextmanager
async def sharded(folder: Path) -> AsyncIterator[Sharded]:
    nodes = []
    for n in range(4):
        port, bus = free_ports(2)
        more = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "1500"]
        nodes.append(Node(folder, f"node-{n}", [*more, "--repl-diskless-sync-delay", "0"], port))
    *masters, replica = nodes
    async with running_nodes(nodes):
        for n, master in enumerate(masters):
            await master.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            await master.ask("CLUSTER", "ADDSLOTSRANGE", SLOTS * n // 3, SLOTS * (n + 1) // 3 - 1)
        for node in nodes[1:]:
            await node.ask("CLUSTER", "MEET", "127.0.0.1", masters[0].port, _bus(masters[0]))

        async def met() -> bool:
            infos = [await node.ask("CLUSTER", "INFO") for node in nodes]
            return all("cluster_known_nodes:4" in t and "cluster_state:ok" in t for t in infos)

        await wait_until("the nodes to meet", met, within=START_SECONDS)
        await replica.ask("CLUSTER", "REPLICATE", await masters[0].ask("CLUSTER", "MYID"))
        shape = Sharded(masters, replica)

        async def replicating() -> bool:
            return bool((await replica.ask("INFO", "replication"))["master_link_status"] == "up")

        await wait_until("the replica", replicating, within=START_SECONDS)
        yield shape


def _bus(node: Node) -> str:
    return node.arguments[list(node.arguments).index("--cluster-port") + 1]
