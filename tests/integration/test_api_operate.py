"""What a person may ask for: redrive, cancel, reset; each with its refusals, and each in the audit."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.acceptance.world import World, reasons
from tests.fakes.faults import answer as airflow_answers
from tests.integration.api import opened, problem, token_of
from tests.servers import TestServers


async def dead_trigger(world: World, model: str = "churn") -> str:
    """A trigger that Airflow has refused for good."""
    world.airflow.disturb(airflow_answers(422, {"detail": "no such conf"}), on="trigger")
    await world.push(world.alert(model=model))
    await world.settle()
    [trigger] = await world.triggers(label=f"model={model}")
    assert trigger["state"] == "dead", trigger
    return str(trigger["id"])


async def audit(world: World) -> list[tuple[str, str, str]]:
    connection = await asyncpg.connect(world.database)
    try:
        rows = await connection.fetch("SELECT caller, action, subject FROM audit ORDER BY id")
        return [tuple(row.values()) for row in rows]
    finally:
        await connection.close()


async def ask(world: World, path: str, body: Any = None, **more: Any) -> Any:
    return await world.clients[0].post(f"/api/v1/{path}", json=body, **more)


async def test_a_dead_trigger_is_delivered_again_under_the_same_id(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        trigger = await dead_trigger(world)
        answer = await ask(world, f"triggers/{trigger}/redrive")
        assert (answer.status_code, answer.json()["state"], answer.json()["outcome"]) == (200, "pending", None)
        await world.settle()
        await world.pass_by(seconds=5)
        [shown] = await world.triggers()
        assert (shown["id"], shown["state"]) == (trigger, "running")
        assert [a["result"] for a in shown["attempts"]] == ["dead", "delivered"]
        [post] = world.airflow.posts
        assert post["dag_run_id"] == f"gateway__accuracy__{trigger}"
        assert await audit(world) == [("anonymous", "redrive", trigger)]


@pytest.mark.parametrize("state", ["held", "pending", "running", "succeeded", "cancelled"])
async def test_only_a_dead_trigger_is_redriven(servers: TestServers, database: str, state: str) -> None:
    async with opened(servers, database) as world:
        trigger = await trigger_in(world, state)
        refused = problem(await ask(world, f"triggers/{trigger}/redrive"), 409, "wrong_state")
        assert refused["state"] == state
        assert state in refused["detail"]
        assert await audit(world) == [entry for entry in await audit(world) if entry[1] == "cancel"]


@pytest.mark.parametrize("state", ["pending", "running", "succeeded", "dead", "cancelled"])
async def test_only_a_held_trigger_is_cancelled(servers: TestServers, database: str, state: str) -> None:
    async with opened(servers, database) as world:
        trigger = await trigger_in(world, state)
        refused = problem(await ask(world, f"triggers/{trigger}/cancel"), 409, "wrong_state")
        assert refused["state"] == state


async def trigger_in(world: World, state: str) -> str:
    """A new trigger in that state."""
    if state == "dead":
        return await dead_trigger(world)
    await world.push(world.alert("Drift" if state in ("held", "cancelled") else "ModelAccuracyLow", model="churn"))
    if state in ("running", "succeeded"):
        await world.settle()
        await world.pass_by(seconds=5)
    if state == "succeeded":
        await world.pass_by(minutes=40, steps=4)
    [trigger] = await world.triggers()
    if state == "cancelled":
        assert (await ask(world, f"triggers/{trigger['id']}/cancel")).status_code == 200
        [trigger] = await world.triggers()
    assert trigger["state"] == state
    return str(trigger["id"])


async def test_a_dead_trigger_is_not_redriven_beside_another_open_one(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        dead = await dead_trigger(world)
        await world.pass_by(minutes=31)  # After its backoff the alert that still fires has fired again.
        open_one = (await world.triggers())[0]
        assert open_one["id"] != dead
        refused = problem(await ask(world, f"triggers/{dead}/redrive"), 409, "wrong_state")
        assert refused["reason"] == "in_flight"
        assert len(world.airflow.posts) == 1


async def test_two_who_redrive_at_once_start_one_run(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        dead = await dead_trigger(world)
        answers = await asyncio.gather(*(ask(world, f"triggers/{dead}/redrive") for _ in range(4)))
        assert sorted(a.status_code for a in answers) == [200, 409, 409, 409]
        await world.settle()
        assert len(world.airflow.posts) == 1


async def test_a_cancelled_trigger_starts_nothing_and_each_alert_is_told(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        await world.push(world.alert("Drift", model="churn"), world.alert("Drift", model="churn", host="b"))
        [held] = await world.triggers()
        answer = await ask(world, f"triggers/{held['id']}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        for alert in (await world.get("/api/v1/alerts"))["items"]:
            assert reasons(alert["decisions"])[-1] == ("cancel", "by_request")
            assert "anonymous" in alert["decisions"][-1]["detail"]
        await world.pass_by(minutes=9)
        assert world.airflow.posts == []
        assert await audit(world) == [("anonymous", "cancel", held["id"])]


@pytest.mark.parametrize("call", ["redrive", "cancel"])
async def test_an_unknown_trigger_is_not_found(servers: TestServers, database: str, call: str) -> None:
    async with opened(servers, database) as world:
        problem(await ask(world, f"triggers/{uuid4()}/{call}"), 404, "not_found")
        problem(await ask(world, f"triggers/newest/{call}"), 422, "invalid")


async def test_a_reset_ends_the_cooldown_and_what_still_fires_fires_again(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        await world.push(world.alert(model="churn"), world.alert(model="fraud"))
        await world.pass_by(minutes=40, steps=4)
        answer = await ask(world, "routes/accuracy/reset", {"group": {"model": "churn"}})
        assert (answer.status_code, answer.json()["state"]) == (200, "idle")
        await world.settle()
        models = [post["conf"]["gateway"]["group"]["model"] for post in world.airflow.posts]
        assert sorted(models) == ["churn", "churn", "fraud"]
        assert await audit(world) == [("anonymous", "reset", "route accuracy")]


async def test_a_reset_never_doubles_a_run_in_flight(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        alert = world.alert(model="churn")
        await world.push(alert)
        await world.settle()
        answer = await ask(world, "routes/accuracy/reset", {"group": {"model": "churn"}})
        assert answer.json()["state"] == "in_flight"
        await world.settle()
        assert reasons(await world.push(alert)) == [("suppress", "duplicate")]
        assert len(world.airflow.posts) == 1


@pytest.mark.parametrize(
    ("route", "body", "status", "code"),
    [
        ("nothing", {"group": {"model": "churn"}}, 404, "not_found"),
        ("accuracy", {"group": {"model": "unseen"}}, 404, "not_found"),
        ("accuracy", {"group": {}}, 422, "wrong_group"),
        ("accuracy", {}, 422, "wrong_group"),
        ("accuracy", {"group": {"team": "a"}}, 422, "wrong_group"),
        ("accuracy", {"group": {"model": "churn", "team": "a"}}, 422, "wrong_group"),
        ("accuracy", {"group": {"model": 7}}, 422, "invalid"),
        ("accuracy", {"group": None}, 422, "wrong_group"),
        ("accuracy", {"groups": {"model": "churn"}}, 422, "invalid"),
        ("accuracy", [], 422, "invalid"),
        ("accuracy", {"group": {"model": "a\x00b"}}, 404, "not_found"),
        ("accuracy", {"group": {"model": "x" * 5000}}, 422, "invalid"),
        ("x" * 64, {"group": {"model": "churn"}}, 422, "invalid"),
    ],
)
async def test_a_reset_of_what_is_not_there_is_told(
    servers: TestServers, database: str, route: str, body: Any, status: int, code: str
) -> None:
    async with opened(servers, database) as world:
        problem(await ask(world, f"routes/{route}/reset", body), status, code)


async def test_a_reset_of_a_lone_surrogate_is_told(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as world:
        answer = await world.post("/api/v1/routes/accuracy/reset", b'{"group": {"model": "\\ud800"}}')
        problem(answer, 422, "invalid")


async def test_the_audit_names_the_token_that_asked(servers: TestServers, database: str, tmp_path: Path) -> None:
    header = token_of(tmp_path, "admin")
    async with opened(servers, database, tokens_file=tmp_path / "tokens") as world:
        world.clients[0].headers.update(header)
        await world.push(world.alert("Drift", model="churn"))
        [held] = await world.triggers()
        assert (await ask(world, f"triggers/{held['id']}/cancel")).status_code == 200
        [(caller, _, _)] = await audit(world)
        assert caller.startswith("admin-")
        assert caller in (await world.triggers())[0]["detail"]
