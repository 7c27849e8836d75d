"""The batcher between senders: nobody waits for all that another one sent, and who has gone away is not waited for."""

import asyncio
import random
from itertools import pairwise
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from app.decide.alert import Bad
from app.intake.intake import Job
from app.kit.errors import NotDurable
from tests.integration.test_batcher import Commits, Names, alert, job, running, turns
from tests.sizes import seed, size

#: What waits, as (lane, alerts) in order of arrival, and the lanes of the batches, which hold a hundred alerts.
SHARED = {
    "few alerts go before many": (
        [("many", 40)] * 6 + [("few", 1)],
        [["few"], ["many", "many", "many"], ["many", "many", "many"]],
    ),
    "few alerts of several": ([("many", 99)] * 3 + [("a", 1), ("b", 1)], [["a", "b"], ["many", "many"], ["many"]]),
    "a burst of small jobs is one share": (
        [("many", 40)] * 4 + [("few", 1)] * 60,
        [["many", "many"] + ["few"] * 50, ["many", "many"] + ["few"] * 10],
    ),
    "who has many shares with others who have": (
        [("a", 60)] * 4 + [("b", 60)] * 4,
        [["a", "b"]] * 4,
    ),
    "a sender alone has whole batches": ([("one", 10)] * 20, [["one"] * 10, ["one"] * 10]),
}


async def written(waiting: list[tuple[str, int]], max_batch: int) -> list[list[str]]:
    """The lanes of the jobs of each batch that is written while all of these wait. Each lane keeps its order."""
    commits = Commits()
    batcher = Names(commits, max_queue=10_000, max_batch=max_batch)
    async with running(batcher):
        first = await commits.hold(batcher)
        sent = [
            asyncio.create_task(batcher.submit(job(*(f"{lane} {at} {n}" for n in range(alerts)), lane=lane), 5))
            for at, (lane, alerts) in enumerate(waiting)
        ]
        await turns()
        commits.gate.set()
        await asyncio.gather(first, *sent)
    batches = [list(dict.fromkeys(name.rpartition(" ")[0] for name in batch)) for batch in commits.batches[1:]]
    for lane in {lane for lane, _ in waiting}:
        order = [int(each.split()[1]) for batch in batches for each in batch if each.startswith(f"{lane} ")]
        assert order == sorted(order)
    return [[each.split()[0] for each in batch] for batch in batches]


@pytest.mark.parametrize(("waiting", "batches"), SHARED.values(), ids=SHARED)
async def test_a_batch_is_shared_by_those_who_wait(waiting: list[tuple[str, int]], batches: list[list[str]]) -> None:
    assert await written(waiting, 100) == batches


async def test_of_more_senders_than_a_batch_has_room_for_each_gets_its_turn() -> None:
    waiting = [(lane, 1) for _ in range(2) for lane in "abcde"]
    assert await written(waiting, 3) == [["a", "b", "c"], ["d", "e", "a"], ["b", "c", "d"], ["e"]]


async def test_who_has_many_alerts_has_every_second_batch_although_others_never_cease() -> None:
    class Busy(Commits):
        async def commit(self, jobs: list[Job]) -> list[list[Any]]:
            number = len(self.batches)
            if number < 20:
                few.append(asyncio.create_task(batcher.submit(job(f"few{number}", lane="few"), 5)))
            await turns()
            return await super().commit(jobs)

    commits, few = Busy(), list[asyncio.Task[list[Any]]]()
    batcher = Names(commits, max_queue=10_000, max_batch=100)
    async with running(batcher):
        many = [job(*(f"many{n} {at}" for at in range(50)), lane="many") for n in range(8)]
        await asyncio.gather(*(batcher.submit(each, 5) for each in many))
        await asyncio.gather(*few)
    held = [sum(name.startswith("many") for name in batch) for batch in commits.batches]
    assert sum(held) == 400
    until = max(at for at, number in enumerate(held) if number)
    assert all(first or second for first, second in pairwise(held[: until + 1])), held


async def test_a_batch_is_smaller_when_the_alerts_of_the_one_before_took_long() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=10_000)
    async with running(batcher):
        commits.gate.clear()
        first = asyncio.create_task(batcher.submit(job(*map(str, range(500))), 5))
        await commits.began.wait()
        sent = [asyncio.create_task(batcher.submit(job(*(f"{n} {at}" for at in range(100))), 5)) for n in range(15)]
        await asyncio.sleep(0.3)  # So 833 alerts at most take half a second.
        commits.gate.set()
        await asyncio.gather(first, *sent)
    sizes = [len(batch) for batch in commits.batches]
    assert sizes[0] == 500
    assert 500 <= sizes[1] <= 900
    assert sum(sizes) == 2000


