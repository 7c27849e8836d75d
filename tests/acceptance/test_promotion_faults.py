"""MLflow fails, hangs or loses answers at each request of the gate; the gate is killed at each; somebody else writes.

After a minute there is no half promotion: either the version holds the mark with all its papers, or it has neither mark nor
tags, and whoever held the mark still holds it.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.promotions import Gates, opened
from tests.fakes.faults import Call, Fault, answer, drop, limbo, meanwhile, refuse, timeout
from tests.fakes.server import Hang
from tests.integration.api import problem
from tests.servers import TestServers
from tests.sizes import seed, size

FAULTS: dict[str, Fault] = {
    "500": answer(500, {"error_code": "INTERNAL_ERROR", "message": "no"}),
    "500 after the commit": answer(500, {"error_code": "INTERNAL_ERROR", "message": "no"}, after_commit=True),
    "hangs": timeout(),
    "hangs after the commit": timeout(after_commit=True),
    "takes effect later": limbo(),
    "drops": drop(),
    "loses the answer": drop(after_commit=True),
    "refuses": refuse(),
    "a web page": answer(200, "<html>"),
    "a web page after the commit": answer(200, "<html>", after_commit=True),
}


class Story:
    """A model of its own whose first version is champion, and whose second is better."""

    def __init__(self, gates: Gates, model: str) -> None:
        self.gates, self.model = gates, model
        for f1 in (0.85, 0.9):
            gates.mlflow.add(model, {"f1": f1})
        gates.mlflow.aliases[(model, "champion")] = "1"

    async def ask(self) -> Any:
        return await self.gates.ask("2", model=self.model)

    def check(self, state: str) -> None:
        """No half state, and no champion lost."""
        tags, champion = self.gates.mlflow.tags(self.model, "2"), self.gates.champion(self.model)
        assert (champion, set(tags)) == (("2", PAPERS) if state == "promoted" else ("1", set())), (
            self.model,
            state,
            tags,
        )
        assert self.gates.mlflow.tags(self.model, "1") == {}

    async def state(self) -> str:
        """What it came to."""
        rows = await self.gates.rows(model=self.model)
        state: str = rows[0]["state"] if rows else "never written"
        return state


async def a_minute(gates: Gates) -> None:
    await gates.world.pass_by(seconds=55, steps=11)


PAPERS = {
    f"gateway.{name}" for name in ("artifact.model", "input.training", "promoted_by", "promotion", "run", "source")
}
PAPERS |= {"validation_status"}


async def requests_of(gates: Gates) -> int:
    """How many requests one promotion makes."""
    before = len(gates.mlflow.asked)
    await Story(gates, "churn-plain").ask()
    return len(gates.mlflow.asked) - before


def at(number: int) -> Callable[[Call], bool]:
    """The request of that number from now on, from 0."""
    left = iter(range(10_000))
    return lambda _call: next(left) == number


def after(number: int) -> Callable[[Call], bool]:
    """Every request from that number on."""
    left = iter(range(10_000))
    return lambda _call: next(left) >= number


async def test_no_answer_of_mlflow_leaves_half_a_promotion(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        places = range(await requests_of(gates))
        cases = [(name, place, times) for name in FAULTS for place in places for times in (1, None)]
        answered: list[tuple[Story, int]] = []
        for name, place, times in random.Random(seed()).sample(cases, size(60, len(cases))):
            story = Story(gates, f"churn-{name.replace(' ', '-')}-{place}-{times or 'ever'}")
            gates.mlflow.disturb(FAULTS[name], on=at(place) if times else after(place), times=times)
            reply = await story.ask()
            assert reply.status_code in (200, 503), reply.text
            assert gates.champion(story.model) in ("1", "2")
            gates.mlflow.calm()
            gates.mlflow.land()
            answered.append((story, reply.status_code))
        await a_minute(gates)
        states = [await story.state() for story, _ in answered]
        for (story, status), state in zip(answered, states, strict=True):
            story.check(state)
            assert state == "promoted" or status == 503
        assert set(states) == {"promoted", "undone", "unreadable"}


async def test_a_gate_that_is_killed_at_any_step_is_repaired_within_a_minute(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        places = await requests_of(gates)
        stories = []
        for place in range(places):
            for arrives in (True, False):
                story = Story(gates, f"churn-{place}-{arrives}")
                asking = asyncio.create_task(story.ask())
                fault = meanwhile(asking.cancel) if arrives else replace(drop(), action=asking.cancel)  # type: ignore[arg-type]
                gates.mlflow.disturb(fault, on=at(place))
                with suppress(asyncio.CancelledError):
                    await asking
                assert asking.cancelled(), (place, arrives)
                stories.append(story)
        await a_minute(gates)
        states = [await story.state() for story in stories]
        for story, state in zip(stories, states, strict=True):
            story.check(state)
        assert set(states) == {"never written", "undone", "promoted"}
        assert (await stories[0].ask()).status_code == 200, "nothing stands in the way afterwards"


HOW = {
    "a timeout": limbo(),
    "a proxy's 502": replace(answer(502), reaches="late"),
    "dropped": replace(drop(), reaches="late"),
}
LATE = {"moves the mark": ("POST registered-models/alias", 0), "sets a tag": ("POST model-versions/set-tag", 3)}


@pytest.mark.parametrize(("op", "place"), LATE.values(), ids=LATE)
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
async def test_a_write_that_arrives_late_overtakes_no_later_promotion(
    servers: TestServers, database: str, op: str, place: int, how: Fault
) -> None:
    async with opened(servers, database) as gates:
        story = Story(gates, "churn")
        better, asked = gates.mlflow.add("churn", {"f1": 0.99}), iter(range(100))
        gates.mlflow.disturb(how, on=lambda call: call.op == op and next(asked) == place)
        problem(await story.ask(), 503, "registry_unavailable")
        problem(await gates.ask(better), 409, "lost_race")
        gates.mlflow.land()
        await a_minute(gates)
        story.check(await story.state())
        await gates.promote(better)
        assert gates.champion() == better


SOMEBODY = [
    # the request before which somebody else gives the mark to version 3 (or takes it away), and who holds it at the end
    ("before the tags", "GET registered-models/alias", 1, "3", "3"),
    ("after the tags", "GET registered-models/alias", 2, "3", "3"),
    ("after the tags, taken away", "GET registered-models/alias", 2, None, None),
    ("after the mark", "GET registered-models/alias", 3, "3", "3"),
    ("after the mark, taken away", "GET registered-models/alias", 3, None, None),
]


@pytest.mark.parametrize(
    ("op", "place", "gives", "holds"), [case[1:] for case in SOMEBODY], ids=[c[0] for c in SOMEBODY]
)
async def test_a_mark_that_moves_behind_our_back_stops_the_promotion_and_is_told(
    servers: TestServers, database: str, op: str, place: int, gives: str | None, holds: str | None
) -> None:
    async with opened(servers, database) as gates:
        story = Story(gates, "churn")
        gates.mlflow.add("churn", {"f1": 0.99})

        def somebody() -> None:
            if gives is None:
                gates.mlflow.aliases.pop(("churn", "champion"))
            else:
                gates.mlflow.aliases[("churn", "champion")] = gives

        asked = iter(range(100))
        gates.mlflow.disturb(meanwhile(somebody), on=lambda call: call.op == op and next(asked) == place)
        lost = problem(await story.ask(), 409, "lost_race")
        assert "somebody else moved it" in lost["detail"]
        assert len(lost["verdicts"]) == 7
        assert gates.champion() == holds
        assert gates.mlflow.tags("churn", "2") == {}


async def frozen(gates: Gates, story: Story) -> tuple[asyncio.Task[Any], Hang]:
    """A gate that stands still after its tags, before it asks who holds the mark still."""
    hang, asked = Hang(), iter(range(100))

    def freeze() -> None:
        gates.mlflow.hang = hang

    last = "POST model-versions/set-tag"
    gates.mlflow.disturb(meanwhile(freeze), on=lambda call: call.op == last and next(asked) == len(PAPERS) - 1)
    asking = asyncio.create_task(story.ask())
    await hang.begun.wait()
    gates.mlflow.hang = None
    return asking, hang


async def test_who_was_thought_dead_and_comes_back_changes_nothing(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        story = Story(gates, "churn")
        asking, hang = await frozen(gates, story)
        await a_minute(gates)
        assert await story.state() == "undone"
        hang.over.set()
        refused = problem(await asking, 503, "registry_unavailable")
        assert refused["state"] == "undone"
        story.check("undone")


async def test_who_comes_back_while_another_repairs_is_fenced_off(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        story = Story(gates, "churn")
        asking, hang = await frozen(gates, story)
        gates.world.clock.pass_by(timedelta(seconds=40))
        gates.mlflow.hang = repair = Hang()
        repairing = asyncio.create_task(gates.world.services[0].loop("sweeper").step())
        await repair.begun.wait()
        gates.mlflow.hang = None
        hang.over.set()
        problem(await asking, 503, "registry_unavailable")
        assert gates.champion() == "1", "the repair has begun to undo"
        repair.over.set()
        await repairing
        assert await story.state() == "undone"
        story.check("undone")


async def test_a_tag_that_somebody_else_changed_meanwhile_is_theirs(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        story = Story(gates, "churn")

        def somebody() -> None:
            gates.mlflow.tags("churn", "2")["validation_status"] = "theirs"

        gates.mlflow.disturb(replace(answer(500), action=somebody), on="POST model-versions/set-tag", times=None)
        problem(await story.ask(), 503, "registry_unavailable")
        gates.mlflow.calm()
        await a_minute(gates)
        assert gates.mlflow.tags("churn", "2") == {"validation_status": "theirs"}
