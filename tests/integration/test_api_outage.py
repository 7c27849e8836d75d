"""Postgres away: every route that needs it answers 503 and when to come again, and is back by itself."""

import asyncpg

from tests.integration.api import ALERTMANAGER, NATIVE, native_alert, notification, opened, problem, webhook_alert
from tests.servers import TestServers

READS = ["alerts", "triggers", "routes", "quarantine", "explain/churn"]
WRITES = ["triggers/0198c2f0-5b7f-7d02-8c44-aa0f51c09b7e/redrive", "routes/accuracy/reset"]


async def allow_connections(servers: TestServers, database: str, allowed: bool) -> None:
    """Let nobody into that database, or everybody again; who is in is thrown out."""
    name = database.rsplit("/", 1)[1].partition("?")[0]
    connection = await asyncpg.connect(servers.fresh_database())
    try:
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {"true" if allowed else "false"}')
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    finally:
        await connection.close()


async def test_without_postgres_every_route_says_when_to_come_again(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        client = world.clients[0]
        await allow_connections(servers, database, False)
        for path in READS:
            answer = await client.get(f"/api/v1/{path}")
            problem(answer, 503, "unavailable")
            assert int(answer.headers["retry-after"]) > 0
        for path in WRITES:
            problem(await client.post(f"/api/v1/{path}", json={"group": {"model": "churn"}}), 503, "unavailable")
        for path, body in ((NATIVE, native_alert()), (ALERTMANAGER, notification(webhook_alert()))):
            answer = await world.post(path, body)
            problem(answer, 503, "not_durable")
            assert int(answer.headers["retry-after"]) > 0
        assert (await client.get("/readyz")).json()["status"] == "failing"
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200

        await allow_connections(servers, database, True)
        assert (await client.get("/readyz")).json()["status"] == "ok"
        for path in READS[:4]:
            assert (await world.get(f"/api/v1/{path}")).keys() == {"items", "next"}
        assert (await world.post(NATIVE, native_alert())).status_code == 202
