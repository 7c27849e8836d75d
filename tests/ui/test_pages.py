"""What the pages say: the same as the API, for every state, for an empty history and for hostile labels."""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_asyncio

from app import tables
from app.decide.drift import WORST_FIRST
from app.decide.state import group_key
from app.kit.db import insert_rows
from app.lineage.store import aliases_of
from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.integration.test_long_history import recorded
from tests.servers import TestServers
from tests.ui.history import FATES, HOSTILE, POLICY, hostile, rich
from tests.ui.reading import HTML, expected_marks, groups_of, lacked, page_of, read, rows_of, utc

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = 60


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    async with World(servers, servers.fresh_database(template), POLICY) as world:
        await rich(NOON, models=MODELS).write(world.services[0].core.engine)
        await world.services[0].loop("watch").step()  # It makes the switches.
        yield world


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


async def test_of_what_needs_a_person_the_worst_comes_first(world: World) -> None:
    firing: dict[str, int] = {}
    for alert in await world.alerts(status="firing"):
        key = group_key(alert["route"], "shadow" if alert["route"] == "rehearsal" else "live", alert["group"])
        firing[key] = min(WORST_FIRST.index(alert["severity"]), firing.get(key, len(WORST_FIRST)))
    needing = [row.attributes["data-group"] for row in await rows_of(world, "?state=needs_person")]
    places = [firing.get(key, len(WORST_FIRST)) for key in needing]
    assert places == sorted(places)
    assert len(set(places)) > 2


#: The most statements that a page takes, however many groups, alerts and triggers it shows.
STATEMENTS = {"": 8, "?days=365": 8, "?state=needs_person": 8, "?label=model%3Dm00-churn": 8, "?label=nobody": 8}


@pytest.mark.parametrize("query", STATEMENTS)
async def test_the_fleet_takes_a_few_statements_however_many_groups_there_are(world: World, query: str) -> None:
    await page_of(world, "/ui")
    with recorded(world) as statements:
        await page_of(world, f"/ui{query}")
    assert len(statements) <= STATEMENTS[query], [statement for statement, _ in statements]


async def test_a_group_takes_a_few_statements_however_much_happened_to_it(world: World) -> None:
    taken = Counter[int]()
    for key in list(await groups_of(world))[: len(FATES)]:
        for days in (1, 365):
            with recorded(world) as statements:
                await page_of(world, f"/ui/groups/{key}?days={days}")
            taken[len(statements)] += 1
    assert max(taken) <= 28, taken


async def test_the_silence_of_a_route_takes_a_few_statements_however_many_groups_fire(world: World) -> None:
    with recorded(world) as statements:
        found = await world.get("/api/v1/routes/accuracy/explain", since="30d")
    assert sum(group["now"] is not None for group in found["groups"]) > 5
    assert len(statements) <= 17, [statement for statement, _ in statements]


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
    document = await page_of(world, f"/ui/groups/{row.attributes['data-group']}")
    [shown] = document.having("data-switch")
    assert switch["state"] in shown.text
    assert [time.attributes["datetime"] for time in shown.find("time")] == [switch["due_at"]]
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


async def test_the_fleet_asks_again_by_itself_when_a_person_wants_it(world: World) -> None:
    answer = await world.clients[0].get("/ui?label=m01-fraud", headers=HTML)
    assert "refresh" not in answer.headers
    [start] = [a for a in read(answer.text).find("a") if a.text == "Refresh every minute"]
    target = urljoin("/ui", start.attributes["href"])
    answer = await world.clients[0].get(target, headers=HTML)
    assert answer.headers["refresh"] == "60"
    document = read(answer.text)
    assert [row.attributes["data-group"] for row in document.having("data-group")] == [
        group_key("accuracy", "live", {"model": "m01-fraud"})
    ]
    [kept] = document.find("input", name="refresh")
    assert kept.attributes["value"] == "60"
    [stop] = [a for a in document.find("a") if a.text == "stop"]
    assert urljoin("/ui", stop.attributes["href"]) == "/ui?label=m01-fraud&days=30"


@pytest.mark.parametrize(
    "query", ["refresh=1", "refresh=never", "label=%00", "route=" + "x" * 10_001, "days=0", "page=x"]
)
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
                assert all(lacked(decision) in text for decision in found["decisions"])


