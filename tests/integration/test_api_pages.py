"""Lists page by page: every item once, though others arrive while somebody walks."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.kit.pages import MOST_BYTES
from tests.acceptance.world import World
from tests.integration.api import ALERTMANAGER, NATIVE, native_alert, notification, opened, webhook_alert, word
from tests.servers import TestServers
from tests.sizes import size

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    """One gateway for all of them; each test has models of its own."""
    async with opened(servers, servers.fresh_database(template)) as opened_world:
        yield opened_world


async def walk(world: World, path: str, limit: int, between: Any = None, **params: Any) -> list[dict[str, Any]]:
    """Every item, page by page; `between` is awaited after each page."""
    items, cursor = [], None
    while True:
        page = await world.get(path, limit=limit, **params, **({"cursor": cursor} if cursor else {}))
        assert len(page["items"]) <= limit
        items += page["items"]
        cursor = page["next"]
        if cursor is None:
            return items
        assert len(page["items"]) == limit
        if between is not None:
            await between()


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_a_walk_shows_every_alert_once_while_others_arrive(world: World, limit: int) -> None:
    mark, number = word(), size(30, 1000)
    alerts = [native_alert(f"walk-{i}", labels={"walk": mark}) for i in range(number)]
    await world.post(NATIVE, alerts)

    async def more() -> None:
        await world.post(NATIVE, native_alert(f"late-{word()}", labels={"walk": mark}))

    walked = await walk(world, "/api/v1/alerts", limit, more, label=f"walk={mark}")
    assert [a["alert_id"] for a in walked] == [f"walk-{i}" for i in reversed(range(number))]


@pytest.mark.parametrize("limit", [1, 4])
async def test_a_walk_shows_every_trigger_once_while_others_are_made(world: World, limit: int) -> None:
    mark = word()
    await world.push(*(world.alert(model=f"{mark}-{i}") for i in range(9)))
    walked = await walk(world, "/api/v1/triggers", limit, lambda: world.push(world.alert(model=word())))
    mine = [t["group"]["model"] for t in walked if t["group"]["model"].startswith(mark)]
    assert sorted(mine) == [f"{mark}-{i}" for i in range(9)]
    assert len({t["id"] for t in walked}) == len(walked)


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_a_walk_shows_all_of_the_quarantine_once_though_one_body_brought_it(world: World, limit: int) -> None:
    mark = word()
    bad = [webhook_alert(f"bad-{mark}-{i}") | {"startsAt": "never"} for i in range(10)]
    await world.post(NATIVE, [native_alert(), *bad])
    walked = await walk(world, "/api/v1/quarantine", limit)
    assert len({item["sha256"] for item in walked}) == len(walked)
    assert sum(f"bad-{mark}-" in item["body"] for item in walked) == 10


async def test_a_walk_shows_every_group_of_a_route_once(world: World) -> None:
    await world.push(*(world.alert(model=f"g{i}") for i in range(12)))
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await world.get("/api/v1/routes", route="accuracy", limit=5, **cursor)
        [route] = page["items"]
        seen += [group["group"]["model"] for group in route["groups"]]
        assert route["more_groups"] == (page["next"] is not None)
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert len(seen) == len(set(seen))
    assert {f"g{i}" for i in range(12)} <= set(seen)


FAT = {f"l{number}": "\u0001" * 4000 for number in range(100)}  # With its escapes 2.4 MB of JSON.


async def test_a_page_ends_at_a_number_of_bytes_and_the_walk_shows_everything_once(world: World) -> None:
    """Lists of alerts, of what stands behind triggers, of groups and of the quarantine."""
    model = word()
    for number in range(4):
        alert = native_alert(labels={"model": f"{model}-{number}", "fat": model, **FAT})
        assert (await world.post(NATIVE, alert)).status_code == 202
    first = await world.get("/api/v1/alerts", label=f"fat={model}", limit=1000)
    assert 1 <= len(first["items"]) < 4
    assert first["next"] == first["items"][-1]["id"]
    seen, cursor = [], None
    while True:
        page = await world.get("/api/v1/alerts", label=f"fat={model}", **({"cursor": cursor} if cursor else {}))
        seen += [item["labels"]["model"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == [f"{model}-{number}" for number in (3, 2, 1, 0)]

    triggers = (await world.get("/api/v1/triggers", label=f"model={model}-0"))["items"]
    assert [len(trigger["alerts"]) for trigger in triggers] == [1]
    everything = await world.get("/api/v1/triggers", limit=1000)
    assert sum(len(json.dumps(trigger["alerts"])) for trigger in everything["items"]) < 3 * MOST_BYTES

    for number in range(70):
        await world.post(NATIVE, {"alert_id": f"{model}-{number}", "bad": "x" * 70_000})
    digests, cursor, pages = [], None, 0
    while True:
        page = await world.get("/api/v1/quarantine", limit=1000, **({"cursor": cursor} if cursor else {}))
        assert sum(item["size"] for item in page["items"]) < 2 * MOST_BYTES
        digests += [item["sha256"] for item in page["items"]]
        pages += 1
        if (cursor := page["next"]) is None:
            break
    assert pages > 1
    assert len(digests) == len(set(digests)) >= 70


async def test_a_page_of_episodes_ends_at_a_number_of_bytes_and_the_sums_of_effects_do_too(world: World) -> None:
    """Senders choose the labels of groups, and both lists show them."""
    mark, number = word(), 240
    for part in range(0, number, 80):  # 24 KB of JSON each.
        fat = [webhook_alert(model=f"{mark}-{n}-" + "\u0001" * 4000, place=mark) for n in range(part, part + 80)]
        assert (await world.post(ALERTMANAGER, notification(*fat))).status_code == 202
    seen, cursor, pages = [], None, 0
    while True:
        page = await world.get("/api/v1/episodes", limit=1000, **({"cursor": cursor} if cursor else {}))
        assert len(json.dumps(page["items"])) < 1.5 * MOST_BYTES
        seen += [item["group"]["model"] for item in page["items"] if item["group"]["model"].startswith(mark)]
        pages += 1
        if (cursor := page["next"]) is None:
            break
    assert pages > 1
    assert len(seen) == len(set(seen)) == number
    effects = await world.get("/api/v1/effects", limit=1)
    assert 1 < len(effects["groups"]) < number
    assert len(json.dumps(effects)) < 1.5 * MOST_BYTES
