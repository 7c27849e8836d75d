"""The files on the way of one alert, from its POST to the end of its run: few, and all of them in the README's tour."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType

from tests.acceptance.world import World
from tests.servers import TestServers

ROOT = Path(__file__).resolve().parents[2]
#: They hold the words of the policy file, of HTTP and of the libraries. A reader of the way needs only their docstrings.
BESIDE = ("policy", "web", "kit", "bootstrap")
LOOPS = ("waker", "relay", "follower")


@contextmanager
def recorded() -> Iterator[set[str]]:
    """The files of app/ of which something runs, by their path in app/."""
    files: set[str] = set()

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and (ours := re.search(r"/app/(?!_)(.*)", frame.f_code.co_filename)):
            files.add(ours[1])

    sys.setprofile(profile)
    try:
        yield files
    finally:
        sys.setprofile(None)


async def test_one_alert_crosses_the_files_that_the_tour_names(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await world.settle()
        alert, services = world.alert(model="churn"), world.services[0]
        with recorded() as files:
            await world.push(alert)
            await world.push(alert)  # A repeat takes the fast path.
            for _ in range(4):
                world.clock.pass_by(timedelta(minutes=10))
                for loop in LOOPS:
                    while await services.loop(loop).step():
                        pass
        assert (await world.trigger())["state"] == "succeeded"
    way = {file for file in files if file.split("/")[0] not in BESIDE}
    section = (ROOT / "README.md").read_text().partition("## The code in thirty minutes")[2].partition("\n## ")[0]
    named = {file for file in re.findall(r"\(app/([\w/]+\.py)\)", section) if file.split("/")[0] not in BESIDE}
    print(f"files on the way of an alert: {len(way)} in the rooms, {len(files)} of app/ in all that ran")
    print(*sorted(way), sep="\n")
    assert way - named == set()
    assert len(way) <= 30
