"""The pages Promotions, House, Policy and of a switch say what the API says."""

from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urljoin

import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7

from app.deadman.sentences import next_step
from app.decide.state import group_key
from app.kit.outbox.model import new_item
from app.notices import store as notices
from app.promotion import store
from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.integration.test_long_history import recorded
from tests.servers import TestServers
from tests.ui.history import POLICY, promotions, rich
from tests.ui.reading import groups_of, page_of, utc

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


async def test_a_group_says_who_promoted_its_newest_version_or_took_it_back(world: World) -> None:
    since, triggers = NOON - timedelta(days=30), await world.triggers()
    changes = (await world.get("/api/v1/promotions", limit=1000))["items"]
    changes = [c for c in changes if c["state"] in ("promoted", "rolled_back") and utc(c["ended_at"]) >= since]
    seen = set()
    for key, (route, group) in (await groups_of(world)).items():
        mine = [t for t in triggers if (t["route"], t["group"]) == (route["name"], group["group"])]
        made = {(v["model"], v["version"]) for t in mine for run in t["runs"] for v in run["versions"]}
        ours = [change for change in changes if (change["model"], change["version"]) in made]
        newest = max(ours, key=lambda change: utc(change["ended_at"]), default=None)
        shown = list((await page_of(world, f"/ui/groups/{key}")).having("data-last-promotion"))
        assert [each.attributes["data-last-promotion"] for each in shown] == ([newest["id"]] if newest else [])
        assert all(f"by {newest['requested_by']}" in each.text for each in shown if newest)
        seen.add(newest and newest["state"])
    assert {"promoted", "rolled_back"} <= seen


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


async def test_the_house_shows_what_waits_for_delivery_and_what_is_dead(world: World) -> None:
    assert "Nothing waits." in (await page_of(world, "/ui/house")).text
    items = [new_item(uuid7(), "nobody's", f"airflow:{name}", {}, NOON - timedelta(hours=2)) for name in "aab"]
    items[2]["state"] = "dead"
    async with world.services[0].core.engine.begin() as conn:
        await notices.send(conn, items)
    document = await page_of(world, "/ui/house")
    shown = {
        element.attributes["data-target"]: " ".join(element.text.split()) for element in document.having("data-target")
    }
    assert shown == {
        "airflow:a": "airflow:a: 2 wait, the oldest since 2026-11-23 10:00 UTC (2h ago)",
        "airflow:b": "airflow:b: 1 dead",
    }


async def test_a_switch_has_a_page_with_its_explanation(world: World) -> None:
    found = await world.get("/api/v1/deadman/m00-retrained")
    document = await page_of(world, "/ui/switches/m00-retrained")
    assert found["explanation"] in document.text
    assert found["due_at"] in [time.attributes["datetime"] for time in document.find("time")]
    [group] = [a for a in document.find("a") if a.text == "Look at its group"]
    key = group_key("accuracy", "live", found["group"])
    assert urljoin("/ui/switches/m00-retrained", group.attributes["href"]) == f"/ui/groups/{key}"
    assert "There is no switch" in (await page_of(world, "/ui/switches/a%2Fb", 404)).text


@pytest.mark.parametrize(
    ("kind", "state", "words"),
    [
        ("retrain", "down", "Start a run"),
        ("alert", "down", "other alerts may be lost"),
        ("ping", "grace", "Look at the job"),
        ("ping", "up", "Nothing."),
        ("retrain", "new", "Nothing."),
        ("alert", "paused", "`trigger-gateway deadman resume`"),
        ("gone", "down", "Nothing."),
    ],
)
async def test_a_switch_says_what_to_do(kind: str, state: str, words: str) -> None:
    assert words in next_step({"kind": kind, "state": state})


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


async def test_the_policy_shows_beside_each_line_what_it_did(servers: TestServers, template: str) -> None:
    policy = POLICY.replace("debounce: 6h", "debounce: 10m\n    limit: {triggers: 1, per: 7d}")
    async with World(servers, servers.fresh_database(template), policy) as world:
        world.airflow.add_dag("retrain_model")
        drift = [world.alert("Drift", model=f"m{number}") for number in range(4)]
        await world.push(*drift)
        await world.pass_by(minutes=5)
        await world.push(*(alert.resolved(world.clock.now()) for alert in drift[1:3]))
        await world.pass_by(minutes=6)  # One fires, and the other is over the limit.
        await world.pass_by(minutes=30)  # The run ends.
        [fired] = [trigger for trigger in await world.triggers() if trigger["fired_at"]]
        await world.push(world.alert("Drift", **fired["group"], more="1"))
        document = await page_of(world, "/ui/policy")
        [route] = document.find("section", data_route="drift")
        shown = {element.attributes["data-line"]: element.text for element in route.having("data-line")}
        assert shown == {
            "match": "5 alerts arrived",
            "debounce": "called off 2 of 3",
            "cooldown": "kept back 1 alert",
            "limit": "kept back 1 alert",
            "dag": "started 1 time",
        }
        [quiet] = document.find("section", data_route="accuracy")
        shown = {element.attributes["data-line"]: element.text for element in quiet.having("data-line")}
        assert shown == {"match": "0 alerts arrived", "cooldown": "kept back 0 alerts", "dag": "started 0 times"}


async def test_the_policy_takes_a_few_statements_however_many_routes_it_has(world: World) -> None:
    route = "\n  - {{name: r{0}, match: ['alertname=\"A{0}\"'], dag: {{id: retrain_model}}}}"
    many = "routes:" + "".join(map(route.format, range(100)))
    taken = []
    for policy in (POLICY, POLICY.replace("routes:", many, 1), POLICY):
        assert (await world.reload(policy)).status_code == 200
        await page_of(world, "/ui/policy")
        with recorded(world) as statements:
            await page_of(world, "/ui/policy")
        taken.append(len(statements))
    assert taken == [taken[0]] * 3
    assert taken[0] <= 5, taken


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
