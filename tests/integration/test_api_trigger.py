"""POST /api/v1/triggers: a person or a script asks for a DAG run. It needs no alert, and obeys what every fire obeys."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.world import World, policy, reasons
from tests.integration.api import problem, token_of
from tests.servers import TestServers

CHURN = {"route": "accuracy", "group": {"model": "churn"}, "reason": "new labels", "requested_by": "ana"}


async def ask(world: World, *, to: int = 0, key: str | None = None, **body: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return await world.clients[to].post("/api/v1/triggers", json=CHURN | body, headers=headers)


async def test_a_request_starts_one_dag_run_without_any_alert(servers: TestServers, database: str) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        answer = await ask(world, conf={"epochs": 3})
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert (made["state"], made["reason"], made["requested_by"]) == ("pending", "manual", "ana")
        assert "new labels" in made["detail"]
        await world.settle()
        [post] = world.airflow.posts
        assert post["conf"]["epochs"] == 3
        assert post["conf"]["gateway"]["trigger_id"] == made["id"]
        assert (post["conf"]["gateway"]["reason"], post["conf"]["gateway"]["alerts"]) == ("manual", [])
        await world.pass_by(minutes=30, steps=3)
        assert (await world.trigger())["state"] == "succeeded"
        alert = world.alert(model="churn")
        assert reasons(await world.push(alert)) == [("suppress", "cooldown")]


async def test_the_token_stands_beside_the_name_that_a_request_gives(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    headers = token_of(tmp_path, "trigger")
    async with World(servers, database, policy("debounce: 10m"), tokens_file=tmp_path / "tokens") as world:
        world.airflow.add_dag("retrain_model")
        made = (await world.clients[0].post("/api/v1/triggers", json=CHURN, headers=headers)).json()
        assert re.fullmatch(r"ana \(token trigger-\w+\)", made["requested_by"])
        assert made["requested_by"] in made["detail"]
        plain = CHURN | {"group": {"model": "fraud"}, "requested_by": None}
        made = (await world.clients[0].post("/api/v1/triggers", json=plain, headers=headers)).json()
        assert made["requested_by"].startswith("trigger-")


async def test_it_obeys_a_run_in_flight_and_the_cooldown_and_each_no_is_a_decision(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        first = (await ask(world)).json()
        await world.settle()
        refused = problem(await ask(world), 409, "in_flight")
        assert (refused["reason"], refused["trigger_id"]) == ("in_flight", first["id"])
        forced = problem(await ask(world, force=True), 409, "in_flight")
        assert forced["trigger_id"] == first["id"]
        await world.pass_by(hours=1, steps=4)
        refused = problem(await ask(world), 409, "cooldown")
        assert refused["until"] > world.clock.now().isoformat()
        explained = await world.explain(first["id"])
        assert [d["reason"] for d in explained["decisions"]][:1] == ["manual"]
        metrics = (await world.clients[0].get("/metrics")).text
        assert 'gateway_decisions_total{action="suppress",reason="in_flight",route="accuracy"} 2.0' in metrics
        assert 'gateway_decisions_total{action="suppress",reason="cooldown",route="accuracy"} 1.0' in metrics
        assert len(world.airflow.posts) == 1


async def test_forced_it_overrides_the_cooldown_and_starts_a_new_one(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await ask(world)
        await world.pass_by(hours=1, steps=4)
        answer = await ask(world, force=True)
        assert (answer.status_code, answer.json()["reason"]) == (201, "forced")
        await world.settle()
        await world.pass_by(hours=23, steps=6)
        assert len(world.airflow.posts) == 2
        problem(await ask(world), 409, "cooldown")
        await world.pass_by(hours=2, steps=2)
        assert (await ask(world)).status_code == 201


async def test_it_takes_a_held_group_over_with_its_alerts_under_the_same_id(
    servers: TestServers, database: str
) -> None:
    async with World(servers, database, policy("debounce: 10m")) as world:
        world.airflow.add_dag("retrain_model")
        [held] = await world.push(world.alert(model="churn"))
        made = (await ask(world)).json()
        assert (made["id"], made["state"]) == (held["trigger_id"], "pending")
        await world.settle()
        [post] = world.airflow.posts
        assert [a["alert_id"] for a in post["conf"]["gateway"]["alerts"]] == ["ModelAccuracyLow"]
        await world.pass_by(minutes=40, steps=4)
        assert len(world.airflow.posts) == 1


@pytest.mark.parametrize("replicas", [1, 2])
async def test_one_of_many_at_once_is_granted(servers: TestServers, database: str, replicas: int) -> None:
    async with World(servers, database, replicas=replicas) as world:
        world.airflow.add_dag("retrain_model")
        answers = await asyncio.gather(*(ask(world, to=n % replicas) for n in range(8)))
        assert sorted(a.status_code for a in answers) == [201] + [409] * 7
        await world.settle()
        assert len(world.airflow.posts) == 1


async def test_an_idempotency_key_is_answered_as_the_first_time(servers: TestServers, database: str) -> None:
    async with World(servers, database, replicas=2) as world:
        world.airflow.add_dag("retrain_model")
        answers = await asyncio.gather(*(ask(world, to=n % 2, key="nightly-7") for n in range(8)))
        assert {a.status_code for a in answers} == {201}
        assert all(a.json() == answers[0].json() for a in answers)
        await world.pass_by(hours=2, steps=4)
        again = await ask(world, key="nightly-7")
        assert (again.status_code, again.json()) == (201, answers[0].json())
        problem(await ask(world, key="nightly-7", reason="another"), 422, "idempotency_mismatch")
        assert len(await world.triggers()) == 1
        await world.pass_by(hours=25, steps=5)
        assert (await ask(world, key="nightly-7", reason="another")).status_code == 201


async def test_a_refusal_is_not_kept_under_its_key(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        await ask(world)
        await world.pass_by(hours=1, steps=4)
        problem(await ask(world, key="k"), 409, "cooldown")
        await world.pass_by(hours=24, steps=4)
        assert (await ask(world, key="k")).status_code == 201


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"route": "nowhere"}, 404, "not_found"),
        ({"group": {}}, 422, "wrong_group"),
        ({"group": {"model": "churn", "pod": "a"}}, 422, "wrong_group"),
        ({"conf": {"gateway": {}}}, 422, "invalid"),
        ({"conf": {"x": "y" * 13_000}}, 422, "invalid"),
        ({"conf": {"x": "\x00"}}, 422, "invalid"),
        ({"conf": {"x": [{"\x00": 1}]}}, 422, "invalid"),
        ({"reason": ""}, 422, "invalid"),
        ({"reason": "\x00"}, 422, "invalid"),
        ({"group": {"model": "\x00"}}, 422, "invalid"),
        ({"urgent": True}, 422, "invalid"),
    ],
    ids=str,
)
async def test_what_cannot_be_asked_for_is_refused(
    servers: TestServers, database: str, body: dict[str, Any], status: int, code: str
) -> None:
    async with World(servers, database) as world:
        problem(await ask(world, **body), status, code)
        assert not await world.triggers()


@pytest.mark.parametrize("conf", ['{"x": NaN}', '{"x": "\\ud800"}', '{"x": 1e999}'], ids=str)
async def test_a_conf_that_is_no_json_of_postgres_is_refused(servers: TestServers, database: str, conf: str) -> None:
    async with World(servers, database) as world:
        body = f'{{"route": "accuracy", "group": {{"model": "churn"}}, "reason": "x", "conf": {conf}}}'
        answer = await world.post("/api/v1/triggers", body.encode())
        assert answer.status_code in (400, 422), answer.text
        assert (await ask(world, conf={"x": "\\u0000 as text"})).status_code == 201


async def test_a_conf_is_measured_as_it_is_sent(servers: TestServers, database: str) -> None:
    """Six bytes of JSON for one character that is not ASCII."""
    async with World(servers, database, policy()) as world:
        answer = await ask(world, conf={"x": "漢" * 2000})
        assert answer.status_code == 422
        assert "12009" in answer.json()["detail"]
        assert (await ask(world, conf={"x": "漢" * 1900})).status_code == 201
        world.airflow.add_dag("retrain_model")
        await world.settle()
        assert len(json.dumps(world.airflow.posts[0]["conf"])) <= 16 * 1024
