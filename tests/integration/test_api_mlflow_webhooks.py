"""MLflow's registry webhooks: signed, and a new version is asked for by itself where the policy says so."""

import json
from typing import Any

import httpx
import pytest

from app.web.signatures import MLFLOW_HEADERS, StandardSignature
from tests.acceptance.promotions import Gates, opened
from tests.fakes.faults import meanwhile
from tests.integration.api import problem, word
from tests.servers import TestServers

SECRET = "the secret of mlflow"
ENTRIES = """
promotions:
  - {model: churn, to: staging, on_new_version: true}
  - {model: churn, to: champion, requires: staging, rules: ['f1 >= champion.f1'], on_new_version: true}
  - {model: fraud, to: champion}
"""
CREATED: dict[str, Any] = {
    "entity": "model_version",
    "action": "created",
    "timestamp": "2026-11-23T09:14:32.631106+00:00",
    "data": {"name": "churn", "version": "1", "source": "s3://b/wh", "run_id": None, "tags": {}, "description": None},
}


async def deliver(gates: Gates, body: Any, *, secret: str = SECRET, ident: str = "", **headers: str) -> httpx.Response:
    """As MLflow would, signed now."""
    raw = json.dumps(body).encode()
    signed = StandardSignature(secret.encode(), MLFLOW_HEADERS).sign(ident or word(), raw, gates.world.clock.now())
    return await gates.world.clients[0].post("/api/v1/webhooks/mlflow", content=raw, headers=signed | headers)


async def test_a_new_version_is_asked_for_to_each_mark_in_turn(servers: TestServers, database: str) -> None:
    async with opened(servers, database, ENTRIES, mlflow_secret=SECRET) as gates:
        gates.mlflow.add("churn", {"f1": 0.85})
        answer = await deliver(gates, CREATED)
        assert answer.status_code == 202, answer.text
        made = [(row["to"], row["state"], row["requested_by"]) for row in answer.json()["promotions"]]
        assert made == [("staging", "promoted", "signed-mlflow"), ("champion", "promoted", "signed-mlflow")]
        gates.mlflow.add("churn", {"f1": 0.8})
        worse = await deliver(gates, CREATED | {"data": {"name": "churn", "version": "2"}})
        assert [row["state"] for row in worse.json()["promotions"]] == ["promoted", "blocked"]
        assert gates.champion() == "1"


OTHERS: list[dict[str, Any]] = [
    {"entity": "model_version_alias", "action": "created", "data": {"name": "churn", "alias": "x", "version": "1"}},
    {
        "entity": "model_version_tag",
        "action": "set",
        "data": {"name": "churn", "version": "1", "key": "a", "value": "b"},
    },
    {"entity": "registered_model", "action": "created", "data": {"name": "churn"}},
    CREATED | {"data": {"name": "fraud", "version": "1"}},
    CREATED | {"data": {"name": "unknown", "version": "1"}},
]


@pytest.mark.parametrize("event", OTHERS, ids=lambda event: f"{event['entity']} {event['data'].get('name')}")
async def test_every_other_event_is_taken_and_leads_to_nothing(
    servers: TestServers, database: str, event: dict[str, Any]
) -> None:
    async with opened(servers, database, ENTRIES, mlflow_secret=SECRET) as gates:
        answer = await deliver(gates, event)
        assert (answer.status_code, answer.json()) == (202, {"promotions": []})
        assert gates.mlflow.asked == []


async def test_who_does_not_sign_well_is_refused(servers: TestServers, database: str) -> None:
    async with opened(servers, database, ENTRIES, mlflow_secret=SECRET) as gates:
        gates.mlflow.add("churn", {"f1": 0.85})
        problem(await deliver(gates, CREATED, secret="another"), 401, "bad_signature")
        problem(await deliver(gates, CREATED, **{"X-MLflow-Timestamp": "1"}), 401, "bad_signature")
        problem(await gates.world.post("/api/v1/webhooks/mlflow", CREATED), 401, "bad_signature")
        assert (await deliver(gates, CREATED, ident="once")).status_code == 202
        problem(await deliver(gates, CREATED, ident="once"), 401, "bad_signature")


async def test_without_a_secret_a_token_does(servers: TestServers, database: str) -> None:
    async with opened(servers, database, ENTRIES) as gates:
        gates.mlflow.add("churn", {"f1": 0.85})
        answer = await gates.world.post("/api/v1/webhooks/mlflow", CREATED)
        assert [row["state"] for row in answer.json()["promotions"]] == ["promoted", "promoted"]


async def test_mlflow_is_asked_to_come_again_when_there_is_no_verdict(servers: TestServers, database: str) -> None:
    async with opened(servers, database, ENTRIES, mlflow_secret=SECRET) as gates:
        gates.mlflow.add("churn", {"f1": 0.85})
        gates.mlflow.down = True
        problem(await deliver(gates, CREATED, ident="again"), 503, "registry_unavailable")
        gates.mlflow.calm()
        assert (await deliver(gates, CREATED, ident="again")).status_code == 202
        assert gates.champion() == "1"


async def test_mlflow_is_asked_to_come_again_when_another_was_faster(servers: TestServers, database: str) -> None:
    async with opened(servers, database, ENTRIES, mlflow_secret=SECRET) as gates:
        gates.mlflow.add("churn", {"f1": 0.85})
        gates.mlflow.add("churn", {"f1": 0.9})
        second = CREATED | {"data": {"name": "churn", "version": "2"}}

        def somebody() -> None:
            gates.mlflow.aliases[("churn", "staging")] = "1"

        gates.mlflow.disturb(meanwhile(somebody), on="POST model-versions/set-tag")
        assert problem(await deliver(gates, second, ident="again"), 503, "registry_unavailable")["state"] == "lost"
        answer = await deliver(gates, second, ident="again")
        assert [row["state"] for row in answer.json()["promotions"]] == ["promoted", "promoted"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], "#"),
        ({"entity": "model_version", "action": "created"}, "#/data"),
        (CREATED | {"data": {"name": "churn", "version": "one"}}, "#/version"),
        (CREATED | {"data": {"version": "1"}}, "#/name"),
    ],
)
async def test_what_is_no_event_is_told_where(servers: TestServers, database: str, body: Any, pointer: str) -> None:
    async with opened(servers, database, ENTRIES, mlflow_secret=SECRET) as gates:
        refused = problem(await deliver(gates, body), 422, "invalid")
        assert [error["pointer"] for error in refused["errors"]] == [pointer]
