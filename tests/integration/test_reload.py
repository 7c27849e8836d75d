"""The policy file changes while the gateway runs: when it is read, what a bad one does, and who is told."""

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.policy.file.load import parse_policy
from demo.processes import wait_until
from tests.acceptance.world import POLICY, World, policy
from tests.integration.api import problem
from tests.integration.processes import Process, alert, running
from tests.servers import TestServers

LONGER = policy(cooldown="48h")
BROKEN = policy("debounce: soon\n    mood: bad")


def hash_of(text: str) -> str:
    return parse_policy(text, "policy.yaml", {}).hash


def warning(text: str, file: str | Path) -> str:
    """Its route has no limit."""
    [found] = parse_policy(text, str(file), {}).warnings
    return str(found)


async def metrics(world: World) -> dict[str, float]:
    """What /metrics says of the policy."""
    text = (await world.clients[0].get("/metrics")).text
    families = text_string_to_metric_families(text)
    samples = [s for f in families if f.name.startswith("gateway_policy") for s in f.samples]
    return {s.labels.get("hash", s.name): s.value for s in samples}


async def verbose(world: World) -> dict[str, Any]:
    """What `/readyz?verbose` says of the policy."""
    state: dict[str, Any] = (await world.get("/readyz", verbose=""))["policy"]
    return state


async def test_a_changed_file_is_in_force_after_it_was_asked_to_be_read(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        answer = await world.reload(LONGER)
        assert (answer.status_code, answer.json()) == (
            200,
            {"policy": hash_of(LONGER), "changed": True, "warnings": [warning(LONGER, world.policy_file())]},
        )
        [route] = (await world.get("/api/v1/routes"))["items"]
        assert route["cooldown"] == "2d"
        assert (await world.reload(LONGER)).json()["changed"] is False


async def test_warnings_of_a_taken_file_are_in_the_answer(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        _, short = (await world.reload(policy("debounce: 2m"))).json()["warnings"]
        assert "routes.0.debounce" in short


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(BROKEN, ["routes.0.debounce", "routes.0.mood"], id="two mistakes, both told"),
        pytest.param("", ["policy: the file is empty"], id="empty"),
        pytest.param("version: 1\nroutes: [", ["policy"], id="no YAML"),
        pytest.param(POLICY.replace("password: gateway", 'password: "${UNSET_1}"'), ["UNSET_1"], id="a variable unset"),
    ],
)
async def test_a_bad_file_keeps_the_old_policy_and_is_told_everywhere(
    servers: TestServers, database: str, text: str, words: list[str]
) -> None:
    async with World(servers, database) as world:
        world.airflow.add_dag("retrain_model")
        started = await verbose(world)
        assert (started["hash"], started["refused"]) == (hash_of(POLICY), None)
        world.clock.pass_by(timedelta(minutes=5))
        refused = problem(await world.reload(text), 422, "policy_refused")
        for word, line in zip(words, refused["errors"], strict=False):
            assert word in line
            assert line.startswith(f"{world.policy_file()}:")
        assert len(refused["errors"]) >= len(words)
        shown = await verbose(world)
        assert (shown["hash"], shown["loaded_at"]) == (started["hash"], started["loaded_at"])
        assert shown["refused"]["errors"] == refused["errors"]
        assert (await metrics(world))["gateway_policy_reload_success"] == 0
        assert (await world.get("/readyz"))["status"] == "ok", "it still takes alerts"
        await world.push(world.alert(model="churn"))
        await world.settle()
        assert len(world.airflow.posts) == 1, "by the policy of before"


