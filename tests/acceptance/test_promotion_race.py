"""Many gates at once: one history that a serial order explains, and one champion."""

import asyncio
import random

from tests.acceptance.promotions import Gates, opened
from tests.servers import TestServers
from tests.sizes import seed


async def crowd(gates: Gates, scores: list[float], order: random.Random) -> None:
    """Every version is asked for at once, each at one of the replicas, and again while it lost a race."""

    async def insist(version: str) -> None:
        for _ in range(200):
            answer = await gates.ask(version, to=order.randrange(len(gates.world.clients)))
            if answer.status_code == 200 or answer.json()["code"] == "blocked":
                return
            assert answer.json()["code"] == "lost_race", answer.text
            await asyncio.sleep(order.uniform(0, 0.05))
        raise AssertionError(f"version {version} was never judged to the end")

    versions = [gates.mlflow.add("churn", {"f1": score}) for score in scores]
    order.shuffle(versions)
    await asyncio.gather(*map(insist, versions))


async def test_fifty_gates_of_three_replicas_come_to_one_history(servers: TestServers, database: str) -> None:
    order = random.Random(seed())
    scores = [round(0.8 + 0.002 * number, 3) for number in range(50)]
    order.shuffle(scores)
    async with opened(servers, database, replicas=3) as gates:
        await crowd(gates, scores, order)
        rows = await gates.rows()
        promoted = sorted(
            (r for r in rows if r["state"] == "promoted"), key=lambda r: gates.mlflow.writes.index(move(r["version"]))
        )
        before = None
        for row in promoted:
            assert row["previous"] == before, "each was judged against the one before it"
            assert row["verdicts"][-1]["passed"]
            before = row["version"]
        assert gates.champion() == before
        assert score(scores, before) >= max(scores) - 0.005, "only those within the margin may be left"
        assert [score(scores, r["version"]) for r in promoted] == sorted(score(scores, r["version"]) for r in promoted)
        for version in map(str, range(1, 51)):
            done = version in [row["version"] for row in promoted]
            assert bool(gates.mlflow.tags("churn", version)) is done, f"version {version} is left half way"
        moves = [write for write in gates.mlflow.writes if write["op"] == "POST registered-models/alias"]
        assert [move["version"] for move in moves] == [row["version"] for row in promoted]
        assert {row["state"] for row in rows} <= {"promoted", "blocked", "lost"}


def move(version: str) -> dict[str, str]:
    return {"op": "POST registered-models/alias", "name": "churn", "alias": "champion", "version": version}


def score(scores: list[float], version: str | None) -> float:
    assert version is not None
    return scores[int(version) - 1]
