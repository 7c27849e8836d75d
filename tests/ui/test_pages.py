"""What the pages say: the same as the API, for every state, for an empty history and for hostile labels."""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_asyncio

from app.decide.state import group_key
from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.servers import TestServers
from tests.ui.history import FATES, HOSTILE, POLICY, hostile, rich
from tests.ui.reading import Element, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

HTML = {"Accept": "text/html,application/xhtml+xml"}
MODELS = 60
#: Everything that a page is made of. What is not here came from outside.
TAGS = set(
    """a article bdi body button circle code dd defs details div dl dt footer form g h1 h2 h3 head header html input label
    legend li line link main meta nav ol option p path pattern pre rect section select span strong summary svg symbol table
    tbody td text th thead time title tr ul use""".split()  # noqa: SIM905 (one word a tag)
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    async with World(servers, servers.fresh_database(template), POLICY) as world:
        await rich(NOON, models=MODELS).write(world.services[0].core.engine)
        await world.services[0].loop("watch").step()  # It makes the switches.
        yield world


async def page_of(world: World, path: str, status: int = 200) -> Element:
    answer = await world.clients[0].get(path, headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), answer.text
    document = read(answer.text)
    assert {element.tag for element in document.find()} <= TAGS
    return document


async def rows_of(world: World, query: str = "") -> list[Element]:
    """The rows of every page of the fleet."""
    rows: list[Element] = []
    path: str | None = f"/ui{query}"
    while path is not None:
        document = await page_of(world, path)
        rows += document.having("data-group")
        following = next(document.find("a", rel="next"), None)
        path = urljoin("/ui", following.attributes["href"]) if following else None
    return rows


async def groups_of(world: World) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What `GET /api/v1/routes` says, by the key of each group: its route and its state."""
    routes = (await world.get("/api/v1/routes", limit=1000))["items"]
    return {group_key(r["name"], r["mode"], g["group"]): (r, g) for r in routes for g in r["groups"]}


async def test_the_fleet_has_each_group_of_the_api_with_its_state(world: World) -> None:
    rows, groups = await rows_of(world), await groups_of(world)
    assert len(rows) == len({row.attributes["data-group"] for row in rows}) == len(groups) == MODELS
    for row in rows:
        _, group = groups[row.attributes["data-group"]]
        [state] = row.having("data-state")
        assert state.attributes["data-state"] == group["state"]
        until = group["held_until"] or group["cooldown_until"]
        shown = [element.attributes["datetime"] for element in state.find("time")]
        assert shown == ([until] if until else [])


async def test_what_needs_a_person_comes_first_and_says_what_to_do(world: World) -> None:
    rows = await rows_of(world)
    needing = ["needs a person" in row.text for row in rows]
    assert needing == sorted(needing, reverse=True)
    assert 0 < sum(needing) < len(needing)
    for row in rows:
        trigger = next((a for a in row.find("a", class_="last")), None)
        if trigger is None or "held" in [e.attributes["data-state"] for e in row.having("data-state")]:
            continue
        found = await world.explain(trigger.attributes["href"].rpartition("/")[2])
        assert plain(found["next_step"]) in row.text
        assert ("needs a person" in row.text) == (not found["next_step"].startswith("Nothing."))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text)


def expected_marks(
    since: datetime,
    alerts: list[dict[str, Any]],
    triggers: list[dict[str, Any]],
    promotions: list[dict[str, Any]],
    group: dict[str, Any],
) -> set[tuple[str, str, str, datetime, datetime]]:
    """The marks of a lane, told from the API's answers."""
    marks = set()
    for alert in alerts:
        end = NOON if alert["status"] == "firing" else utc(alert["last_seen_at"])
        marks.add(("episode", alert["severity"], alert["id"], utc(alert["first_seen_at"]), end))
    for trigger in triggers:
        created, ended = utc(trigger["created_at"]), trigger["ended_at"] and utc(trigger["ended_at"])
        fired = trigger["fired_at"] and utc(trigger["fired_at"])
        ident = trigger["id"]
        if trigger["state"] == "held":
            marks.add(("hold", "held", ident, created, utc(group["held_until"])))
            continue
        if (fired or ended) - created > timedelta(seconds=1):
            marks.add(("hold", "held", ident, created, fired or ended))
        word = "lost" if trigger["lost_at"] else trigger["state"]
        word = "shadow" if trigger["mode"] == "shadow" and fired else word
        marks.add(("run", word, ident, fired or ended, ended or NOON))
    made = {(v["model"], v["version"]) for trigger in triggers for run in trigger["runs"] for v in run["versions"]}
    for row in promotions:
        if row["state"] in ("promoted", "rolled_back") and (row["model"], row["version"]) in made:
            marks.add(("promotion", row["state"], row["id"], utc(row["ended_at"]), utc(row["ended_at"])))
    if group["cooldown_until"]:
        marks.add(("cooldown", "cooldown", group["last_trigger"], utc(group["fired_at"]), utc(group["cooldown_until"])))
    return {mark for mark in marks if mark[4] >= since}


async def test_a_lane_shows_what_the_api_says_mark_by_mark(world: World) -> None:
    groups, rows = await groups_of(world), await rows_of(world)
    since = NOON - timedelta(days=30)
    alerts, triggers = await world.alerts(), await world.triggers()
    promotions = (await world.get("/api/v1/promotions", limit=1000))["items"]
    kinds = set()
    for row in rows:
        route, group = groups[row.attributes["data-group"]]
        place = (route["name"], group["group"])
        alerted = [alert for alert in alerts if (alert["route"], alert["group"]) == place]
        triggered = [trigger for trigger in triggers if (trigger["route"], trigger["group"]) == place]
        drawn = set()
        for mark in row.find("g"):
            a = mark.attributes
            kinds.add(a["data-kind"])
            if a["data-kind"] != "deadline":
                drawn.add((a["data-kind"], a["data-word"], a["data-id"], utc(a["data-start"]), utc(a["data-end"])))
        assert drawn == expected_marks(since, alerted, triggered, promotions, group)
    assert kinds == {"episode", "hold", "run", "cooldown", "promotion", "deadline"}


async def test_a_mark_lies_where_its_times_are(world: World) -> None:
    for row in await rows_of(world):
        [lane] = row.find("svg", class_="lane")
        since, until = utc(lane.attributes["data-since"]), utc(lane.attributes["data-until"])
        for mark in lane.find("g"):
            bar = next(mark.find("rect"), None)
            if bar is not None:
                x, width = (float(bar.attributes[name].rstrip("%")) for name in ("x", "width"))
                ends = (utc(mark.attributes["data-start"]), utc(mark.attributes["data-end"]))
                begin, end = (min(max((at - since) / (until - since), 0), 1) * 100 for at in ends)
                assert (x, x + width) == pytest.approx((begin, end), abs=0.01)


async def test_the_deadline_of_a_switch_is_on_the_lane_of_its_group(world: World) -> None:
    switch = await world.get("/api/v1/deadman/m00-retrained")
    found = [(row, mark) for row in await rows_of(world) for mark in row.find("g", data_kind="deadline")]
    [(row, mark)] = found
    assert "m00-churn" in row.text
    assert (mark.attributes["data-start"], mark.attributes["data-word"]) == (switch["due_at"], switch["state"])


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("?state=needs_person", lambda row: "needs a person" in row.text),
        (
            "?state=held",
            lambda row: next(row.find(data_state="held"), None),
        ),
        ("?state=cooldown", lambda row: next(row.find(data_state="cooldown"), None)),
        ("?state=firing", lambda row: "firing" in row.text),
        ("?route=drift", lambda row: "drift" in row.text),
        ("?label=model%3Dm01-fraud", lambda row: "m01-fraud" in row.text),
        ("?label=m01-fraud", lambda row: "m01-fraud" in row.text),
    ],
)
async def test_a_filter_shows_all_that_fit_and_nothing_else(world: World, query: str, fits: Any) -> None:
    every, filtered = await rows_of(world), await rows_of(world, query)
    wanted = {row.attributes["data-group"] for row in every if fits(row)}
    assert {row.attributes["data-group"] for row in filtered} == wanted
    assert 0 < len(wanted) < len(every)


