"""The probation of a promotion on a real MLflow with PostgreSQL, and on SageMaker as moto has it."""

import asyncio
import itertools
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from botocore import exceptions

from tests.acceptance.world import World
from tests.mlflow.sites import MlflowSite, SagemakerSite, Site, Through
from tests.servers import TestServers
from tests.sizes import seed, size
from tests.spool.mlflow import MlflowServer
from tests.spool.proxy import Fault, Proxy, at, never, proxied

POLICY = """
version: 1
airflow: [{{name: default, url: "http://airflow.test:8080"}}]
routes: []
{mlflow}
promotions:
  - model: watched-.*
    registry: {registry}
    to: champion
    probation: {{match: ['alertname="ModelErrors"'], group: {{model: '{{{{version.model}}}}'}}, then: rollback}}
"""


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "mlflow":
        return MlflowSite(request.getfixturevalue("mlflow_server"))
    found: SagemakerSite = request.getfixturevalue("sagemaker")
    return found


both = pytest.mark.parametrize("site", ["mlflow", "sagemaker"], indirect=True)


@asynccontextmanager
async def gateway(servers: TestServers, database: str, site: Site, uri: str = "") -> AsyncIterator[World]:
    uri = site.uri if isinstance(site, MlflowSite) and not uri else uri
    mlflow = f'mlflow: {{tracking_uri: "{uri}"}}' if uri else ""
    policy = POLICY.format(registry=site.name, mlflow=mlflow)
    others: Any = {"127.0.0.1": Through()}
    async with World(servers, database, policy, others=others) as world:
        await world.settle()
        yield world


class Story:
    """A model of its own: version 1 was champion, version 2 has become it through the gate, and an alert has begun."""

    def __init__(self, world: World, site: Site) -> None:
        self.world, self.site = world, site
        self.model = f"watched-{secrets.token_hex(4)}"
        self.promotion = ""

    async def begin(self) -> None:
        for f1 in (0.85, 0.9, 0.95):
            await self.site.publish(self.model, {"f1": f1})
        await self.site.seize(self.model, "1")
        answer = await self.world.post("/api/v1/promotions", {"model": self.model, "version": "2", "to": "champion"})
        assert (answer.status_code, answer.json()["previous"]) == (200, "1"), answer.text
        self.promotion = answer.json()["id"]
        self.world.clock.pass_by(timedelta(milliseconds=1))
        await self.world.push(self.world.alert("ModelErrors", model=self.model))

    async def look(self) -> None:
        await self.world.services[0].loop("probations").step()

    async def holder(self) -> str | None:
        return await self.site.holder(self.model)

    async def probation(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.world.get(f"/api/v1/promotions/{self.promotion}"))["probation"]
        return found

    async def incidents(self) -> list[str]:
        """The titles of the open incidents of this model."""
        items = (await self.world.get("/api/v1/notices", state="open", limit=1000))["items"]
        mine = [item["title"] for item in items if item["labels"].get("model") == self.model]
        return [title.replace(self.model, "{model}") for title in mine]

    async def went_back(self) -> None:
        """Once, and nothing is half done."""
        assert await self.holder() == "1", self.model
        assert (await self.probation())["state"] == "rolled_back", self.model
        rows = (await self.world.get("/api/v1/promotions", model=self.model, state="rolled_back"))["items"]
        assert [(row["version"], row["target"]) for row in rows] == [("2", "1")], self.model


@both
async def test_an_alert_gives_the_mark_back(servers: TestServers, database: str, site: Site) -> None:
    async with gateway(servers, database, site) as world:
        story, other = Story(world, site), Story(world, site)
        await story.begin()
        await story.look()
        await story.went_back()
        await other.begin()
        await site.seize(other.model, "3")
        await other.look()
        world.clock.pass_by(timedelta(minutes=1))
        await world.watched()
        await other.look()
        assert (await other.holder(), (await other.probation())["state"]) == ("3", "over")
        assert await story.incidents() == ["Version 2 of {model} failed its probation: version 1 is champion again"]
        await world.pass_by(minutes=16)
        assert len(await story.incidents()) == 1, "the alias is where the gate left it"
        await site.seize(story.model, "3")
        await world.pass_by(minutes=16)
        assert len(await story.incidents()) == (0 if isinstance(site, MlflowSite) else 1), "a walk saw that it moved"


@both
async def test_the_mark_goes_to_no_version_that_is_not_ready(servers: TestServers, database: str, site: Site) -> None:
    async with gateway(servers, database, site) as world:
        story = Story(world, site)
        await story.begin()
        await site.spoil(story.model, "1")
        await story.look()
        found = await story.probation()
        assert (await story.holder(), found["state"]) == ("2", "failed")
        assert "there is no way back: version 1 is " in found["detail"]


