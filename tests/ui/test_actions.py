"""What people change from a page: the same code, scopes and audit as the API, after a page that asks again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import httpx
import pytest
from sqlalchemy import text

from app.decide.state import group_key
from app.kit.clock import SystemClock
from app.ui.actions_api import ACTIONS
from app.web.tokens import create_token
from tests.acceptance.world import World
from tests.integration.api import POLICY as ROUTES
from tests.servers import TestServers
from tests.ui.reading import Element, read

HTML = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
POLICY = (
    ROUTES
    + """
deadman:
  - {name: nightly, expect: heartbeat, every: 1d, grace: 1h, receivers: [ops]}
receivers:
  - {name: ops, webhook: {url: "http://ops.test/hook", secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}
"""
)
CHURN = {"model": "churn"}


@dataclass
class Desk:
    """A person with a session in the browser `client`, for a gateway with a group in cooldown and another that is held."""

    world: World
    client: httpx.AsyncClient
    tokens: dict[str, str]

    async def login(self, name: str) -> None:
        self.client.cookies.clear()
        page = read((await self.client.get("/ui/login", headers=HTML)).text)
        fields = {"form": next(page.find("input", name="form")).attributes["value"], "token": self.tokens[name]}
        assert (await self.client.post("/ui/login", data=fields, headers=HTML)).status_code == 303

    async def page(self, path: str) -> Element:
        answer = await self.client.get(path, headers=HTML)
        assert answer.status_code == 200, answer.text
        return read(answer.text)

    async def act(self, name: str, query: str, *, status: int = 303, **filled: str) -> httpx.Response:
        """Open the page of an action, fill its form in, and send it."""
        [form] = (await self.page(f"/ui/actions/{name}?{query}")).find("form", action=f"../../ui/actions/{name}")
        fields = {f.attributes["name"]: f.attributes.get("value", "") for f in form.find("input", type="hidden")}
        shown = {f.attributes["name"] for f in form.find("input")}
        assert filled.keys() <= shown
        answer = await self.client.post(f"/ui/actions/{name}", data=fields | filled, headers=HTML)
        assert answer.status_code == status, answer.text
        return answer

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path, headers={"Authorization": f"Bearer {self.tokens['boss']}"})
        return answer.json()

    async def audited(self) -> list[tuple[str, str]]:
        async with self.world.services[0].core.engine.connect() as conn:
            rows = await conn.execute(text("SELECT caller, action FROM audit ORDER BY id"))
            return [(row[0], row[1]) for row in rows]


@pytest.fixture
async def desk(servers: TestServers, database: str, tmp_path: Path) -> AsyncIterator[Desk]:
    file, now = tmp_path / "tokens", SystemClock().now()
    scopes = {"reader": ["read"], "operator": ["read", "trigger"], "boss": ["admin"]}
    tokens = {name: create_token(file, mine, name, now) for name, mine in scopes.items()}
    async with World(servers, database, POLICY, tokens_file=file) as world:
        world.airflow.add_dag("retrain_model")
        world.clients[0].headers["Authorization"] = f"Bearer {tokens['boss']}"
        await world.push(world.alert(model="churn"), world.alert("Drift", model="spam"))
        await world.settle()
        await world.pass_by(minutes=1)
        del world.clients[0].headers["Authorization"]
        desk = Desk(world, world.clients[0], tokens)
        await desk.login("operator")
        yield desk


def key(route: str, **labels: str) -> str:
    return group_key(route, "live", labels)


async def test_a_pause_mutes_the_route_and_can_be_lifted(desk: Desk) -> None:
    until = (desk.world.clock.now() + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M")
    answer = await desk.act("pause", "route=accuracy", until=until, reason="data freeze")
    assert answer.headers["location"] == "../../ui?route=accuracy"
    routes = {route["name"]: route for route in (await desk.get("/api/v1/routes"))["items"]}
    pause = routes["accuracy"]["pause"]
    assert (pause["reason"], pause["by"], pause["until"]) == ("data freeze", "operator", f"{until}:00Z")
    assert routes["drift"]["pause"] is None
    group = await desk.page(f"/ui/groups/{key('accuracy', **CHURN)}")
    assert "operator has paused it: data freeze" in group.text
    assert [a.text for a in group.find("a", class_="act")][-1] == "Lift the pause of accuracy…"
    await desk.act("lift", "route=accuracy")
    routes = {route["name"]: route for route in (await desk.get("/api/v1/routes"))["items"]}
    assert routes["accuracy"]["pause"] is None
    assert await desk.audited() == [("operator", "pause"), ("operator", "resume")]


async def test_every_route_can_be_paused_at_once(desk: Desk) -> None:
    answer = await desk.act("pause", "route=-", reason="stop")
    assert answer.headers["location"] == "../../ui"
    assert {r["pause"]["route"] for r in (await desk.get("/api/v1/routes"))["items"]} == {"-"}


async def test_a_reset_clears_the_cooldown_of_its_group(desk: Desk) -> None:
    await desk.world.pass_by(minutes=40)
    page = await desk.page(f"/ui/groups/{key('accuracy', **CHURN)}")
    [link] = [a for a in page.find("a", class_="act") if a.text == "Reset the cooldown…"]
    assert link.attributes["href"].endswith(f"ui/actions/reset?group={key('accuracy', **CHURN)}")
    before = len(desk.world.airflow.posts)
    await desk.act("reset", f"group={key('accuracy', **CHURN)}")
    assert ("operator", "reset") in await desk.audited()
    await desk.world.settle()
    assert len(desk.world.airflow.posts) == before + 1, "the alert still fires, so the next run starts"


async def test_a_run_is_started_once_however_often_the_form_is_sent(desk: Desk) -> None:
    await desk.world.pass_by(minutes=40)
    group = key("accuracy", **CHURN)
    refused = await desk.act("trigger", f"group={group}", status=409, reason="new labels")
    assert "cools down until" in refused.text
    page = await desk.page(f"/ui/actions/trigger?group={group}")
    fields = {f.attributes["name"]: f.attributes.get("value", "") for f in page.find("input", type="hidden")}
    places = set()
    for _ in range(2):
        filled = fields | {"reason": "new labels", "force": "on"}
        answer = await desk.client.post("/ui/actions/trigger", data=filled, headers=HTML)
        assert answer.status_code == 303, answer.text
        places.add(answer.headers["location"])
    [place] = places
    found = await desk.get(f"/api/v1/triggers/{place.rpartition('/')[2]}")
    assert (found["reason"], found["requested_by"]) == ("forced", "operator")
    assert [action for _, action in await desk.audited()].count("force") == 1


async def test_a_held_trigger_is_cancelled(desk: Desk) -> None:
    held = next(t for t in (await desk.get("/api/v1/triggers"))["items"] if t["state"] == "held")
    page = await desk.page(f"/ui/triggers/{held['id']}")
    assert [a.text for a in page.find("a", class_="act")] == ["Cancel it…"]
    answer = await desk.act("cancel", f"trigger={held['id']}")
    assert answer.headers["location"] == f"../../ui/triggers/{held['id']}"
    found = await desk.get(f"/api/v1/triggers/{held['id']}")
    assert (found["state"], found["detail"]) == ("cancelled", "cancelled by operator")
    again = await desk.act("cancel", f"trigger={held['id']}", status=409)
    assert "Only a held trigger can be cancelled" in again.text


async def test_a_trigger_that_is_not_dead_is_not_redriven(desk: Desk) -> None:
    live = (await desk.get("/api/v1/triggers"))["items"][0]
    answer = await desk.act("redrive", f"trigger={live['id']}", status=409)
    assert "Only a dead trigger can be redriven" in answer.text


async def test_a_switch_is_forgotten(desk: Desk) -> None:
    ping = {"Authorization": f"Bearer {desk.tokens['boss']}"}
    await desk.client.get("/ping/nightly", headers=ping)
    assert (await desk.get("/api/v1/deadman/nightly"))["last_at"] is not None
    house = await desk.page("/ui/house")
    assert any(a.text == "Forget…" for a in house.find("a"))
    await desk.act("forget", f"switch={quote('nightly')}")
    assert (await desk.get("/api/v1/deadman/nightly"))["last_at"] is None
    assert ("operator", "forget") in await desk.audited()


QUERIES = {"route": "route=accuracy", "group": f"group={key('accuracy', **CHURN)}", "switch": "switch=nightly"}


@pytest.mark.parametrize("name", ACTIONS)
async def test_only_who_may_is_asked_and_only_a_form_of_that_session_acts(desk: Desk, name: str) -> None:
    held = next(t for t in (await desk.get("/api/v1/triggers"))["items"] if t["state"] == "held")
    query = QUERIES.get(ACTIONS[name].subject, f"trigger={held['id']}")
    fields = dict(parse_qsl(query)) | {"reason": "x"}
    before = await desk.audited()
    for form in ({}, {"form": "0" * 64}):
        answer = await desk.client.post(f"/ui/actions/{name}", data=fields | form, headers=HTML)
        assert answer.status_code == 403
    await desk.login("reader")
    refused = await desk.client.get(f"/ui/actions/{name}?{query}", headers=HTML)
    assert (refused.status_code, "lacks the scope trigger" in refused.text) == (403, True)
    page = await desk.page("/ui")
    mine = {"form": next(page.find("input", name="form")).attributes["value"]}
    answer = await desk.client.post(f"/ui/actions/{name}", data=fields | mine, headers=HTML)
    assert answer.status_code == 403
    assert await desk.audited() == before


async def test_a_reader_sees_no_action(desk: Desk) -> None:
    held = next(t for t in (await desk.get("/api/v1/triggers"))["items"] if t["state"] == "held")
    paths = ["/ui", "/ui/house", "/ui/policy", f"/ui/triggers/{held['id']}", f"/ui/groups/{key('accuracy', **CHURN)}"]
    for name, sees in (("operator", True), ("reader", False)):
        await desk.login(name)
        found = [a for path in paths for a in (await desk.page(path)).find("a") if "/actions/" in a.attributes["href"]]
        assert bool(found) == sees


@pytest.mark.parametrize(
    ("name", "query", "status"),
    [
        ("pause", "", 422),
        ("pause", "route=nowhere", 404),
        ("reset", "group=x", 404),
        ("cancel", "trigger=x", 404),
        ("redrive", "trigger=01a20967-2119-717a-bc81-761cac4c96d5", 404),
        ("nothing", "", 404),
        ("lift", "route=%00", 422),
    ],
)
async def test_an_action_on_nothing_is_named(desk: Desk, name: str, query: str, status: int) -> None:
    answer = await desk.client.get(f"/ui/actions/{name}?{query}", headers=HTML)
    assert answer.status_code in (status, 422 if name == "nothing" else status), answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_a_field_that_cannot_be_read_is_named(desk: Desk) -> None:
    answer = await desk.act("pause", "route=accuracy", status=422, reason="", until="yesterday")
    assert "until" in answer.text
    answer = await desk.act("pause", "route=accuracy", status=422, reason="x", until="2020-01-01T00:00")
    assert "must end in the future" in answer.text
