"""The lists: what they filter by, and what they tell of each item."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.acceptance.world import World
from tests.fakes.clock import NOON
from tests.integration.api import opened, problem
from tests.servers import TestServers

pytestmark = pytest.mark.asyncio(loop_scope="module")

LATER = NOON + timedelta(hours=1)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    """At noon churn and fraud lose accuracy and their runs start; at one fraud drifts, churn is well again, a disk fills."""
    async with opened(servers, servers.fresh_database(template)) as opened_world:
        churn = opened_world.alert(model="churn", team="growth")
        await opened_world.push(churn, opened_world.alert(model="fraud", team="risk"))
        await opened_world.settle()
        opened_world.clock.pass_by(timedelta(hours=1))
        await opened_world.settle()
        await opened_world.push(
            opened_world.alert("Drift", model="fraud"),
            opened_world.alert("DiskFull"),
            churn.resolved(opened_world.clock.now()),
        )
        yield opened_world


async def names(world: World, path: str, query: str) -> list[str]:
    """The items of one page, each by its route and the model of its group, sorted."""
    params: dict[str, Any] = {k: v for k, v in parse_qsl(query) if k != "label"}
    page = await world.get(path, **params, label=_labels(query))
    return sorted(f"{item['route']} {item['group'].get('model', '-')}" for item in page["items"])


def _labels(query: str) -> list[str]:
    return [value for name, value in parse_qsl(query) if name == "label"]


ALL = ["None -", "accuracy churn", "accuracy fraud", "drift fraud"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ALL),
        ("route=accuracy", ALL[1:3]),
        ("route=nothing", []),
        ("status=firing", ["None -", "accuracy fraud", "drift fraud"]),
        ("status=resolved", ["accuracy churn"]),
        ("reason=new_alert", ["accuracy fraud"]),
        ("reason=resolved", ["accuracy churn"]),
        ("reason=debouncing", ["drift fraud"]),
        ("reason=no_route", ["None -"]),
        ("reason=cooldown", []),
        ("label=model=churn", ["accuracy churn"]),
        ("label=model=fraud&label=team=risk", ["accuracy fraud"]),
        ("label=model=fraud&label=team=growth", []),
        ("label=model=", []),
        ("label=alertname=Drift", ["drift fraud"]),
        ("label=a=b=c", []),
        ("since=2026-11-23T12:30:00Z", ["None -", "accuracy churn", "drift fraud"]),
        ("since=2026-11-23T13:30:00%2B01:00", ["None -", "accuracy churn", "drift fraud"]),
        ("until=2026-11-23T12:30:00Z", ALL[1:3]),
        ("since=2026-11-23T12:30:00Z&until=2026-11-23T12:40:00Z", ["accuracy churn"]),  # It was seen before and after.
        ("since=2026-11-23T13:00:00Z&until=2026-11-23T13:00:00Z", ["accuracy churn"]),
        ("since=2026-11-24T00:00:00Z", []),
        ("since=9999-12-31T23:59:59-10:00", []),
        ("until=0001-01-01T00:00:00%2B10:00", []),
        ("since=0001-01-01T00:00:00%2B10:00", ALL),
        ("route=accuracy&status=firing&label=team=risk", ["accuracy fraud"]),
    ],
)
async def test_alerts_are_found_by(world: World, query: str, found: list[str]) -> None:
    assert await names(world, "/api/v1/alerts", query) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["accuracy churn", "accuracy fraud", "drift fraud"]),
        ("route=drift", ["drift fraud"]),
        ("status=succeeded", ["accuracy churn", "accuracy fraud"]),
        ("status=held", ["drift fraud"]),
        ("status=dead", []),
        ("reason=new_alert", ["accuracy churn", "accuracy fraud", "drift fraud"]),
        ("reason=still_firing", []),
        ("label=model=fraud", ["accuracy fraud", "drift fraud"]),
        ("since=2026-11-23T12:30:00Z", ["drift fraud"]),
        ("until=2026-11-23T12:30:00Z", ["accuracy churn", "accuracy fraud"]),
        ("since=2026-11-23T12:00:00Z&until=2026-11-23T12:00:00Z", []),
    ],
)
async def test_triggers_are_found_by(world: World, query: str, found: list[str]) -> None:
    assert await names(world, "/api/v1/triggers", query) == found


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=many",
        "limit=1e3",
        "cursor=yesterday",
        "cursor=0",
        "since=yesterday",
        "since=2026-11-23",
        "since=20261123",
        "since=1764500000",
        "since=2026-11-23T12:00:00",
        "label==x",
        "reason=bored",
        "status=asleep",
        "label=model",
        "label==x%00",
        f"route={'x' * 64}",
        "route=%00",
    ],
)
@pytest.mark.parametrize("path", ["alerts", "triggers"])
async def test_a_bad_query_is_told_and_not_guessed(world: World, path: str, query: str) -> None:
    problem(await world.clients[0].get(f"/api/v1/{path}?{query}"), 422, "invalid")


@pytest.mark.parametrize(
    "query",
    [
        "routes?limit=0",
        "routes?limit=1001",
        "routes?cursor=x",
        f"routes?cursor={'0' * 32}",  # of which route?
        "quarantine?limit=0",
        "quarantine?limit=1001",
        "quarantine?cursor=x",
        f"quarantine?cursor={'9' * 17}_{'0' * 64}",
        f"quarantine?cursor={'9' * 100}",
    ],
)
async def test_a_bad_page_of_routes_or_of_the_quarantine_is_told(world: World, query: str) -> None:
    problem(await world.clients[0].get(f"/api/v1/{query}"), 422, "invalid")


@pytest.mark.parametrize("path", ["alerts", "triggers", "explain"])
async def test_an_unknown_id_is_not_found(world: World, path: str) -> None:
    unknown = uuid4()
    refused = problem(await world.clients[0].get(f"/api/v1/{path}/{unknown}"), 404, "not_found")
    assert str(unknown) in refused["detail"]


@pytest.mark.parametrize("path", ["alerts", "triggers"])
async def test_what_is_no_id_is_told(world: World, path: str) -> None:
    problem(await world.clients[0].get(f"/api/v1/{path}/newest"), 422, "invalid")


@pytest.mark.parametrize("subject", ["nothing", "%00", "%F0%9F%94%A5", "a%20b", "x" * 5000, "%ED%A0%80"])
async def test_a_subject_that_nobody_knows_is_not_found(world: World, subject: str) -> None:
    problem(await world.clients[0].get(f"/api/v1/explain/{subject}"), 404, "not_found")


async def test_the_routes_tell_the_policy_in_force_and_where_each_group_stands(world: World) -> None:
    routes = {route["name"]: route for route in (await world.get("/api/v1/routes"))["items"]}
    assert list(routes) == ["accuracy", "drift", "once"]
    assert routes["drift"]["debounce"] == "10m"
    assert (routes["once"]["refire"], routes["once"]["cooldown"]) == (False, "1h")
    [held] = routes["drift"]["groups"]
    assert (held["state"], held["group"]) == ("held", {"model": "fraud"})
    assert held["held_until"] == held["wake_at"] == "2026-11-23T13:10:00Z"
    [churn] = [g for g in routes["accuracy"]["groups"] if g["group"] == {"model": "churn"}]
    assert (churn["state"], churn["last_outcome"], churn["failures_in_a_row"]) == ("cooldown", "success", 0)
    assert churn["cooldown_until"] == "2026-11-24T12:00:00Z"
    assert (await world.get("/api/v1/routes", route="nothing"))["items"] == []


async def test_an_alert_and_a_trigger_show_each_other(world: World) -> None:
    [alert] = (await world.get("/api/v1/alerts", label="team=growth"))["items"]
    assert await world.get(f"/api/v1/alerts/{alert['id']}") == alert
    trigger = await world.get(f"/api/v1/triggers/{alert['trigger_id']}")
    assert [behind["id"] for behind in trigger["alerts"]] == [alert["id"]]
    assert (trigger["state"], trigger["outcome"], trigger["dag_run_state"]) == ("succeeded", "success", "success")
    assert [(a["result"], a["count"]) for a in trigger["attempts"]] == [("delivered", 1)]
    assert [(d["action"], d["reason"], d["count"]) for d in alert["decisions"]] == [
        ("fire", "new_alert", 1),
        ("ignore", "resolved", 1),
    ]
    assert alert["count"] == 2
    assert (alert["first_seen_at"], alert["last_seen_at"]) == ("2026-11-23T12:00:00Z", "2026-11-23T13:00:00Z")
