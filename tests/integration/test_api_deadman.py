"""Pings in Healthchecks' shape, and the switches over HTTP and on the command line."""

import asyncio
import json

import pytest

from tests.acceptance.world import POLICY, World
from tests.integration.api import problem
from tests.integration.test_api_cli import ask
from tests.servers import TestServers

SWITCHES = (
    POLICY
    + """
deadman:
  - {name: export, expect: heartbeat, every: 1d, grace: 1h}
  - {name: "load-{{group.source}}", expect: heartbeat, for_each: {source: [crm, web]}, every: 1d, grace: 30m}
  - {name: retrained, expect: {retrain: accuracy}, every: 7d}
"""
)


@pytest.mark.parametrize(
    ("path", "kind", "code"),
    [
        ("", "success", None),
        ("/start", "start", None),
        ("/fail", "fail", None),
        ("/0", "success", 0),
        ("/255", "fail", 255),
    ],
)
async def test_a_ping_is_kept_with_what_it_said(
    servers: TestServers, database: str, path: str, kind: str, code: int | None
) -> None:
    async with World(servers, database, SWITCHES, ping_body=5) as world:
        answer = await world.clients[0].post(f"/ping/export{path}?rid=run-1", content=b"h\xe9llo world")
        assert (answer.status_code, answer.text) == (200, "OK")
        assert answer.headers["content-type"].startswith("text/plain")
        [ping] = (await world.get("/api/v1/deadman/export"))["pings"]
        assert (ping["kind"], ping["run"], ping["code"], ping["body"]) == (kind, "run-1", code, "h�llo")


async def test_a_ping_with_the_whole_log_of_a_job_is_taken(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES, ping_body=5) as world:
        answer = await world.clients[0].post("/ping/export", content=b"a line of a log\n" * 60_000)
        assert (answer.status_code, answer.text) == (200, "OK")
        [ping] = (await world.get("/api/v1/deadman/export"))["pings"]
        assert ping["body"] == "a lin"


async def test_pings_by_get_and_head_and_for_each_value(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        client = world.clients[0]
        assert (await client.get("/ping/load-crm")).text == "OK"
        assert (await client.head("/ping/load-web/start")).status_code == 200
        await world.settle()
        shown = {item["name"]: item["state"] for item in (await world.get("/api/v1/deadman"))["items"]}
        assert shown == {"export": "new", "load-crm": "up", "load-web": "new", "retrained": "new"}
        await world.pass_by(minutes=30)
        assert (await world.get("/api/v1/deadman/load-web"))["state"] == "down"
        detail = (await world.get("/api/v1/deadman/load-web"))["flips"][0]["detail"]
        assert detail == "a run that began at 2026-11-23T12:00:00Z has not ended within 30m"


@pytest.mark.parametrize("path", ["/ping/nobody", "/ping/retrained", "/ping/nobody/start", "/ping/load-erp"])
async def test_a_switch_that_takes_no_pings_is_not_found(servers: TestServers, database: str, path: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        problem(await world.clients[0].get(path), 404, "not_found")


@pytest.mark.parametrize(
    "path", ["/ping/export/256", "/ping/export/maybe", "/ping/export?rid=a%20b", "/ping/export/00"]
)
async def test_a_ping_that_says_nothing_known_is_refused(servers: TestServers, database: str, path: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        problem(await world.clients[0].get(path), 422, "invalid")


async def test_a_hundred_pings_are_kept_of_a_switch(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        for number in range(105):
            await world.clients[0].get(f"/ping/export?rid={number}")
        pings = (await world.get("/api/v1/deadman/export"))["pings"]
        assert [ping["run"] for ping in pings] == [str(number) for number in range(104, 4, -1)]


async def test_pings_at_once_from_several_replicas_all_count(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES, replicas=2) as world:
        runs = [f"{number}" for number in range(8)]
        await asyncio.gather(*(world.clients[int(r) % 2].get(f"/ping/export/start?rid={r}") for r in runs))
        await asyncio.gather(*(world.clients[int(r) % 2].get(f"/ping/export?rid={r}") for r in runs[:-1]))
        await world.pass_by(hours=1)
        assert (await world.get("/api/v1/deadman/export"))["state"] == "down"
        assert [flip["after"] for flip in (await world.get("/api/v1/deadman/export"))["flips"]] == ["down", "up"]


async def test_the_list_is_paged_by_name_and_filtered_by_state(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        names, cursor = [], None
        while True:
            page = await world.get("/api/v1/deadman", limit=3, **({"cursor": cursor} if cursor else {}))
            names += [item["name"] for item in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert names == ["export", "load-crm", "load-web", "retrained"]
        assert (await world.get("/api/v1/deadman", state="down"))["items"] == []
        problem(await world.clients[0].get("/api/v1/deadman/nobody"), 404, "not_found")


async def test_what_a_person_asks_is_audited(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        await world.settle()
        assert (await world.post("/api/v1/deadman/export/pause", {"reason": "freeze"})).json()["state"] == "paused"
        assert (await world.post("/api/v1/deadman/export/resume", {})).json()["state"] == "new"
        await world.post("/ping/export", b"")
        assert (await world.post("/api/v1/deadman/export/forget", {})).json() == {"name": "export", "begins_anew": True}
        shown = await world.get("/api/v1/deadman/export")
        assert (shown["state"], shown["last_at"], shown["last_event"]) == ("new", None, "")
        async with world.services[0].core.engine.connect() as conn:
            rows = await conn.exec_driver_sql("SELECT action, caller, subject FROM audit ORDER BY id")
            audited = [tuple(row) for row in rows]
        assert audited == [(action, "anonymous", "switch export") for action in ("pause", "resume", "forget")]


async def test_the_probe_names_what_is_down_and_that_nobody_watches(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        client = world.clients[0]
        assert (await client.get("/health/deadman")).json()["checks"] == {
            "watch": "nobody has watched yet: is a worker running?"
        }
        await world.settle()
        await world.pass_by(hours=25)
        answer = await client.get("/health/deadman")
        checks = {
            "watch": "ok",
            "export": "down since 2026-11-24T13:00:00Z",
            "load-crm": "down since 2026-11-24T13:00:00Z",
        }
        assert answer.status_code == 503
        assert answer.json() == {"status": "failing", "checks": checks | {"load-web": checks["load-crm"]}}
        world.outage(minutes=2)
        assert (await client.get("/health/deadman")).json()["checks"]["watch"].startswith("nobody has watched since")


async def test_the_commands_show_and_change_switches(servers: TestServers, database: str) -> None:
    async with World(servers, database, SWITCHES) as world:
        assert await ask(world, "deadman", "list") == "The policy has no switches.\n"
        await world.settle()
        assert "export     new    -" in await ask(world, "deadman", "list")
        assert len(json.loads(await ask(world, "deadman", "list", "--json"))["items"]) == 4
        shown = await ask(world, "deadman", "show", "export")
        assert "Nothing has arrived yet: a ping is due by 2026-11-24T12:00:00Z." in shown
        assert "paused by anonymous: freeze." in await ask(world, "deadman", "pause", "export", "--reason", "freeze")
        assert "Nothing has arrived yet" in await ask(world, "deadman", "resume", "export")
        assert await ask(world, "deadman", "forget", "export") == "export is new again.\n"
        assert "forgotten by anonymous" in await ask(world, "deadman", "show", "export")
