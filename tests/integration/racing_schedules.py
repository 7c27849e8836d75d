"""One replica's schedules as a process of its own, through `hours` hours as fast as it can:

    python -m tests.integration.racing_schedules DATABASE_URL POLICY HOURS

It prints a line when it begins and one every ten hours; tests/integration/test_schedule_races.py lets several race.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from app.groups.schedules import Schedules
from app.kit.db import open_engine
from app.policy.file.load import Policy, load_policy
from tests.cores import aftermath_of, core_of
from tests.fakes.clock import ManualClock


async def race(database: str, parsed: Policy, hours: int) -> None:
    engine, clock = open_engine(database, pool_size=1), ManualClock()
    core = core_of(parsed, engine, clock)
    schedules = Schedules(core, aftermath_of(core))
    await schedules.step()
    for hour in range(hours):
        if hour % 10 == 0:
            print(hour, flush=True)
        clock.pass_by(timedelta(hours=1))
        await schedules.step()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], load_policy(Path(sys.argv[2])), int(sys.argv[3])))
