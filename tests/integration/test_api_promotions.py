"""Promotion over HTTP and by command: scopes, shapes, and what a person reads."""

from pathlib import Path
from typing import Any

import pytest

from app.kit.errors import GatewayError
from tests.acceptance.promotions import opened
from tests.integration.api import problem, token_of
from tests.integration.test_api_cli import ask
from tests.servers import TestServers

GOOD: dict[str, Any] = {"model": "churn", "version": "1"}


async def test_who_may_promote_may_not_override(servers: TestServers, database: str, tmp_path: Path) -> None:
    reads, promotes = token_of(tmp_path, "read"), token_of(tmp_path, "promote")
    both = token_of(tmp_path, "promote", "override")
    async with opened(servers, database, tokens_file=tmp_path / "tokens") as gates:
        gates.mlflow.add("churn", {"f1": 0.5})
        client = gates.world.clients[0]
        refused = problem(await client.post("/api/v1/promotions", json=GOOD, headers=reads), 403, "forbidden")
        assert refused["scope"] == "promote"
        override = GOOD | {"override": True, "reason": "unsafe"}
        refused = problem(await client.post("/api/v1/promotions", json=override, headers=promotes), 403, "forbidden")
        assert refused["scope"] == "override"
        problem(await client.get("/api/v1/promotions", headers=promotes), 403, "forbidden")
        assert (await client.post("/api/v1/promotions", json=override, headers=both)).status_code == 200
        [row] = (await client.get("/api/v1/promotions", headers=reads)).json()["items"]
        assert row["requested_by"].startswith("promote-override-")


SHAPES = [
    ({"model": "churn"}, "#/version"),
    (GOOD | {"version": "latest"}, "#/version"),
    (GOOD | {"version": True}, "#/version"),
    (GOOD | {"version": "0"}, "#/version"),
    (GOOD | {"version": "007"}, "#/version"),  # MLflow takes it for 7, and answers with 7.
    (GOOD | {"version": "1\x00"}, "#/version"),
    (GOOD | {"model": ""}, "#/model"),
    (GOOD | {"model": "a\x00"}, "#/model"),
    (GOOD | {"model": "x" * 257}, "#/model"),
    (GOOD | {"expected": "one"}, "#/expected"),
    (GOOD | {"expected": "07"}, "#/expected"),
    (GOOD | {"dryrun": True}, "#/dryrun"),
    (GOOD | {"override": True}, "#"),
]


@pytest.mark.parametrize(("body", "pointer"), SHAPES)
async def test_a_body_of_the_wrong_shape_is_told_where(
    servers: TestServers, database: str, body: dict[str, Any], pointer: str
) -> None:
    async with opened(servers, database) as gates:
        refused = problem(await gates.world.post("/api/v1/promotions", body), 422, "invalid")
        assert [error["pointer"] for error in refused["errors"]] == [pointer]


async def test_a_number_is_a_version_too(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        gates.mlflow.add("churn", {"f1": 0.9})
        assert (await gates.world.post("/api/v1/promotions", {"model": "churn", "version": 1})).json()["version"] == "1"


async def test_the_commands_tell_each_verdict(servers: TestServers, database: str) -> None:
    async with opened(servers, database) as gates:
        for f1 in (0.85, 0.851, 0.9):
            gates.mlflow.add("churn", {"f1": f1})
        assert await ask(gates.world, "promotions") == "No promotions yet.\n"
        output = await ask(gates.world, "promote", "churn", "1", "--reason", "the first")
        assert "promoted: version 1 holds champion" in output
        assert "f1 is 0.85; no other version holds champion" in output
        worse = await ask(gates.world, "promote", "churn", "2", exit_code=1)
        assert "NO" in worse
        assert "f1 is 0.851, champion.f1 is 0.85" in worse
        dry = await ask(gates.world, "promote", "churn", "3", "--dry-run", "--expected", "1", "--to", "champion")
        assert "passed: the version passes; nothing was changed" in dry
        assert gates.champion() == "1"
        await ask(gates.world, "promote", "churn", "3")
        newest = (await gates.rows())[-1]
        assert "version 1 holds champion" in await ask(gates.world, "rollback", newest["id"], "--reason", "worse")
        listed = await ask(gates.world, "promotions", "--state", "blocked", columns=200)
        assert listed.count("blocked") == 1
        with pytest.raises(GatewayError, match="no promotion for a model named 'fraud'"):
            await ask(gates.world, "promote", "fraud", "1")
