"""Four gateway processes, one Postgres, one Valkey: a storm, a flush and a kill -9, and exactly one trigger a group."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from app.kit.clock import monotonic
from demo.processes import wait_until
from tests import plain
from tests.integration.processes import Process, Storm, running, serve_airflow
from tests.servers import TestServers
from tests.sizes import seed, size

GROUPS = 50
INSTANCES = 4  # alerts a group
METRICS = ("gateway_batch_retries_total", "gateway_memory_stale_total", "gateway_not_durable_total")


def processes(folder: Path, database: str, redis_url: str, airflow: str, number: int) -> list[Process]:
    variables = {"database_url": database, "redis_url": redis_url, "follow_interval": "5", "log_level": "warning"}
    made = []
    for n in range(number):
        own = folder / f"{n}"
        own.mkdir()
        made.append(Process(own, variables, airflow=airflow))
    return made


def notifications(storm: Storm, number: int) -> list[dict[str, Any]]:
    """Every group at least once; a third of them told by both Alertmanagers of an HA pair."""
    bodies: list[dict[str, Any]] = []
    prefix = f"m{storm.chance.randrange(10**9)}"
    seen: set[str] = set()
    while len(bodies) < number or len(seen) < GROUPS:
        body = storm.body(GROUPS, INSTANCES, prefix)
        seen.add(body["alerts"][0]["labels"]["model"])
        bodies += [body, body] if storm.chance.random() < 1 / 3 else [body]
    return bodies


async def fetch(database: str, statement: str) -> Sequence[Any]:
    connection = await asyncpg.connect(database)
    try:
        found: Sequence[Any] = await connection.fetch(statement)
    finally:
        await connection.close()
    return found


@pytest.mark.slow
async def test_a_storm_through_four_processes_with_a_flush_and_a_kill_fires_each_group_once(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    chosen = seed()
    storm = Storm([], random.Random(chosen))
    bodies = notifications(storm, size(1_200, 20_000))
    with serve_airflow() as (airflow, airflow_url):
        airflow.add_dag("retrain_model")
        replicas = processes(tmp_path, database, servers.valkey.url, airflow_url, 4)
        async with running(*replicas):
            storm.urls = [replica.url for replica in replicas]
            began = monotonic()
            raging = asyncio.create_task(storm.rage(bodies))

            async def reached(part: float) -> None:
                async def there() -> bool:
                    return raging.done() or storm.done() > part * len(bodies)

                await wait_until(f"{part:.0%} of the storm", there, within=size(120, 900), interval=0.02)

            await reached(1 / 3)
            with redis.Redis.from_url(servers.valkey.url) as client:
                client.flushall()
            await reached(1 / 2)
            replicas[-1].kill()
            await raging
            seconds = monotonic() - began

            async def delivered() -> bool:
                [row] = await fetch(database, "SELECT count(*) FROM triggers WHERE state IN ('submitted', 'running')")
                return bool(row["count"] == GROUPS)

            alive = [replica.server for replica in replicas[:-1] if replica.server is not None]
            await wait_until("50 DAG runs", delivered, within=120, servers=alive, interval=0.2)
            counted = {name: sum(metric(r, name) for r in replicas[:-1]) for name in METRICS}

    print(_figures(chosen, len(bodies), seconds, storm) | counted)
    triggers = await fetch(database, "SELECT group_key, count(*) AS n FROM triggers GROUP BY group_key")
    assert [row["n"] for row in triggers] == [1] * GROUPS
    assert len(airflow.posts) == len({post["dag_run_id"] for post in airflow.posts}) == GROUPS
    found = await fetch(database, "SELECT fingerprint, sum(count)::bigint AS n FROM alerts GROUP BY fingerprint")
    counts = {row["fingerprint"]: row["n"] for row in found}
    assert counts.keys() == storm.acknowledged.keys()
    wrong = {f: n for f, n in counts.items() if not storm.acknowledged[f] <= n <= storm.attempted[f]}
    assert not wrong, f"counts outside of acknowledged and received: {wrong}"
    assert storm.acknowledged.total() == sum(len(body["alerts"]) for body in bodies)
    [row] = await fetch(database, "SELECT count(*) AS open FROM alerts WHERE closed_at IS NULL")
    assert row["open"] == len(counts), "a shifted startsAt begins no new episode"


def metric(process: Process, name: str) -> float:
    """A metric without labels of a running process."""
    page = plain.get(f"{process.url}/metrics", timeout=15).text
    return float(page.split(f"\n{name} ", 1)[1].split("\n", 1)[0])


def _figures(chosen: int, notified: int, seconds: float, storm: Storm) -> dict[str, Any]:
    return {
        "seed": chosen,
        "notifications": notified,
        "alerts": storm.acknowledged.total(),
        "attempted": storm.attempted.total(),
        "seconds": round(seconds, 1),
        "per_second": round(notified / seconds),
        "slowest_request": round(storm.slowest, 2),
        "answers": dict(storm.statuses),
    }
