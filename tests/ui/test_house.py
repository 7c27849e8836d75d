"""The pages Promotions, House, Policy and of a switch say what the API says."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from app.promotion import store
from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.servers import TestServers
from tests.ui.history import POLICY, promotions, rich
from tests.ui.test_pages import page_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    async with World(servers, servers.fresh_database(template), POLICY) as world:
        engine = world.services[0].core.engine
        await rich(NOON, models=12).write(engine)
        async with engine.begin() as conn:
            for row in promotions(NOON):
                assert await store.add(conn, row)
        await world.services[0].loop("watch").step()
        await world.post("/api/v1/alerts", b'[{"alert_id": "x", "severity": "low", "timestamp": "soon"}]')
        yield world


async def test_promotions_are_listed_with_their_verdicts(world: World) -> None:
    items = (await world.get("/api/v1/promotions", limit=50))["items"]
    document = await page_of(world, "/ui/promotions")
    rows = list(document.having("data-promotion"))
    assert [row.attributes["data-promotion"] for row in rows] == [item["id"] for item in items]
    for row, item in zip(rows, items, strict=True):
        assert item["state"].replace("_", " ") in row.text
        assert all(f"{verdict['rule']} {verdict['detail']}" in row.text for verdict in item["verdicts"])


async def test_a_model_shows_who_held_its_alias_and_since_when(world: World) -> None:
    document = await page_of(world, "/ui/promotions?model=churn")
    [reigns] = document.find("ol", data_alias="champion")
    times = [[time.attributes["datetime"] for time in li.find("time")] for li in reigns.find("li")]
    shown = list(zip([li.attributes["data-version"] for li in reigns.find("li")], times, strict=True))
    day = {days: (NOON - timedelta(days=days)).isoformat().replace("+00:00", "Z") for days in (40, 20, 19, 2)}
    assert shown == [("4", [day[2]]), ("1", [day[19], day[2]]), ("3", [day[20], day[19]]), ("1", [day[40], day[20]])]
    assert "a rollback" in reigns.text


async def test_a_filter_of_promotions_shows_what_fits(world: World) -> None:
    document = await page_of(world, "/ui/promotions?state=blocked")
    assert len(list(document.having("data-promotion"))) == 1
    assert "No promotion fits this filter" in (await page_of(world, "/ui/promotions?model=nobody")).text


async def test_the_house_shows_incidents_switches_quarantine_and_probes(world: World) -> None:
    document = await page_of(world, "/ui/house")
    incidents = (await world.get("/api/v1/notices"))["items"]
    assert {e.attributes["data-incident"] for e in document.having("data-incident")} == {i["id"] for i in incidents}
    switches = (await world.get("/api/v1/deadman"))["items"]
    rows = {row.attributes["data-switch"]: row.text for row in document.having("data-switch")}
    assert rows.keys() == {switch["name"] for switch in switches}
    assert all(
        switch["state"] in rows[switch["name"]] and switch["expects"] in rows[switch["name"]] for switch in switches
    )
    quarantined = (await world.get("/api/v1/quarantine"))["items"]
    assert {e.attributes["data-sha256"] for e in document.having("data-sha256")} == {q["sha256"] for q in quarantined}
    for probe in ("orchestrator", "metadata", "deadman"):
        checks = (await world.clients[0].get(f"/health/{probe}")).json()["checks"]
        shown = {e.attributes["data-check"]: e.text for e in document.having("data-check")}
        for check, state in checks.items():
            assert ("ok" if state == "ok" else state) in shown[check]


async def test_a_switch_has_a_page_with_its_explanation(world: World) -> None:
    found = await world.get("/api/v1/deadman/m00-retrained")
    document = await page_of(world, "/ui/switches/m00-retrained")
    assert found["explanation"] in document.text
    assert found["due_at"] in [time.attributes["datetime"] for time in document.find("time")]
    assert "There is no switch" in (await page_of(world, "/ui/switches/a%2Fb", 404)).text


async def test_the_policy_shows_each_route_with_what_it_did(world: World) -> None:
    document = await page_of(world, "/ui/policy")
    routes = {r["name"]: r for r in (await world.get("/api/v1/routes"))["items"]}
    shown = {e.attributes["data-route"]: e for e in document.having("data-route")}
    assert shown.keys() == routes.keys()
    for name, element in shown.items():
        assert all(text in element.text for text in (*routes[name]["match"], routes[name]["cooldown"]))
        why = await world.get(f"/api/v1/routes/{name}/explain", since="30d")
        reasons = [e.attributes["data-reason"] for e in element.having("data-reason")]
        assert reasons == [row["reason"] for row in why["decisions"]]


async def test_the_policies_that_were_in_force_are_listed_with_what_they_changed(world: World) -> None:
    await world.services[0].loop("policy").step()
    await world.reload(POLICY.replace("cooldown: 24h", "cooldown: 20h"))
    await world.services[0].loop("policy").step()
    items = (await world.get("/api/v1/policies"))["items"]
    document = await page_of(world, "/ui/policy")
    shown = {element.attributes["data-policy"]: element.text for element in document.having("data-policy")}
    assert len(items) > 1
    assert shown.keys() == {item["id"] for item in items}
    assert all(item["hash"] in shown[item["id"]] and item["diff"] in shown[item["id"]] for item in items)
    house = {e.attributes["data-replica"]: e.text for e in (await page_of(world, "/ui/house")).having("data-replica")}
    newest = {item["replica"]: item["hash"] for item in reversed(items)}
    assert house.keys() == newest.keys()
    assert all(digest in house[name] for name, digest in newest.items())
    await world.reload(POLICY)


async def test_a_refused_policy_file_is_shown_where_people_look(world: World) -> None:
    await world.reload(POLICY + "nonsense: true\n")
    for path in ("/ui/policy", "/ui/house"):
        assert "refused" in (await page_of(world, path)).text
    assert "nonsense" in (await page_of(world, "/ui/policy")).text
    await world.reload(POLICY)
    assert "refused" not in (await page_of(world, "/ui/policy")).text