async def test_one_sender_does_not_fill_the_queue_and_has_its_room_back_when_its_jobs_are_written() -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=16)

    async def send(number: int, lane: str) -> list[asyncio.Task[list[Any]]]:
        sent = [asyncio.create_task(batcher.submit(job(f"{lane}{n}", lane=lane), 5)) for n in range(number)]
        await turns()
        return sent

    async with running(batcher):
        for _ in range(2):
            first = await commits.hold(batcher)
            many = await send(9, "many")  # Each counts two: itself and its alert.
            refused = [str(each.exception()) for each in many if each.done()]
            assert len(refused) == 3
            assert all("too many alerts of one sender wait" in each for each in refused)
            few = await send(1, "few")
            commits.gate.set()
            assert await asyncio.gather(first, *few) == [["first"], ["few0"]]
            await asyncio.gather(*many, return_exceptions=True)


#: Jobs as (sender, weight, kind), in order of arrival, for a queue of 2,000 of which nothing is written; and who of them is
#: refused. The weight of a job is itself and its entries. L: a part of a large body, U: its entries cannot be read.
ROOM = {
    "parts of large bodies leave as much as they take": ("a 250 L, a 250 L, a 250 L, a 250 L, a 250 L", [4]),
    "other bodies leave a third of what they take": ("a 500, a 500, a 500, a 100", [3]),
    "both together": ("a 1000 L, a 500, a 100, a 100 L", [2, 3]),
    "both together, the other way round": ("a 500, a 500, a 100 L, a 500 L, a 400, a 300", [2, 3, 5]),
    "a first body that nobody can read": ("a 1000 L, a 1001 U, b 2", [1]),
    "a first body of another": ("a 1000 L, a 500, b 400, b 300, b 201 L", [2, 4]),
    "a first light one takes the last room": ("a 1000 L, a 500, b 200, c 200, d 101, d 100, e 2", [4, 6]),
    "an empty queue takes any": ("a 9000, b 2, a 2 L", [1, 2]),
    "a larger one waits for an empty queue": ("b 2, a 2001, a 1999 L", [1, 2]),
}


def weighing(text: str) -> Job:
    lane, weight, *kind = text.split()
    entries = int(weight) - 1
    if kind == ["U"]:
        return Job([], [Bad(at, None, "not an alert", b"1") for at in range(entries)], "test", 0, lane=lane)
    return Job([alert(lane)] * entries, [], "test", 0, lane=lane, large=kind == ["L"])


@pytest.mark.parametrize(("jobs", "refused"), ROOM.values(), ids=ROOM)
async def test_a_sender_leaves_room_whatever_it_sends(jobs: str, refused: list[int]) -> None:
    commits = Commits()
    batcher = Names(commits, max_queue=2_000)
    async with running(batcher):
        first = await commits.hold(batcher)
        sent = []
        for text in jobs.split(", "):
            sent.append(asyncio.create_task(batcher.submit(weighing(text), 60)))
            await turns()
        done = [at for at, task in enumerate(sent) if task.done()]
        commits.gate.set()
        results = await asyncio.gather(first, *sent, return_exceptions=True)
        assert done == refused
        assert all(isinstance(results[at + 1], NotDurable) for at in refused)


async def test_two_senders_without_measure_leave_room_for_a_third() -> None:
    """The queue is never over its bound, whoever comes and goes."""
    chance = random.Random(seed())
    commits = Commits()
    batcher = Names(commits, max_queue=20_000)
    async with running(batcher):
        first = await commits.hold(batcher)
        waiting: dict[asyncio.Task[list[Any]], int] = {}
        try:
            for _ in range(size(300, 5_000)):
                weight, kind = chance.choice((2, 50, 501, 1_001)), chance.choice(("", " L"))
                task = asyncio.create_task(batcher.submit(weighing(f"{chance.choice('ab')} {weight}{kind}"), 60))
                waiting[task] = weight
                if chance.random() < 0.1:
                    chance.choice(list(waiting)).cancel()
                await turns(3)
                waiting = {task: weight for task, weight in waiting.items() if not task.done()}
                assert sum(waiting.values()) <= 20_000
                third = asyncio.create_task(batcher.submit(weighing("c 201"), 60))
                await turns(3)
                assert not third.done()
                third.cancel()
        finally:
            commits.gate.set()
            await asyncio.gather(first, *waiting, return_exceptions=True)


async def test_a_sender_that_goes_away_is_noticed_while_its_job_waits_and_while_it_is_written() -> None:
    commits, gone = Commits(), asyncio.Event()
    batcher = Names(commits, max_queue=100)

    async def leave() -> None:
        await gone.wait()

    async with running(batcher):
        commits.gate.clear()
        jobs = [Job([alert(name)], [], "test", 0, lane=name, gone=leave) for name in ("written", "waits")]
        sent = [asyncio.create_task(batcher.submit(jobs[0], 60))]
        await commits.began.wait()
        sent.append(asyncio.create_task(batcher.submit(jobs[1], 60)))
        stays = asyncio.create_task(batcher.submit(job("stays"), 60))
        await turns()
        gone.set()
        async with asyncio.timeout(10):
            found = await asyncio.gather(*sent, return_exceptions=True)
        assert [type(each) for each in found] == [ClientDisconnect] * 2
        commits.gate.set()
        assert await stays == ["stays"]
    assert commits.batches == [["written"], ["stays"]]