async def test_a_filter_that_nothing_fits_says_so(world: World) -> None:
    document = await page_of(world, "/ui?label=model%3Dnobody&route=accuracy&days=7")
    assert "No group fits this filter" in document.text
    [label] = document.find("input", name="label")
    assert label.attributes["value"] == "model=nobody"


def plain(text: str) -> str:
    """A sentence as a page has it: what stands in backticks is code."""
    return text.replace("`", "")


PAGES = ("groups", "alerts", "triggers", "promotions", "house", "policy", "switches", "actions")


@pytest.mark.parametrize("path", ["/ui?route=&state=&label=&days=30", "/ui/promotions?model=&state="])
async def test_a_form_that_is_sent_with_empty_fields_filters_nothing(world: World, path: str) -> None:
    everything = await page_of(world, path.partition("?")[0])
    assert (await page_of(world, path)).text == everything.text


@pytest.mark.parametrize("query", ["label=%00", "route=" + "x" * 10_001, "days=0", "page=x"])
async def test_a_filter_that_cannot_be_read_is_named(world: World, query: str) -> None:
    assert query.partition("=")[0] in (await page_of(world, f"/ui?{query}", 422)).text


async def test_every_link_of_every_page_leads_to_a_page(world: World) -> None:
    seen: set[str] = set()
    waiting = ["/ui"]
    found: Counter[str] = Counter()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        kind = path.split("/")[2].partition("?")[0] if path.count("/") > 1 else ""
        found[kind] += 1
        if found[kind] > 20:
            continue
        document = await page_of(world, path)
        for link in document.find("a"):
            target = urljoin(f"http://localhost{path}", link.attributes["href"]).partition("#")[0]
            local = target.removeprefix("http://localhost")
            if local.startswith("/ui") and local not in seen and local not in waiting:
                waiting.append(local)
    assert found.keys() == {"", *PAGES}


