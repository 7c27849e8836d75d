"""Repeats counted from memory: one statement, which counts all of a batch or nothing of it."""

import asyncpg
import pytest

from tests.acceptance.world import World
from tests.servers import TestServers


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param("SELECT 1", "duplicate", id="memory is right"),
        pytest.param("UPDATE groups SET version = version + 1 WHERE {row}", "duplicate", id="a group has moved on"),
        pytest.param("UPDATE groups SET nonce = 'other' WHERE {row}", "duplicate", id="a group of a restored backup"),
        pytest.param(
            "UPDATE alerts SET closed_at = now(), ends_at = now() + interval '1h', resolved_at = now() WHERE {row}",
            "resolved",
            id="an episode has ended",
        ),
        pytest.param(
            "UPDATE alerts SET decision_id = (SELECT max(id::text)::uuid FROM decisions) WHERE {row}",
            "*",
            id="another decision",
        ),
    ],
)
async def test_each_of_a_batch_is_counted_once_whatever_memory_missed(
    change: str, reason: str, servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        alerts = [world.alert(model=f"repeats-{database[-12:]}-{n}") for n in range(3)]
        for _ in range(2):
            await world.push(*alerts)
        model = str(alerts[0].labels["model"])
        connection = await asyncpg.connect(database)
        try:
            await connection.execute(change.format(row=f"labels->>'model' = '{model}'"))
            decisions = await world.push(*alerts, *alerts)
            counts = await connection.fetch(
                "SELECT labels->>'model' AS model, sum(count)::int AS n FROM alerts GROUP BY 1"
            )
        finally:
            await connection.close()
        assert {row["model"]: row["n"] for row in counts} == {str(alert.labels["model"]): 4 for alert in alerts}
        assert reason in ("*", decisions[0]["reason"])
        assert {d["reason"] for d in (*decisions[1:3], *decisions[4:])} == {"duplicate"}
