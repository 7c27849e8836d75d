"""`/api/v1/notices` and `/receivers/{name}/test`, by HTTP and by command: what people were told, and whether they hear."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest

from app.kit.errors import GatewayError
from tests.acceptance.world import World
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer, busy
from tests.fakes.pagerduty import KEY, FakePagerDuty
from tests.integration.api import POLICY, opened, problem, token_of
from tests.integration.test_api_cli import ask
from tests.servers import TestServers

Answer = TypeVar("Answer")
RECEIVERS = f'receivers: [{{name: oncall, pagerduty: {{routing_key: {KEY}, url: "{FakePagerDuty.url}"}}}}]\n'


@asynccontextmanager
async def telling(servers: TestServers, database: str, **more: Any) -> AsyncIterator[tuple[World, FakePagerDuty]]:
    clock = ManualClock()
    pagerduty = FakePagerDuty(clock)
    others = {FakePagerDuty.host: pagerduty}
    async with opened(servers, database, policy=POLICY + RECEIVERS, clock=clock, others=others, **more) as world:
        yield world, pagerduty


async def while_it_runs(world: World, asking: Awaitable[Answer]) -> Answer:
    """The answer to what waits for a worker."""
    task = asyncio.ensure_future(asking)
    while not task.done():
        await world.services[0].loop("relay").step()
        await asyncio.wait([task], timeout=0.05)
    return task.result()


async def fail_a_run(world: World, model: str = "churn") -> None:
    await world.push(world.alert(model=model))
    await world.settle()
    run = (await world.triggers())[0]["dag_run_id"]
    world.airflow.finish(run, "failed")
    await world.pass_by(minutes=1, steps=2)


async def test_a_test_is_sent_the_whole_way_and_its_answer_told(servers: TestServers, database: str) -> None:
    async with telling(servers, database) as (world, pagerduty):
        found = await while_it_runs(world, world.post("/api/v1/receivers/oncall/test", b""))
        notice = found.json()
        assert (found.status_code, notice["receiver"], notice["kind"], notice["state"]) == (
            200,
            "oncall",
            "pagerduty",
            "delivered",
        )
        assert notice["detail"].startswith("pagerduty answered 202: {'status': 'success'")
        [incident] = pagerduty.open()
        assert incident.summary == "Test of the receiver oncall: nothing is wrong"
        assert incident.severity == "info"
        await world.pass_by(minutes=1)
        assert pagerduty.open() == [incident], "an Alertmanager needs its group_wait to tell people"
        await world.pass_by(minutes=2)
        assert (pagerduty.opened, pagerduty.open()) == ([incident], [])
        shown = await while_it_runs(world, ask(world, "receivers", "test", "oncall"))
        assert shown.startswith("oncall got the test: pagerduty answered 202")


@pytest.mark.parametrize(
    ("fault", "state", "detail"),
    [
        (answer(403, {"message": "no"}), "pending", "pagerduty answered 403"),
        (busy(), "pending", "pagerduty answered 429"),
        (answer(400, {"status": "invalid event"}), "dead", "pagerduty answered 400"),
    ],
    ids=["403", "429", "400"],
)
async def test_a_test_that_is_not_taken_says_what_the_receiver_answered(
    servers: TestServers, database: str, fault: Any, state: str, detail: str
) -> None:
    async with telling(servers, database) as (world, pagerduty):
        pagerduty.disturb(fault)
        with pytest.raises(GatewayError, match=f"oncall did not get the test .{state}.: {detail}"):
            await while_it_runs(world, ask(world, "receivers", "test", "oncall"))


async def test_what_cannot_be_tested(servers: TestServers, database: str) -> None:
    async with telling(servers, database) as (world, _):
        problem(await world.post("/api/v1/receivers/nobody/test", b""), 404, "not_found")
        problem(await world.post("/api/v1/receivers/NO/test", b""), 422, "invalid")


async def test_incidents_are_listed_with_what_each_receiver_answered(servers: TestServers, database: str) -> None:
    async with telling(servers, database) as (world, _):
        assert await ask(world, "notices") == "There are no incidents.\n"
        await fail_a_run(world)
        [incident] = await items(world)
        assert (incident["event"], incident["severity"], incident["resolved_at"]) == ("run_failed", "warning", None)
        [receiver] = incident["receivers"]
        assert (receiver["receiver"], receiver["opened"]["state"], receiver["resolved"]) == (
            "oncall",
            "delivered",
            None,
        )
        assert receiver["next_at"] is not None
        assert await items(world, state="resolved") == await items(world, event="trigger_dead") == []
        assert await items(world, state="open") == await items(world, event="run_failed") == [incident]
        assert "The retraining of accuracy, model=churn failed" in " ".join(
            (await ask(world, "notices", columns=200)).split()
        )
        assert json.loads(await ask(world, "notices", "--json"))["items"] == [incident]


async def test_pages_show_each_incident_once_the_newest_first(servers: TestServers, database: str) -> None:
    async with telling(servers, database) as (world, _):
        for model in "abc":
            await fail_a_run(world, model)
        page = await world.get("/api/v1/notices", limit=2)
        rest = await world.get("/api/v1/notices", limit=2, cursor=page["next"])
        assert [item["labels"]["model"] for item in page["items"] + rest["items"]] == ["c", "b", "a"]
        assert rest["next"] is None


async def test_a_person_says_that_it_is_over_once(servers: TestServers, database: str) -> None:
    async with telling(servers, database) as (world, pagerduty):
        await fail_a_run(world)
        [incident] = await items(world)
        path = f"/api/v1/notices/{incident['id']}/resolve"
        answered = await world.post(path, {"reason": "retrained by hand"})
        assert answered.status_code == 200
        assert answered.json()["resolution"] == "resolved by anonymous: retrained by hand"
        await world.settle()
        assert (len(pagerduty.opened), pagerduty.open()) == (1, [])
        assert problem(await world.post(path, {}), 409, "wrong_state")["state"] == "resolved"
        problem(await world.post(f"/api/v1/notices/{uuid4()}/resolve", {}), 404, "not_found")


NO = answer(400, {"status": "invalid event"})


async def say_that_it_is_over(world: World, ident: str) -> None:
    assert (await world.post(f"/api/v1/notices/{ident}/resolve", {})).status_code == 200
    await world.settle()


async def test_an_opening_that_a_receiver_refused_is_told_again_once(servers: TestServers, database: str) -> None:
    async with telling(servers, database) as (world, pagerduty):
        pagerduty.disturb(NO)
        await fail_a_run(world)
        [incident] = await items(world)
        assert (incident["receivers"][0]["opened"]["state"], pagerduty.opened) == ("dead", [])
        shown = await ask(world, "receivers", "redrive", incident["id"], columns=200)
        assert shown.startswith("The retraining of accuracy, model=churn failed: on its way again.")
        await world.settle()
        assert [incident.summary for incident in pagerduty.open()] == ["The retraining of accuracy, model=churn failed"]
        path = f"/api/v1/notices/{incident['id']}/redrive"
        assert problem(await world.post(path, b""), 409, "wrong_state")["state"] == "open"
        async with world.services[0].core.engine.connect() as conn:
            audited = (
                await conn.exec_driver_sql("SELECT caller, subject, detail FROM audit WHERE action = 'redrive'")
            ).all()
        assert [tuple(row) for row in audited] == [("anonymous", f"notice {incident['id']}", {"items": 1})]
        problem(await world.post(f"/api/v1/notices/{uuid4()}/redrive", b""), 404, "not_found")


@pytest.mark.parametrize(
    ("refused", "opened", "sends"),
    [
        pytest.param(["open"], 0, False, id="of-what-is-over-no-opening-alone"),
        pytest.param(["resolve"], 1, True, id="its-end"),
        pytest.param(["open", "resolve"], 1, True, id="both-in-their-order"),
    ],
)
async def test_what_is_told_again_leaves_nothing_open_that_is_over(
    servers: TestServers, database: str, refused: list[str], opened: int, sends: bool
) -> None:
    async with telling(servers, database) as (world, pagerduty):
        if "open" in refused:
            pagerduty.disturb(NO)
        await fail_a_run(world)
        if "resolve" in refused:
            pagerduty.disturb(NO)
        [incident] = await items(world)
        await say_that_it_is_over(world, incident["id"])
        answered = await world.post(f"/api/v1/notices/{incident['id']}/redrive", b"")
        await world.settle()
        assert answered.status_code == (200 if sends else 409), answered.text
        assert (len(pagerduty.opened), pagerduty.open()) == (opened, [])


async def test_an_end_that_died_does_not_end_what_is_open_again(servers: TestServers, database: str) -> None:
    async with telling(servers, database) as (world, pagerduty):
        await fail_a_run(world)
        [incident] = await items(world)
        pagerduty.disturb(NO)
        await say_that_it_is_over(world, incident["id"])
        await world.pass_by(days=2, steps=4)
        await fail_a_run(world)
        newer = (await items(world))[0]
        assert (newer["key"], newer["id"] > incident["id"], newer["resolved_at"]) == (incident["key"], True, None)
        refused = problem(await world.post(f"/api/v1/notices/{incident['id']}/redrive", b""), 409, "wrong_state")
        assert "open again" in refused["detail"]
        await world.settle()
        assert len(pagerduty.open()) == 1


async def test_scopes(servers: TestServers, database: str, tmp_path: Path) -> None:
    read, trigger, ingest = (token_of(tmp_path, scope) for scope in ("read", "trigger", "ingest"))
    async with telling(servers, database, tokens_file=tmp_path / "tokens") as (world, _):
        client: httpx.AsyncClient = world.clients[0]
        for method, path, good, wrong in (
            ("GET", "/api/v1/notices", read, ingest),
            ("POST", f"/api/v1/notices/{uuid4()}/resolve", trigger, read),
            ("POST", f"/api/v1/notices/{uuid4()}/redrive", trigger, read),
            ("POST", "/api/v1/receivers/nobody/test", trigger, read),
        ):
            problem(await client.request(method, path, headers=wrong, json={}), 403, "forbidden")
            assert (await client.request(method, path, headers=good, json={})).status_code in (200, 404)


async def items(world: World, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await world.get("/api/v1/notices", **filters))["items"]
    return found