async def test_a_group_an_alert_and_a_trigger_say_what_the_api_says(world: World) -> None:
    for key, (route, group) in list((await groups_of(world)).items())[: len(FATES)]:
        label = f"model={group['group']['model']}"
        why = await world.get(f"/api/v1/routes/{route['name']}/explain", since="30d", label=label)
        document = await page_of(world, f"/ui/groups/{key}")
        for name in ("summary", "would_fire", "next_step"):
            assert plain(why[name]) in document.text
        alerts = await world.alerts(route=route["name"], label=label, since=(NOON - timedelta(days=30)).isoformat())
        assert [a.attributes["data-alert"] for a in document.having("data-alert")] == [alert["id"] for alert in alerts]
        drift = (await world.get("/api/v1/episodes", route=route["name"], label=label, since="30d", limit=10))["items"]
        assert [row.attributes["data-episode"] for row in document.having("data-episode")] == [d["id"] for d in drift]
        for kind, item in (("alerts", alerts[:1]), ("triggers", [{"id": group["last_trigger"]}])):
            for ident in (each["id"] for each in item if each["id"]):
                found = await world.explain(ident)
                text = (await page_of(world, f"/ui/{kind}/{ident}")).text
                assert found["summary"] in text
                assert all(decision["detail"] in text for decision in found["decisions"])


async def test_the_chain_leads_to_airflow_and_to_mlflow(world: World) -> None:
    trigger = next(t for t in await world.triggers(status="succeeded") if t["runs"])
    document = await page_of(world, f"/ui/triggers/{trigger['id']}")
    [chain] = document.find("ol", class_="chain")
    links = [link.attributes["href"] for link in chain.find("a")]
    assert f"http://airflow.test:8080/dags/retrain_model/runs/{trigger['dag_run_id']}" in links
    [version] = trigger["runs"][0]["versions"]
    assert f"http://mlflow.test:5000/#/models/{version['model']}/versions/{version['version']}" in links
    assert all(f"/alerts/{alert['id']}" in "".join(links) for alert in trigger["alerts"])


