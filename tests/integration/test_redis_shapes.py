"""Redis as people run it, broken in the middle of a storm: a failover that loses writes, a Cluster that loses masters."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.processes import wait_until
from tests.integration.processes import Process, Storm, running
from tests.integration.redis_shapes import sharded, watched
from tests.integration.test_storm import fetch
from tests.servers import TestServers
from tests.sizes import seed, size

GROUPS = 20
INSTANCES = 3  # alerts a group


class Raging:
    """A storm that goes on, however fast, until the test has seen what it waits for."""

    def __init__(self, *gateways: Process) -> None:
        self.seed = seed()
        self.storm = Storm([gateway.url for gateway in gateways], random.Random(self.seed))
        self._over = False

    def _bodies(self) -> Iterator[dict[str, Any]]:
        while not self._over:
            yield self.storm.body(GROUPS, INSTANCES)

    async def notified(self, more: int) -> None:
        """Wait until so many more notifications were acknowledged."""
        goal = self.storm.done() + more

        async def reached() -> bool:
            return self.storm.done() >= goal

        await wait_until(f"{more} more notifications", reached, within=size(120, 900), interval=0.02)

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        raging = asyncio.create_task(self.storm.rage(self._bodies(), senders=4))
        try:
            yield
        finally:
            self._over = True
            await raging


async def verdict(storm: Storm, database: str) -> None:
    """Exactly one trigger a group, no error answers, nothing acknowledged missing, nothing counted twice."""
    assert set(storm.statuses) == {"202"}, storm.statuses
    triggers = await fetch(database, "SELECT group_key, count(*) AS n FROM triggers GROUP BY group_key")
    assert [row["n"] for row in triggers] == [1] * len({name.split("/")[0] for name in storm.acknowledged})
    found = await fetch(database, "SELECT fingerprint, sum(count)::bigint AS n FROM alerts GROUP BY fingerprint")
    assert {row["fingerprint"]: row["n"] for row in found} == dict(storm.acknowledged), (
        "nothing failed: counts are exact"
    )


def replicas(folder: Path, database: str, redis_url: str) -> list[Process]:
    made = []
    for n in range(2):
        (folder / f"{n}").mkdir()
        variables = {"database_url": database, "redis_url": redis_url, "log_level": "warning"}
        made.append(Process(folder / f"{n}", variables))
    return made


async def readyz_says(gateways: list[Process], words: str) -> None:
    """Wait until /readyz of each says this of Redis. It is 200 whatever it says."""

    async def all_say_so() -> bool:
        return all(words in gateway.get("/readyz")["checks"]["redis"] for gateway in gateways)

    await wait_until(f"/readyz to say {words}", all_say_so, within=60)


@pytest.mark.slow
async def test_a_failover_that_loses_writes_in_the_middle_of_a_storm_costs_nothing_that_counts(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    """The replica loses its connection, the master goes on and dies, the replica is promoted with an old memory. One of the
    Sentinels hangs all the while."""
    async with watched(tmp_path) as shape:
        gateways = replicas(tmp_path, database, shape.url)
        async with running(*gateways):
            await readyz_says(gateways, "ok")
            raging = Raging(*gateways)
            async with raging.going():
                await raging.notified(size(150, 5_000))
                shape.sentinels[0].signal(signal.SIGSTOP)
                shape.replica.signal(signal.SIGSTOP)
                await shape.master.ask("CLIENT", "KILL", "TYPE", "replica")
                await shape.master.ask("SET", "lost", "1")
                await raging.notified(size(150, 5_000))
                held = await shape.master.ask("DBSIZE")
                shape.master.kill()
                await readyz_says(gateways, "away (sentinel: ")
                await raging.notified(50)
                shape.replica.signal(signal.SIGCONT)
                await wait_until("the failover", shape.promoted, within=120)
                assert await shape.replica.ask("GET", "lost") is None, "the failover lost no write"
                await readyz_says(gateways, "ok")
                await raging.notified(size(150, 5_000))
                used = await shape.replica.ask("DBSIZE")
            print({"seed": raging.seed, "keys": held, "keys_after": used, **figures(raging.storm)})
            assert used > 0, "the new master is used"
            assert raging.storm.slowest < 8, "503 after 8 s at most; this was none"
    await verdict(raging.storm, database)


@pytest.mark.slow
async def test_a_cluster_that_loses_masters_in_the_middle_of_a_storm_costs_nothing_that_counts(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    """The first master's replica takes over; the second master has none, so that the Cluster is down until it is back."""
    async with sharded(tmp_path) as shape:
        gateways = replicas(tmp_path, database, shape.url)
        async with running(*gateways):
            await readyz_says(gateways, "ok")
            raging = Raging(*gateways)
            async with raging.going():
                await raging.notified(size(150, 5_000))
                spread = [await master.ask("DBSIZE") for master in shape.masters]
                assert all(spread), "keys lie on every master"
                shape.masters[0].kill()
                await raging.notified(50)
                await wait_until("the replica to take over", shape.promoted, within=120)
                await readyz_says(gateways, "ok")
                await raging.notified(50)
                shape.masters[1].kill()
                await readyz_says(gateways, "away (cluster: ")
                await raging.notified(50)
                shape.masters[1].begin()
                await readyz_says(gateways, "ok")
                await raging.notified(size(150, 5_000))
            print({"seed": raging.seed, "keys": spread, **figures(raging.storm)})
    await verdict(raging.storm, database)


def figures(storm: Storm) -> dict[str, Any]:
    return {
        "notifications": storm.done(),
        "alerts": storm.acknowledged.total(),
        "slowest": round(storm.slowest, 2),
        "answers": dict(storm.statuses),
    }