async def test_a_mended_file_ends_the_bad_news(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        await world.reload(BROKEN)
        world.clock.pass_by(timedelta(minutes=5))
        assert (await world.reload(LONGER)).status_code == 200
        assert (await verbose(world))["refused"] is None
        now = world.clock.now().timestamp()
        assert await metrics(world) == {
            hash_of(LONGER): 1,
            "gateway_policy_reload_success": 1,
            "gateway_policy_last_reload_timestamp_seconds": now,
        }


async def test_a_file_that_is_gone_changes_nothing_and_is_told(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        world.policy_file().unlink()
        [line] = problem(await world.post("/-/reload", b""), 422, "policy_refused")["errors"]
        assert "cannot be read: No such file" in line
        assert (await verbose(world))["hash"] == hash_of(POLICY)


# By itself.


async def look(world: World) -> str:
    """One look at the file, as the loop takes it every two seconds; the hash then in force."""
    await world.services[0].loop("policy").step()
    return world.services[0].core.policy.hash


async def test_a_change_is_taken_at_the_second_look_that_finds_it_the_same(servers: TestServers, database: str) -> None:
    """A file that is still being written could be a policy without its last routes."""
    async with World(servers, database) as world:
        assert [await look(world) for _ in range(3)] == [hash_of(POLICY)] * 3
        half = LONGER[: LONGER.index("    cooldown")] + "    dag: {id: other}\n"
        world.policy_file().write_text(half)
        assert await look(world) == hash_of(POLICY)
        world.policy_file().write_text(LONGER)
        assert await look(world) == hash_of(POLICY)
        assert await look(world) == hash_of(LONGER)


async def test_a_link_that_is_swapped_is_a_change(servers: TestServers, database: str, tmp_path: Path) -> None:
    """As Kubernetes updates a ConfigMap: same size, and maybe the same times."""
    async with World(servers, database) as world:
        for name, text in (("old", POLICY), ("new", POLICY.replace("24h", "23h"))):
            (tmp_path / name).write_text(text)
            os.utime(tmp_path / name, (0, 0))
        file = world.policy_file()
        for name in ("old", "new"):
            file.unlink()
            file.symlink_to(tmp_path / name)
            for _ in range(2):
                await look(world)
        assert world.services[0].core.policy.hash == hash_of(POLICY.replace("24h", "23h"))


async def test_a_bad_file_is_refused_once_and_not_at_every_look(
    servers: TestServers, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(servers, database) as world:
        world.policy_file().write_text(BROKEN)
        for _ in range(5):
            assert await look(world) == hash_of(POLICY)
        assert [r.getMessage() for r in caplog.records].count("the policy file was refused: the old policy stays") == 1
        assert (await verbose(world))["refused"]["errors"]


async def test_asked_by_a_signal_it_reads_at_the_next_look(servers: TestServers, database: str) -> None:
    async with World(servers, database) as world:
        await look(world)
        world.policy_file().write_text(LONGER)
        world.services[0].reload_soon()
        assert await look(world) == hash_of(LONGER)


# Real processes.


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("serve",), ("serve", "--no-worker"), ("serve", "--workers", "2")], ids=" ".join)
async def test_sighup_reads_the_file_in_every_process(
    servers: TestServers, database: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    variables = {"database_url": database, "redis_url": servers.valkey.url}
    process = Process(tmp_path, variables, arguments=arguments)
    async with running(process):
        before = process.get("/readyz")["checks"]["policy"]
        file = tmp_path / "policy.yaml"
        file.write_text(file.read_text().replace("name: accuracy", "name: renamed"))
        os.kill(process.pid, signal.SIGHUP)

        async def renamed() -> bool:
            return all(process.get("/readyz")["checks"]["policy"] != before for _ in range(10))

        await wait_until("the new policy", renamed, within=30)
        assert process.push(alert("churn"))[0]["route"] == "renamed"
        assert process.end() == 0


@pytest.mark.slow
async def test_a_changed_file_is_noticed_without_a_signal(servers: TestServers, database: str, tmp_path: Path) -> None:
    process = Process(tmp_path, {"database_url": database, "redis_url": servers.valkey.url})
    async with running(process):
        file = tmp_path / "policy.yaml"
        file.write_text(file.read_text().replace("name: accuracy", "name: renamed"))

        async def renamed() -> bool:
            return [r["name"] for r in process.get("/api/v1/routes")["items"]] == ["renamed"]

        await wait_until("the new policy", renamed, within=30)
        file.write_text("version: 1\nroutes: []\n")

        async def refused() -> bool:
            return process.get("/readyz", verbose="")["policy"]["refused"] is not None

        await wait_until("the refusal", refused, within=30)
        assert process.get("/api/v1/routes")["items"][0]["name"] == "renamed"
