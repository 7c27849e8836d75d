"""Several processes race for the same occurrences on a real Postgres, and one of them is killed: each is decided once."""

import asyncio
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import asyncpg

from tests.acceptance.test_schedules import scheduled
from tests.fakes.clock import NOON
from tests.sizes import size

HOURLY = [
    "{name: hourly, cron: '0 * * * *', route: accuracy, group: {model: a}}",
    "{name: six, cron: '30 */6 * * *', timezone: America/New_York, route: accuracy, group: {model: b}}",
]
HOURS = size(60, 24 * 90)


def race(database: str, policy: Path) -> None:
    """Four processes to the end, but the first, which is killed on its way."""
    command = [sys.executable, "-m", "tests.integration.racing_schedules", database, str(policy), str(HOURS)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    victim = racers[0]
    assert victim.stdout is not None
    while int(victim.stdout.readline()) < 20:
        pass
    victim.kill()
    outputs = [racer.communicate(timeout=size(120, 3600))[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [-9, 0, 0, 0], outputs


async def test_of_several_processes_one_decides_each_occurrence_though_one_is_killed(
    database: str, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(scheduled(*HOURLY))
    await asyncio.to_thread(race, database, policy)
    connection = await asyncpg.connect(database)
    try:
        rows = await connection.fetch(
            "SELECT labels->>'model' AS model, first_at FROM decisions JOIN groups ON key = group_key WHERE alert IS NULL"
        )
        last = dict(await connection.fetch("SELECT name, last_at FROM schedules"))
    finally:
        await connection.close()
    found = Counter((row["model"], row["first_at"]) for row in rows)
    assert set(found.values()) == {1}
    end = NOON + timedelta(hours=HOURS)
    assert sorted(at for model, at in found if model == "a") == [NOON + timedelta(hours=h + 1) for h in range(HOURS)]
    assert len([at for model, at in found if model == "b"]) == HOURS // 6
    assert last["hourly"] == end
