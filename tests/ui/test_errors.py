"""An error is a page like any other: with the navigation, a sentence what to do, and what a person had written."""

import re
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from tests.acceptance.world import POLICY, World
from tests.integration.test_api_outage import allow_connections
from tests.servers import TestServers
from tests.ui.reading import HTML, Element, read

OURS = HTML | {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def world(servers: TestServers, database: str) -> AsyncIterator[World]:
    async with World(servers, database, POLICY) as world:
        yield world


def looked_at(page: str, status: int, advice: str) -> Element:
    document = read(page)
    [navigation] = document.find("nav", aria_label="Pages")
    assert [link.text for link in navigation.find("a")] == ["Fleet", "Promotions", "House", "Policy", "API"], status
    assert advice in document.text
    return document


@pytest.mark.parametrize(
    ("path", "status", "advice"),
    [
        ("/ui/nothing", 404, "Look for the group on the fleet"),
        ("/ui/groups/" + "0" * 32, 404, "Look for the group on the fleet"),
        ("/ui/alerts/x", 422, "Correct the address"),
        ("/ui/actions/nothing", 422, "Correct the address"),
        ("/ui/switches/nobody", 404, "An old link"),
    ],
)
async def test_it_has_the_navigation_and_says_what_to_do(world: World, path: str, status: int, advice: str) -> None:
    answer = await world.clients[0].get(path, headers=HTML)
    assert answer.status_code == status
    looked_at(answer.text, status, advice)


async def test_while_postgres_is_away_a_page_and_a_form_can_be_tried_again(
    servers: TestServers, database: str, world: World
) -> None:
    client = world.clients[0]
    page = read((await client.get("/ui/actions/pause?route=accuracy", headers=HTML)).text)
    fields = {each.attributes["name"]: each.attributes["value"] for each in page.find("input", type="hidden")}
    await allow_connections(servers, database, False)
    answer = await client.get("/ui?days=7", headers=HTML)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    document = looked_at(answer.text, 503, "Try again in a few seconds")
    assert [a.attributes["href"] for a in document.find("a", class_="act")] == ["?days=7", "ui"]
    written = fields | {"reason": "a freeze <b>"}
    refused = await client.post("/ui/actions/pause", data=written, headers=OURS)
    assert refused.status_code == 503
    document = looked_at(refused.text, 503, "Try again in a few seconds")
    assert "a freeze <b>" in document.text
    [form] = [form for form in document.find("form") if "Send it again" in form.text]
    again = {each.attributes["name"]: each.attributes["value"] for each in form.find("input")}
    assert again == written
    await allow_connections(servers, database, True)
    assert (await client.post("/ui/actions/pause", data=again, headers=OURS)).status_code == 303


async def test_a_fault_of_ours_has_an_id_to_report(world: World) -> None:
    async with world.services[0].core.engine.begin() as conn:
        await conn.execute(text("ALTER TABLE notices RENAME TO mislaid"))
    answer = await world.clients[0].get("/ui", headers=HTML)
    document = looked_at(answer.text, 500, "report it with its error id")
    assert answer.status_code == 500
    assert re.search(r"Error id: [0-9a-f]{8}", document.text)


@pytest.mark.parametrize(
    ("name", "filled", "status", "fault"),
    [
        ("pause", {"route": "accuracy", "until": "2020-01-01T00:00"}, 422, "must end in the future"),
        ("pause", {"route": "accuracy", "until": "yesterday"}, 422, "until"),
        ("lift", {"route": "accuracy"}, 404, "Nobody has paused"),
    ],
)
async def test_a_form_that_is_refused_comes_again_with_what_was_written(
    world: World, name: str, filled: dict[str, str], status: int, fault: str
) -> None:
    client = world.clients[0]
    page = read((await client.get(f"/ui/actions/{name}?route=accuracy", headers=HTML)).text)
    fields = {each.attributes["name"]: each.attributes["value"] for each in page.find("input", type="hidden")}
    answer = await client.post(f"/ui/actions/{name}", data=fields | filled | {"reason": 'why "so"'}, headers=OURS)
    assert answer.status_code == status
    document = read(answer.text)
    assert fault in document.text
    if status == 422:
        assert next(document.find("input", name="reason")).attributes["value"] == 'why "so"'
        assert next(document.find("input", name="until")).attributes["value"] == filled["until"]
    else:
        assert 'why "so"' in document.text