async def test_the_chain_leads_to_airflow_and_to_mlflow(world: World) -> None:
    trigger = next(t for t in await world.triggers(status="succeeded") if t["runs"])
    document = await page_of(world, f"/ui/triggers/{trigger['id']}")
    [chain] = document.find("ol", class_="chain")
    links = [link.attributes["href"] for link in chain.find("a")]
    assert f"http://airflow.test:8080/dags/retrain_model/runs/{trigger['dag_run_id']}" in links
    assert f"http://mlflow.test:5000/#/runs/{trigger['runs'][0]['run_id']}" in links
    [version] = trigger["runs"][0]["versions"]
    assert f"http://mlflow.test:5000/#/models/{version['model']}/versions/{version['version']}" in links
    assert all(f"/alerts/{alert['id']}" in "".join(links) for alert in trigger["alerts"])


async def test_a_trigger_shows_the_conf_that_airflow_gets(world: World) -> None:
    for trigger in (await world.triggers())[:30]:
        shown = [json.loads(e.text) for e in (await page_of(world, f"/ui/triggers/{trigger['id']}")).find("pre")]
        assert shown == (
            [{"gateway": {"trigger_id": trigger["id"]}, "dataset": "s3://<b>"}] if trigger["fired_at"] else []
        )


async def test_the_chain_ends_with_the_alias_that_the_version_holds_now(world: World) -> None:
    made = {t["id"]: t["runs"][0]["versions"][0] for t in await world.triggers(status="succeeded") if t["runs"]}
    async with world.services[0].core.engine.connect() as conn:
        seen = await aliases_of(conn, {version["model"] for version in made.values()})
    held = {(alias.model, alias.version) for alias in seen}
    ends = set()
    for ident, version in list(made.items())[:20]:
        [chain] = (await page_of(world, f"/ui/triggers/{ident}")).find("ol", class_="chain")
        last = list(chain.find("li"))[-1].text
        assert ("champion" in last) == ((version["model"], version["version"]) in held)
        ends.add("champion" in last)
    assert ends == {True, False}


async def test_open_incidents_stand_above_the_fleet(world: World) -> None:
    incidents = (await world.get("/api/v1/notices", open=True))["items"]
    document = await page_of(world, "/ui")
    shown = {element.attributes["data-incident"]: element.text for element in document.having("data-incident")}
    assert shown.keys() == {incident["id"] for incident in incidents}
    assert all(incident["title"] in shown[incident["id"]] for incident in incidents)


async def test_the_worst_incident_comes_first_also_after_many_newer_ones(servers: TestServers, template: str) -> None:
    async with World(servers, servers.fresh_database(template), POLICY) as world:
        history = rich(NOON, models=1)
        like, severities = history.notices[0], ["info", "warning"] * 15 + ["error", "critical"]
        history.notices.clear()
        for minutes, severity in enumerate(severities):
            at = NOON - timedelta(minutes=minutes)
            own = {"id": history.ident(at), "key": f"k{minutes}", "severity": severity, "opened_at": at}
            history.notices.append(like | own)
        async with world.services[0].core.engine.begin() as conn:
            await insert_rows(conn, tables.notices, history.notices)
        idents = {str(row["id"]): row["severity"] for row in history.notices}
        for path in ("/ui", "/ui/house"):
            document = await page_of(world, path)
            shown = [idents[element.attributes["data-incident"]] for element in document.having("data-incident")]
            assert shown == ["critical", "error"] + ["warning"] * 15 + ["info"] * 3, path
        assert "32 open incidents" in (await page_of(world, "/ui")).text


async def test_hostile_labels_are_text_and_nothing_else(servers: TestServers, template: str) -> None:
    async with World(servers, servers.fresh_database(template), POLICY) as world:
        await hostile(NOON).write(world.services[0].core.engine)
        rows = await rows_of(world)
        assert len(rows) == len(HOSTILE)
        for text in HOSTILE:
            key = group_key("accuracy", "live", {"model": text})
            document = await page_of(world, f"/ui/groups/{key}")
            assert text[:60] in document.text
            [why] = document.find("section", aria_labelledby="why")
            sentences = [*why.find("p"), *why.find("dd", dir="auto"), *document.find("title")]
            assert all("\u202e" not in each.text for each in sentences), "a name may not turn our own words around"
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