async def test_a_trigger_shows_the_conf_that_airflow_gets(world: World) -> None:
    for trigger in (await world.triggers())[:30]:
        shown = [json.loads(e.text) for e in (await page_of(world, f"/ui/triggers/{trigger['id']}")).find("pre")]
        assert shown == (
            [{"gateway": {"trigger_id": trigger["id"]}, "dataset": "s3://<b>"}] if trigger["fired_at"] else []
        )


async def test_open_incidents_stand_above_the_fleet(world: World) -> None:
    incidents = (await world.get("/api/v1/notices", open=True))["items"]
    document = await page_of(world, "/ui")
    shown = {element.attributes["data-incident"]: element.text for element in document.having("data-incident")}
    assert shown.keys() == {incident["id"] for incident in incidents}
    assert all(incident["title"] in shown[incident["id"]] for incident in incidents)


async def test_hostile_labels_are_text_and_nothing_else(servers: TestServers, template: str) -> None:
    async with World(servers, servers.fresh_database(template), POLICY) as world:
        await hostile(NOON).write(world.services[0].core.engine)
        rows = await rows_of(world)
        assert len(rows) == len(HOSTILE)
        for text in HOSTILE:
            key = group_key("accuracy", "live", {"model": text})
            document = await page_of(world, f"/ui/groups/{key}")
            assert text[:60] in document.text
            assert {name for e in document.find() for name in e.attributes if name.startswith("on")} == set()
            links = [link.attributes["href"] for link in document.find("a")]
            assert all(not re.match(r"\s*\w+:", link) for link in links), "an address of ours is relative"
            asked = await world.clients[0].get("/ui", params={"label": f"model={text}"}, headers=HTML)
            [typed] = read(asked.text).find("input", name="label")
            assert typed.attributes["value"] == f"model={text}".strip()
        for kind, items in (("alerts", await world.alerts()), ("triggers", await world.triggers())):
            for item in items:
                await page_of(world, f"/ui/{kind}/{item['id']}")


async def test_without_a_history_the_fleet_says_what_to_do(servers: TestServers, template: str) -> None:
    async with World(servers, servers.fresh_database(template), POLICY) as world:
        document = await page_of(world, "/ui")
        assert "No alert has arrived yet" in document.text
        assert "/api/v1/webhooks/alertmanager" in document.text


async def test_every_page_forbids_scripts_frames_and_everything_from_elsewhere(world: World) -> None:
    for path in ("/ui", "/ui/groups/" + "0" * 32, "/ui/nothing", "/ui/style.css", "/ui/icon.svg"):
        answer = await world.clients[0].get(path, headers=HTML)
        policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert not {"script-src", "script-src-elem"} & policy.keys()
        assert "unsafe" not in str(policy)
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        if "css" not in path and "svg" not in path:
            assert answer.headers["cache-control"] == "no-store"
            document = read(answer.text)
            assert not list(document.find("script")) + list(document.find("style"))
            assert not list(document.having("style"))
            for name in ("src", "href", "action"):
                for element in document.having(name):
                    assert "//" not in element.attributes[name]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/ui/nothing/here", 404, "There is no such page"),
        ("/ui/groups/" + "0" * 32, 404, "There is no such group"),
        ("/ui/groups/short", 422, "The request has 1 error"),
        ("/ui/alerts/01a20967-2119-717a-bc81-761cac4c96d5", 404, "There is no alert"),
        ("/ui/triggers/x", 422, "The request has 1 error"),
        ("/ui?days=0", 422, "The request has 1 error"),
        ("/ui?label=%00", 422, "NUL"),
        ("/ui?page=99", 200, "No group fits"),
    ],
)
async def test_an_error_is_a_page_for_a_browser_and_a_problem_for_a_program(
    world: World, path: str, status: int, says: str
) -> None:
    document = await page_of(world, path, status)
    assert says in document.text
    if status >= 400:
        answer = await world.clients[0].get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_the_root_leads_a_browser_to_the_fleet_and_a_program_to_the_documentation(world: World) -> None:
    for headers, target in ((HTML, "ui"), ({}, "docs"), ({"Accept": "application/json"}, "docs")):
        answer = await world.clients[0].get("/", headers=headers)
        assert (answer.status_code, answer.headers["location"]) == (307, target)
        assert answer.headers["vary"] == "Accept"