async def test_a_fault_at_any_request_to_a_real_mlflow_delays_the_way_back(
    servers: TestServers, database: str, mlflow_server: MlflowServer
) -> None:
    site = MlflowSite(mlflow_server)
    faults = (Fault.UNAVAILABLE, Fault.COMMIT_AND_503, Fault.COMMIT_AND_DROP, Fault.NOT_FOUND)
    with proxied(mlflow_server.port) as proxy:
        async with gateway(servers, database, site, proxy.uri) as world:
            requests = await _requests_of_mlflow(Story(world, site), proxy)
            cases = [(fault, number) for fault in faults for number in range(requests)]
            stories = []
            for fault, number in random.Random(seed()).sample(cases, size(2, len(cases))):
                story = Story(world, site)
                await story.begin()
                proxy.seen.clear()
                proxy.plan = at(number, fault)
                await story.look()
                assert len(proxy.seen) > number, (fault, number)
                proxy.plan = never
                stories.append(story)
            await world.pass_by(minutes=4, steps=8)
            for story in stories:
                await story.went_back()


async def _requests_of_mlflow(story: Story, proxy: Proxy) -> int:
    await story.begin()
    proxy.seen.clear()
    await story.look()
    await story.went_back()
    return len(proxy.seen)


Disturb = Callable[[], None]


class Disturbed:
    """boto3's client. At its call of that number `disturb` happens, before it is sent or after it was done."""

    def __init__(self, client: Any, number: int, disturb: Disturb, *, arrives: bool) -> None:
        self._client, self._number, self._disturb, self._arrives = client, number, disturb, arrives
        self.calls = itertools.count()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(**fields: Any) -> Any:
            here = next(self.calls) == self._number
            if here and not self._arrives:
                self._disturb()
            answer = method(**fields)
            if here and self._arrives:
                self._disturb()
            return answer

        return call


def _times_out() -> None:
    raise exceptions.ReadTimeoutError(endpoint_url="http://sagemaker")


def _fails() -> None:
    response: Any = {"Error": {"Code": "InternalFailure"}, "ResponseMetadata": {"HTTPStatusCode": 500}}
    raise exceptions.ClientError(response, "UpdateModelPackage")


@asynccontextmanager
async def disturbed(world: World, number: int, disturb: Disturb, *, arrives: bool = False) -> AsyncIterator[Disturbed]:
    clients: dict[str, Any] = world.services[0].promotion.gate._registries["sagemaker"]._clients  # type: ignore[attr-defined]
    plain = clients["sagemaker"]
    clients["sagemaker"] = found = Disturbed(plain, number, disturb, arrives=arrives)
    try:
        yield found
    finally:
        clients["sagemaker"] = plain


async def _calls_of_sagemaker(story: Story) -> int:
    await story.begin()
    async with disturbed(story.world, -1, _fails) as client:
        await story.look()
    await story.went_back()
    return next(client.calls)


async def test_a_fault_at_any_call_of_sagemaker_delays_the_way_back(
    servers: TestServers, database: str, sagemaker: SagemakerSite
) -> None:
    async with gateway(servers, database, sagemaker) as world:
        numbers = range(await _calls_of_sagemaker(Story(world, sagemaker)))
        cases = [(number, fault, arrives) for number in numbers for fault in (_times_out, _fails) for arrives in (0, 1)]
        stories = []
        for number, fault, arrives in random.Random(seed()).sample(cases, size(3, len(cases))):
            story = Story(world, sagemaker)
            await story.begin()
            async with disturbed(world, number, fault, arrives=bool(arrives)):
                await story.look()
            stories.append(story)
        await world.pass_by(minutes=5, steps=10)
        for story in stories:
            await story.went_back()


async def test_a_gateway_that_is_killed_at_any_call_of_sagemaker_gives_the_mark_back_later(
    servers: TestServers, database: str, sagemaker: SagemakerSite
) -> None:
    async with gateway(servers, database, sagemaker) as world:
        numbers = range(await _calls_of_sagemaker(Story(world, sagemaker)))
        loop, stories = asyncio.get_running_loop(), []
        for number in random.Random(seed()).sample(numbers, size(2, len(numbers))):
            story = Story(world, sagemaker)
            await story.begin()
            looking = asyncio.ensure_future(asyncio.sleep(0))
            async with disturbed(world, number, lambda: _kill(loop, looking), arrives=True):  # noqa: B023
                looking = asyncio.create_task(story.look())
                with suppress(asyncio.CancelledError):
                    await looking
            assert looking.cancelled(), number
            stories.append(story)
        await world.pass_by(minutes=5, steps=10)
        for story in stories:
            await story.went_back()


def _kill(loop: asyncio.AbstractEventLoop, task: Any) -> None:
    loop.call_soon_threadsafe(task.cancel)


async def test_a_person_who_moves_the_mark_in_sagemaker_keeps_it(
    servers: TestServers, database: str, sagemaker: SagemakerSite
) -> None:
    async with gateway(servers, database, sagemaker) as world:
        first = Story(world, sagemaker)
        await first.begin()
        async with disturbed(world, -1, _fails) as client:
            await first.look()
        numbers, stories = range(next(client.calls)), []
        for number in random.Random(seed()).sample(numbers, size(2, len(numbers))):
            story = Story(world, sagemaker)
            await story.begin()

            def seize(model: str = story.model) -> None:
                asyncio.run(sagemaker.seize(model, "3"))

            async with disturbed(world, number, seize, arrives=True):
                await story.look()
            stories.append(story)
        await world.pass_by(minutes=5, steps=10)
        for story in stories:
            assert (await story.holder(), (await story.probation())["state"] in ("over", "rolled_back")) == ("3", True)
