"""The simulation itself: no schedule breaks an invariant, a seed is lived again exactly, and a planted bug is found."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.servers import TestServers
from tests.simulation.__main__ import PORTION, Tally, live, live_in_the_engine
from tests.simulation.life import Life
from tests.simulation.planted import BUGS, COVERED, MOST, Bug, hunt, planted
from tests.simulation.schedule import KINDS, Fault, Schedule, Step, schedule_of, shrink
from tests.simulation.site import Site
from tests.sizes import PROVE, seed, size

LIVES = size(10, 2000)
PORTIONS = size(1, 80)  # of the engine
#: The bug that `make test` plants, and a number whose life finds it.
QUICK = ("a held trigger fires and is not put into the outbox", 2)


@pytest.fixture
async def site(servers: TestServers, database: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(database, servers.valkey.url, tmp_path) as made:
        yield made


@pytest.mark.slow
async def test_no_schedule_of_faults_breaks_an_invariant(site: Site) -> None:
    """`make test` lives the same lives each time, `make prove` new ones."""
    first = seed() if PROVE else 1
    stories = [await live(site, number, brief=False) for number in range(first, first + LIVES)]
    assert [story for story in stories if story is not None] == []


@pytest.mark.slow
def test_no_life_of_the_engine_breaks_an_invariant() -> None:
    first = seed() if PROVE else 1
    stories = [live_in_the_engine(number, size(20, PORTION)) for number in range(first, first + PORTIONS)]
    assert [story for story in stories if story is not None] == []


@pytest.mark.parametrize("number", size([3], list(range(1, 40))))
async def test_a_seed_is_lived_again_exactly(site: Site, number: int) -> None:
    schedule = schedule_of(number)
    journals = []
    for _ in range(2):
        life = Life(site, schedule)
        await life.live(schedule.steps)
        journals.append(life.journal)
    assert journals[0] == journals[1]


def test_a_seed_draws_the_same_schedule_with_every_kind_of_step_and_fault() -> None:
    many = [schedule_of(number) for number in range(300)]
    assert many == [schedule_of(number) for number in range(300)]
    steps = [step for schedule in many for step in schedule.steps]
    assert {step.kind for step in steps} == set(KINDS)
    assert {step.fault.kind for step in steps if step.fault} == {"park", "crash", "cut"}
    assert all(str(step) for step in steps)


async def test_what_is_left_of_a_failing_schedule_is_what_makes_it_fail() -> None:
    steps = [Step("pass", seconds=number, fault=Fault("cut", 1)) for number in range(40)]

    async def fails(tried: object) -> bool:
        assert isinstance(tried, list)
        faults = {step.seconds: step.fault for step in tried}
        return faults.get(7) is not None and 31 in faults

    left = await shrink(steps, fails, most=200)
    assert [(step.seconds, step.fault is None) for step in left] == [(7, False), (31, True)]


async def test_a_life_keeps_a_journal(site: Site) -> None:
    schedule = Schedule(1, ("plain", "plain"), (Step("pass", seconds=20), Step("outage", seconds=90)))
    life = Life(site, schedule)
    await life.live(schedule.steps)
    assert [line.split("  ", 1)[1] for line in life.journal][:2] == ["20 s pass", "90 s pass without a gateway"]


@pytest.mark.parametrize("bug", [*BUGS, *(bug for bug, _ in COVERED)], ids=lambda bug: bug.name)
def test_every_bug_can_be_planted(bug: Bug) -> None:
    assert planted(bug).count(bug.new)


@pytest.mark.slow
@pytest.mark.parametrize("name", size([QUICK[0]], [bug.name for bug in BUGS]))
def test_a_planted_bug_is_found(name: str) -> None:
    [bug] = [bug for bug in BUGS if bug.name == name]
    lives, broken = hunt(bug, size(1, MOST), first=size(QUICK[1], 1))
    print(f"{name}: {broken} after {lives} lives")
    assert broken


def test_a_tally_goes_on_behind_what_stands_in_it(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "tally", "servers")
    assert tally.next_of(1) == 1
    tally.add(1, PORTION, PORTION, 60.0, [])
    tally.add(PORTION + 1, PORTION + 7, 7, 60.0, [PORTION + 3])
    assert tally.next_of(1) == PORTION + 8
    assert tally.next_of(5) == 5
    assert Tally(tmp_path / "tally", "engine").next_of(1) == 1
