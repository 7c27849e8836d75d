"""Whoever gets a problem is led to the page that shows what it is about."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.decide.state import group_key
from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.servers import TestServers
from tests.ui.history import POLICY, rich
from tests.ui.reading import groups_of, page_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = "https://gateway.example/tg"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    async with World(servers, servers.fresh_database(template), POLICY, external_url=f"{PUBLIC}/") as world:
        await rich(NOON, models=22).write(world.services[0].core.engine)
        await world.services[0].loop("watch").step()
        yield world


async def refused(world: World, what: str) -> tuple[httpx.Response, str]:
    """The answer to a request that cannot be granted, and the path of the page that it should name."""
    cooling = next(group for _, group in (await groups_of(world)).values() if group["state"] == "cooldown")
    asked: dict[str, Any] = {"route": "accuracy", "group": cooling["group"], "reason": "why not"}
    triggers = {trigger["state"]: trigger["id"] for trigger in await world.triggers()}
    match what:
        case "a trigger of a group that cools down":
            key = group_key("accuracy", "live", cooling["group"])
            return await world.post("/api/v1/triggers", asked), f"/ui/groups/{key}"
        case "a trigger of a group that cannot be":
            return await world.post("/api/v1/triggers", asked | {"group": {}}), "/ui?route=accuracy"
        case "a redrive of what is not dead":
            ident = triggers["succeeded"]
            return await world.post(f"/api/v1/triggers/{ident}/redrive", b""), f"/ui/triggers/{ident}"
        case "a cancel of what is not held":
            ident = triggers["running"]
            return await world.post(f"/api/v1/triggers/{ident}/cancel", b""), f"/ui/triggers/{ident}"
        case "a resume of a switch that is not paused":
            return await world.post("/api/v1/deadman/m00-retrained/resume", {}), "/ui/switches/m00-retrained"
        case "a redrive of a notice that is not dead":
            [ident, *_] = [notice["id"] for notice in (await world.get("/api/v1/notices"))["items"]]
            return await world.post(f"/api/v1/notices/{ident}/redrive", {}), f"/ui/house#incident-{ident}"
    return await world.clients[0].delete("/api/v1/routes/accuracy/pause"), "/ui/policy"


REFUSED = (
    "a trigger of a group that cools down",
    "a trigger of a group that cannot be",
    "a redrive of what is not dead",
    "a cancel of what is not held",
    "a resume of a switch that is not paused",
    "a redrive of a notice that is not dead",
    "a lift of a pause that is none",
)


@pytest.mark.parametrize("what", REFUSED)
async def test_a_problem_names_the_page_of_what_it_is_about(world: World, what: str) -> None:
    answer, path = await refused(world, what)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert answer.json()["page"] == f"{PUBLIC}{path}"
    await page_of(world, path.partition("#")[0])


async def test_a_problem_on_a_page_leads_to_the_page_of_what_it_is_about(world: World) -> None:
    """A person asked for it from a page."""
    cooling = next(key for key, (_, group) in (await groups_of(world)).items() if group["state"] == "cooldown")
    asked = await page_of(world, f"/ui/actions/trigger?group={cooling}")
    [form] = [field.attributes["value"] for field in asked.find("input", name="form")]
    fields = {"form": form, "once": "1", "group": cooling, "reason": "why not"}
    headers = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
    answer = await world.clients[0].post("/ui/actions/trigger", data=fields, headers=headers)
    assert answer.status_code == 409, answer.text
    assert f'href="../../ui/groups/{cooling}"' in answer.text


async def test_without_an_address_for_people_a_problem_names_no_page(servers: TestServers, template: str) -> None:
    async with World(servers, servers.fresh_database(template), POLICY) as world:
        answer = await world.clients[0].delete("/api/v1/routes/accuracy/pause")
        assert (answer.status_code, "page" in answer.json()) == (404, False)
