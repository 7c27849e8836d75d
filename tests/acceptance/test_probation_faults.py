"""A rollback of a probation, while MLflow fails at each of its requests, the gateway is killed at each, and somebody else
moves the alias at each. In the end the alias is where it must be, and it went back at most once.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance import test_probation
from tests.acceptance.promotions import Gates
from tests.acceptance.test_promotion_faults import FAULTS, PAPERS, after, at
from tests.fakes.faults import Call, drop, meanwhile
from tests.servers import TestServers
from tests.sizes import seed, size

WRITE = "POST registered-models/alias"
POLICY = test_probation.policy(test_probation.TERMS.replace("10m", "0s"))


@asynccontextmanager
async def opened(servers: TestServers, database: str, *, replicas: int = 1) -> AsyncIterator[Gates]:
    async with test_probation.opened(servers, database, POLICY, replicas=replicas) as gates:
        await gates.world.settle()
        yield gates


class Story:
    """A model of its own: version 1 was champion, version 2 has become it through the gate, and version 3 is there."""

    def __init__(self, gates: Gates, model: str) -> None:
        self.gates, self.model = gates, model

    async def begin(self) -> None:
        for f1 in (0.85, 0.9, 0.95):
            self.gates.mlflow.add(self.model, {"f1": f1})
        self.gates.mlflow.aliases[(self.model, "champion")] = "1"
        promotion = await self.gates.promote("2", model=self.model)
        assert (promotion["state"], promotion["probation"]["state"]) == ("promoted", "watching")
        # Hardly any time, so that no story is due again while another one is tried.
        self.gates.world.clock.pass_by(timedelta(milliseconds=1))
        await test_probation.fires(self.gates, "ModelErrors", model=self.model)

    async def look(self, replica: int = 0) -> None:
        """One round of the loop: the alert speaks against version 2, so the alias must go back."""
        await self.gates.world.services[replica].loop("probations").step()

    @property
    def champion(self) -> str | None:
        return self.gates.champion(self.model)

    @property
    def tags(self) -> dict[str, str]:
        return self.gates.mlflow.tags(self.model, "2")

    async def rows(self, kind: str, state: str) -> list[dict[str, Any]]:
        found = await self.gates.rows(model=self.model, state=state)
        return [row for row in found if row["kind"] == kind]

    async def probation(self) -> str:
        [promotion] = [row for row in await self.rows("promote", "promoted") if row["version"] == "2"]
        state: str = promotion["probation"]["state"]
        return state

    async def went_back(self) -> None:
        """Once, and nothing is half done."""
        assert (self.champion, self.tags["validation_status"]) == ("1", "rolled_back"), self.model
        assert set(self.tags) == PAPERS - {"gateway.artifact.model"}, self.model
        assert len(await self.rows("rollback", "rolled_back")) == 1, self.model
        assert await self.probation() == "rolled_back", self.model

    async def stays(self, champion: str | None) -> None:
        """Somebody else gave the alias to a version, and it went back to none."""
        assert self.champion == champion, self.model
        assert self.tags.get("validation_status") in ("promoted", "rolled_back"), self.model
        assert await self.probation() in ("over", "rolled_back"), self.model


async def some_minutes(gates: Gates) -> None:
    """The sweeper repairs what is half done, and the probation asks again."""
    await gates.world.pass_by(minutes=6, steps=6)


async def requests_of(gates: Gates) -> list[str]:
    """What one rollback asks MLflow for, in order."""
    story = Story(gates, "churn-plain")
    await story.begin()
    before = len(gates.mlflow.asked)
    await story.look()
    await story.went_back()
    return gates.mlflow.asked[before:]


async def some_requests_of(gates: Gates) -> list[int]:
    """The numbers of a few of them, and of the one that reads what was written; with PROVE=1 all."""
    asked = await requests_of(gates)
    others = [number for number in range(len(asked)) if number != asked.index(WRITE) + 1]
    return sorted([asked.index(WRITE) + 1, *random.Random(seed()).sample(others, size(4, len(others)))])


async def test_whatever_mlflow_answers_the_alias_goes_back_in_the_end_and_once(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database) as gates:
        places = range(len(await requests_of(gates)))
        cases = [(name, place, times) for name in FAULTS for place in places for times in (1, None)]
        stories = []
        for name, place, times in random.Random(seed()).sample(cases, size(10, len(cases))):
            story = Story(gates, f"churn-{name.replace(' ', '-')}-{place}-{times or 'ever'}")
            await story.begin()
            gates.mlflow.disturb(FAULTS[name], on=at(place) if times else after(place), times=times)
            await story.look()
            assert story.champion in ("1", "2")
            gates.mlflow.calm()
            gates.mlflow.land()
            stories.append(story)
        await some_minutes(gates)
        for story in stories:
            await story.went_back()
        assert len([each for each in gates.pagerduty.open() if "probation" in each.summary]) == 1 + len(stories)


async def test_a_gateway_that_is_killed_at_any_request_gives_the_alias_back_later_and_once(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, replicas=2) as gates:
        stories = []
        cases = [(place, arrives) for place in await some_requests_of(gates) for arrives in (True, False)]
        for place, arrives in cases:
            story = Story(gates, f"churn-{place}-{arrives}")
            await story.begin()
            looking = asyncio.create_task(story.look())
            fault = meanwhile(looking.cancel) if arrives else replace(drop(), action=looking.cancel)  # type: ignore[arg-type]
            gates.mlflow.disturb(fault, on=at(place))
            with suppress(asyncio.CancelledError):
                await looking
            assert looking.cancelled(), (place, arrives)
            stories.append(story)
        await some_minutes(gates)
        for story in stories:
            await story.went_back()


SOMEBODY: dict[str, Callable[[Gates, str], str | None]] = {}


def somebody(work: Callable[[Gates, str], str | None]) -> Callable[[Gates, str], str | None]:
    SOMEBODY[work.__name__.replace("_", " ")] = work
    return work


@somebody
def moves_it_in_mlflow(gates: Gates, model: str) -> str | None:
    gates.mlflow.aliases[(model, "champion")] = "3"
    return "3"


@somebody
def takes_it_away_in_mlflow(gates: Gates, model: str) -> str | None:
    gates.mlflow.aliases.pop((model, "champion"), None)
    return None


@somebody
def gives_it_to_the_same_version_again(gates: Gates, model: str) -> str | None:
    gates.mlflow.aliases[(model, "champion")] = "2"
    return "2"


@pytest.mark.parametrize("moves", SOMEBODY.values(), ids=SOMEBODY)
async def test_an_alias_that_a_person_moves_at_any_moment_stays_there(
    servers: TestServers, database: str, moves: Callable[[Gates, str], str | None]
) -> None:
    """But for the one moment before the alias is written: MLflow compares nothing, so that write comes last. Nobody is
    paged for a rollback that came late, because nothing is left to do."""
    async with opened(servers, database) as gates:
        stories: list[tuple[Story, str | None]] = []
        for place in await some_requests_of(gates):
            story = Story(gates, f"churn-{place}")
            await story.begin()
            holds: list[str | None] = []
            ops: list[str] = []

            def move(story: Story = story, holds: list[str | None] = holds) -> None:
                holds.append(moves(gates, story.model))

            def here(call: Call, place: int = place, ops: list[str] = ops) -> bool:
                ops.append(call.op)
                return len(ops) - 1 == place

            gates.mlflow.disturb(meanwhile(move), on=here)
            await story.look()
            [champion] = holds
            written = WRITE in ops[:place]
            goes_back = ops[place] == WRITE or (champion == "2" and not written)
            stories.append((story, "1" if goes_back else champion))
        await some_minutes(gates)
        for story, champion in stories:
            await story.stays(champion)
        assert [each.summary for each in gates.pagerduty.open() if "rollback" in each.summary] == []


async def test_a_promotion_that_is_asked_for_at_any_moment_is_never_taken_back(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, replicas=2) as gates:

        async def insist(model: str) -> None:
            while (answer := await gates.ask("3", model=model, to=1)).status_code != 200:
                assert answer.json()["code"] == "lost_race", answer.text
                await asyncio.sleep(0.01)

        stories = []
        for place in await some_requests_of(gates):
            story = Story(gates, f"churn-{place}")
            await story.begin()
            asking: list[asyncio.Task[None]] = []

            def ask(model: str = story.model, asking: list[asyncio.Task[None]] = asking) -> None:
                asking.append(asyncio.create_task(insist(model)))

            gates.mlflow.disturb(meanwhile(ask), on=at(place))
            await story.look()
            await asyncio.gather(*asking)
            assert asking, place
            stories.append(story)
        # The alert speaks against version 2 alone: it began before version 3 was promoted.
        await some_minutes(gates)
        for story in stories:
            assert (story.champion, len(await story.rows("promote", "promoted"))) == ("3", 2)
            assert await story.probation() in ("over", "rolled_back")


async def test_a_second_alert_and_a_second_replica_at_any_moment_change_nothing(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, replicas=2) as gates:
        stories = []
        for place in await some_requests_of(gates):
            story = Story(gates, f"churn-{place}")
            await story.begin()
            others: list[asyncio.Task[Any]] = []

            async def second(story: Story = story) -> None:
                await test_probation.fires(gates, "ModelAccuracyLow", model=story.model)
                await story.look(1)

            def begin(others: list[asyncio.Task[Any]] = others, second: Any = second) -> None:
                others.append(asyncio.create_task(second()))

            gates.mlflow.disturb(meanwhile(begin), on=at(place))
            await story.look()
            await asyncio.gather(*others)
            stories.append(story)
        await some_minutes(gates)
        for story in stories:
            await story.went_back()


async def test_a_person_who_rolls_back_at_any_moment_and_the_probation_come_to_one_rollback(
    servers: TestServers, database: str
) -> None:
    async with opened(servers, database, replicas=2) as gates:
        stories = []
        for place in await some_requests_of(gates):
            story = Story(gates, f"churn-{place}")
            await story.begin()
            [promotion] = await story.rows("promote", "promoted")
            asking: list[asyncio.Task[Any]] = []

            def ask(ident: str = promotion["id"], asking: list[asyncio.Task[Any]] = asking) -> None:
                path = f"/api/v1/promotions/{ident}/rollback"
                asking.append(asyncio.create_task(gates.world.post(path, {}, to=1)))

            gates.mlflow.disturb(meanwhile(ask), on=at(place))
            await story.look()
            await asyncio.gather(*asking)
            stories.append(story)
        await some_minutes(gates)
        for story in stories:
            assert (story.champion, len(await story.rows("rollback", "rolled_back"))) == ("1", 1)
            assert await story.probation() in ("over", "rolled_back")
