"""Lineage on a real MLflow: the chain from each of its ends, with MLflow away, and every kind of orphan."""

import json
import secrets
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, cast

import asyncpg
import httpx
import pytest
from uuid_utils.compat import uuid7

from app.kit.errors import GatewayError, UsageError
from app.lineage.survey import MOST_FAILURES, Survey
from tests.acceptance.world import POLICY, World
from tests.fakes.airflow import FakeAirflow
from tests.integration.test_api_cli import ask
from tests.servers import TestServers
from tests.spool.mlflow import MlflowServer

COMMIT = "3fe19b6312176b561a2a916a44d595233dd41141"


class Wire(httpx.AsyncBaseTransport):
    """The way to the real MLflow, which a test can cut."""

    def __init__(self) -> None:
        self.cut = False
        self.broken = ""  # the end of a path that is always answered with 500
        self.asked = 0
        self._real = httpx.AsyncHTTPTransport()

    def transport(self) -> httpx.AsyncBaseTransport:
        return self

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.cut:
            raise httpx.ConnectError("cut by the test")
        if self.broken and request.url.path.endswith(self.broken):
            return httpx.Response(500, json={"error_code": "INTERNAL_ERROR"})
        return await self._real.handle_async_request(request)


class Site:
    """A gateway whose policy names the session's MLflow, and what training code would log there."""

    def __init__(self, world: World, mlflow: MlflowServer, wire: Wire) -> None:
        self.world = world
        self.mlflow = mlflow
        self.policy = policy_for(mlflow)
        self.wire = wire
        self.experiment = mlflow.call("POST", "experiments/create", {"name": secrets.token_hex(6)})["experiment_id"]

    def run(
        self,
        *,
        trigger: str | None = None,
        commit: str | None = COMMIT,
        metrics: int = 2,
        ended: bool = True,
        more: dict[str, str] | None = None,
    ) -> str:
        """A run that began now and ended a minute later, by the gateway's clock; its id."""
        now = self.world.clock.now()
        given = {"gateway.trigger_id": trigger, "mlflow.source.git.commit": commit} | (more or {})
        body = {
            "experiment_id": self.experiment,
            "start_time": milliseconds(now),
            "tags": [{"key": key, "value": value} for key, value in given.items() if value],
        }
        run_id: str = self.mlflow.call("POST", "runs/create", body)["run"]["info"]["run_id"]
        values = [{"key": f"m{n}", "value": 0.9, "timestamp": milliseconds(now), "step": 0} for n in range(metrics)]
        self.mlflow.call("POST", "runs/log-batch", {"run_id": run_id, "metrics": values})
        if ended:
            end = {"run_id": run_id, "status": "FINISHED", "end_time": milliseconds(now + timedelta(minutes=1))}
            self.mlflow.call("POST", "runs/update", end)
        return run_id

    def version(self, run_id: str, model: str | None = None) -> tuple[str, str]:
        """A version that comes from a run: its model, a new one unless it is given, and number."""
        if model is None:
            model = secrets.token_hex(6)
            self.mlflow.call("POST", "registered-models/create", {"name": model})
        body = {"name": model, "source": f"s3://models/{model}", "run_id": run_id}
        return model, self.mlflow.call("POST", "model-versions/create", body)["model_version"]["version"]

    async def retrained(self) -> dict[str, Any]:
        """An alert that led to a DAG run that succeeded."""
        await self.world.push(self.world.alert(model=secrets.token_hex(6)))
        await self.world.settle()
        await self.world.pass_by(minutes=30)
        trigger: dict[str, Any] = (await self.world.triggers())[0]
        assert trigger["state"] == "succeeded"
        return trigger

    async def lineage(self, **subject: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self.world.get("/api/v1/lineage", **subject)
        return found

    async def misled(self, model: str) -> None:
        """Its alias names a version that is not there. MLflow takes the aliases of a version away with it, so this takes a
        restored backup, or a writer that came in between."""
        connection = await asyncpg.connect(self.mlflow.database)
        await connection.execute("UPDATE registered_model_aliases SET version = 99 WHERE name = $1", model)
        await connection.close()

    async def surveyed(self, **passed: Any) -> None:
        """A round of the survey goes over everything, two hours later or after another time."""
        await self.world.pass_by(**(passed or {"hours": 2}))

    async def orphans(self, *ids: str) -> set[tuple[str, str]]:
        """(kind, missing link) of what concerns these ids; the server is shared with other tests."""
        found, cursor = set(), None
        while True:
            page = await self.world.get("/api/v1/lineage/orphans", limit=50, **({"cursor": cursor} if cursor else {}))
            found |= {(o["kind"], o["missing"]) for o in page["items"] if set(ids) & set(o["about"].values())}
            if (cursor := page["next"]) is None:
                return found


def policy_for(mlflow: MlflowServer) -> str:
    return f"""{POLICY}
mlflow: {{tracking_uri: {mlflow.uri}}}
promotions: [{{model: ".*", to: champion, require: {{metrics: [m0]}}}}]
receivers: [{{name: ops, slack: {{url: "http://slack.test/hook"}}}}]
"""


def milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


@pytest.fixture
async def site(servers: TestServers, database: str, mlflow_server: MlflowServer) -> AsyncIterator[Site]:
    wire = Wire()
    others = {"127.0.0.1": cast(FakeAirflow, wire)}
    async with World(servers, database, policy_for(mlflow_server), others=others) as world:
        world.airflow.add_dag("retrain_model")
        yield Site(world, mlflow_server, wire)


async def test_the_chain_is_the_same_from_each_of_its_five_ends(site: Site) -> None:
    trigger = await site.retrained()
    run = site.run(trigger=trigger["id"])
    model, version = site.version(run)
    promoted = await site.world.post("/api/v1/promotions", {"model": model, "version": version, "to": "champion"})
    assert promoted.status_code == 200, promoted.text
    alert = trigger["alerts"][0]["id"]
    ends: list[dict[str, str]] = [
        {"model": model, "version": version},
        {"run": run},
        {"trigger": trigger["id"]},
        {"alert": alert},
        {"dag_run": trigger["dag_run_id"]},
    ]
    for subject in ends:
        found = await site.lineage(**subject)
        assert (found["subject"], found["missing"], found["mlflow"]["state"]) == (subject, [], "asked")
        (chain,) = found["chains"]
        assert [row["id"] for row in chain["alerts"]] == [alert]
        assert ("fire", "new_alert") in {(decision["action"], decision["reason"]) for decision in chain["decisions"]}
        assert chain["trigger"]["id"] == trigger["id"]
        assert (chain["dag_run"]["dag_run_id"], chain["dag_run"]["state"]) == (trigger["dag_run_id"], "success")
        (shown,) = chain["runs"]
        assert (shown["run_id"], shown["git_commit"], shown["metrics"]) == (run, COMMIT, 2)
        (made,) = shown["versions"]
        assert (made["model"], made["version"], made["aliases"]) == (model, version, ["champion"])
        assert [(promotion["to"], promotion["state"]) for promotion in made["promotions"]] == [("champion", "promoted")]
    again = await site.world.get(f"/api/v1/triggers/{trigger['id']}")
    assert [(run["run_id"], run["versions"]) for run in again["runs"]] == [
        (run, [{"model": model, "version": version}])
    ]


async def test_what_was_deleted_in_mlflow_since_is_not_shown(site: Site) -> None:
    trigger = await site.retrained()
    kept, deleted = [site.run(trigger=trigger["id"]) for _ in range(2)]
    model, version = site.version(kept)
    ends: list[dict[str, str]] = [{"trigger": trigger["id"]}, {"run": kept}]
    for subject in ends:
        assert {run["run_id"] for run in (await site.lineage(**subject))["chains"][0]["runs"]} == {kept, deleted}
    site.mlflow.call("POST", "runs/delete", {"run_id": deleted})
    site.mlflow.call("DELETE", "model-versions/delete", {"name": model, "version": version})
    await site.world.pass_by(seconds=1)
    for subject in ends:
        (shown,) = (await site.lineage(**subject))["chains"][0]["runs"]
        assert (shown["run_id"], shown["versions"]) == (kept, [])


async def test_while_mlflow_is_away_the_chain_is_told_as_it_was_last_seen(site: Site) -> None:
    trigger = await site.retrained()
    run = site.run(trigger=trigger["id"])
    model, version = site.version(run)
    site.wire.cut = True
    before = await site.lineage(trigger=trigger["id"])
    assert (before["chains"][0]["runs"], before["mlflow"]["state"]) == ([], "away")
    site.wire.cut = False
    await site.world.settle()
    await site.surveyed()
    site.wire.cut = True
    for subject in ({"model": model, "version": version}, {"run": run}, {"trigger": trigger["id"]}):
        found = await site.lineage(**subject)
        (chain,) = found["chains"]
        assert (chain["trigger"]["id"], chain["runs"][0]["run_id"]) == (trigger["id"], run)
        assert [gap["link"] for gap in found["missing"]] == ["mlflow"]
        assert "cannot connect" in found["mlflow"]["detail"]
    unknown = await site.lineage(run="0" * 32)
    assert (unknown["chains"], [gap["link"] for gap in unknown["missing"]]) == ([], ["mlflow"])


async def test_what_nobody_knows_is_not_found_and_two_ends_at_once_are_refused(site: Site) -> None:
    for subject in ({"run": "0" * 32}, {"dag_run": "by_hand"}, {"model": secrets.token_hex(4), "version": "1"}):
        answer = await site.world.clients[0].get("/api/v1/lineage", params=subject)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), subject
    for wrong in ({}, {"model": "churn"}, {"run": "a", "dag_run": "b"}):
        answer = await site.world.clients[0].get("/api/v1/lineage", params=wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), wrong


async def test_a_run_by_hand_and_a_version_without_its_run_are_chains_with_a_gap(site: Site) -> None:
    run = site.run(commit=None, metrics=0)
    found = await site.lineage(run=run)
    assert found["chains"][0]["trigger"] is None
    assert [gap["link"] for gap in found["missing"]] == ["trigger", "git_commit", "metrics"]
    model, version = site.version("f" * 32)
    found = await site.lineage(model=model, version=version)
    assert [row["version"] for row in found["chains"][0]["versions"]] == [version]
    assert [gap["link"] for gap in found["missing"]] == ["run"]


async def test_nothing_of_a_healthy_set_is_an_orphan(site: Site) -> None:
    trigger = await site.retrained()
    run = site.run(trigger=trigger["id"])
    child = site.run(commit=None, metrics=0, more={"mlflow.parentRunId": run})
    scheduled = site.run(more={"airflow.dag_run_id": "scheduled__2026-11-23"})
    model, version = site.version(run)
    site.mlflow.call("POST", "registered-models/alias", {"name": model, "alias": "champion", "version": version})
    await site.surveyed()
    assert await site.orphans(trigger["id"], run, child, scheduled, model) == set()


async def test_each_planted_kind_of_orphan_is_found_and_is_gone_when_it_is_mended(site: Site) -> None:
    unreported = await site.retrained()
    bare = site.run()
    foreign = site.run(trigger=str(uuid7()))
    uncommitted = site.run(trigger=unreported["id"], commit=None)
    silent = site.run(trigger=unreported["id"], metrics=0)
    running = site.run(trigger=unreported["id"], metrics=0, ended=False)
    second = await site.retrained()
    lost, gone = site.version("e" * 32), site.version(silent)
    marked = site.version(bare)
    site.mlflow.call("POST", "registered-models/alias", {"name": marked[0], "alias": "champion", "version": marked[1]})
    site.mlflow.call("POST", "runs/delete", {"run_id": silent})
    await site.misled(marked[0])
    await site.surveyed()
    assert await site.orphans(bare) == {("run_without_dag_run", "dag_run")}
    assert await site.orphans(foreign) == {("run_without_dag_run", "dag_run")}
    assert await site.orphans(uncommitted) == {("run_without_git_commit", "git_commit")}
    assert await site.orphans(silent, running, unreported["id"]) == set()  # Deleted, still running, and reported.
    assert await site.orphans(second["id"]) == {("trigger_without_run", "run")}
    assert (
        await site.world.reload(site.policy.replace("group_by:", "lineage: false\n    group_by:", 1))
    ).status_code == 200
    await site.surveyed()
    assert await site.orphans(second["id"]) == set()
    await site.world.reload(site.policy)
    await site.surveyed()
    assert await site.orphans(second["id"]) == {("trigger_without_run", "run")}
    assert await site.orphans(lost[0]) == await site.orphans(gone[0]) == {("version_without_run", "run")}
    assert await site.orphans(marked[0]) == {("alias_to_deleted_version", "version")}

    site.mlflow.call("POST", "runs/restore", {"run_id": silent})
    tag = {"run_id": uncommitted, "key": "mlflow.source.git.commit", "value": COMMIT}
    site.mlflow.call("POST", "runs/set-tag", tag)
    site.run(trigger=second["id"])
    site.mlflow.call("DELETE", "model-versions/delete", {"name": lost[0], "version": lost[1]})
    site.mlflow.call("DELETE", "registered-models/alias", {"name": marked[0], "alias": "champion"})
    await site.surveyed()
    assert await site.orphans(uncommitted, second["id"], lost[0], gone[0], marked[0]) == set()
    assert await site.orphans(silent) == {("run_without_metrics", "metrics")}
    await site.world.services[0].loop("gauges").step()
    text = (await site.world.clients[0].get("/metrics")).text
    assert 'gateway_orphans{kind="run_without_metrics"}' in text
    assert "gateway_survey_last_end_timestamp_seconds 1.79" in text


async def test_receivers_are_told_of_a_kind_once_until_there_is_none_of_it(site: Site) -> None:
    async def incidents() -> list[tuple[str, bool]]:
        connection = await asyncpg.connect(site.world.database)
        rows = await connection.fetch("SELECT * FROM notices WHERE event = 'orphan' ORDER BY opened_at")
        tellings = await connection.fetch("SELECT * FROM tellings WHERE receiver = 'ops'")
        await connection.close()
        assert {row["notice"] for row in tellings} == {row["id"] for row in rows}
        assert {row["repeat"] for row in tellings} == {86400.0}
        mine = [row for row in rows if row["labels"] == '{"kind": "trigger_without_run"}']  # The server is shared.
        return [(row["key"], row["resolved_at"] is None) for row in mine]

    trigger = await site.retrained()
    await site.surveyed()
    await site.retrained()
    await site.surveyed()
    assert await incidents() == [("orphan:trigger_without_run", True)]
    for trigger in await site.world.triggers():
        site.run(trigger=trigger["id"])
    await site.surveyed()
    assert await incidents() == [("orphan:trigger_without_run", False)]


async def test_a_round_goes_page_by_page_stops_where_mlflow_goes_away_and_goes_on_there(site: Site) -> None:
    await site.world.settle()  # The round of the start.
    runs = [site.run(commit=None) for _ in range(5)]
    site.world.clock.pass_by(timedelta(hours=2))
    services = site.world.services[0]
    of_loop: Survey = services.loop("survey").step.__self__  # type: ignore[attr-defined]
    of_loop._size = 3
    assert await of_loop.step()
    for _ in range(3):
        site.wire.cut = True
        assert not await of_loop.step()
        site.wire.cut = False
        assert await of_loop.step()
    while await of_loop.step():
        assert site.wire.asked < 10_000
    for run in runs:
        assert await site.orphans(run) == {
            ("run_without_dag_run", "dag_run"),
            ("run_without_git_commit", "git_commit"),
        }


async def test_a_page_that_always_fails_hides_nothing_of_the_other_phases(site: Site) -> None:
    await site.world.settle()  # The round of the start.
    run = site.run(commit=None)
    model, number = site.version(run)
    site.mlflow.call("POST", "registered-models/alias", {"name": model, "alias": "champion", "version": number})
    await site.surveyed()
    known = await site.orphans(run)
    assert known
    await site.misled(model)
    site.world.clock.pass_by(timedelta(hours=2))
    site.wire.broken = "runs/search"
    survey = site.world.services[0].loop("survey").step
    for _ in range(MOST_FAILURES):
        assert not await survey()
    while await survey():
        assert site.wire.asked < 10_000
    assert await site.orphans(model)
    assert await site.orphans(run) == known, "what this round could not see is not taken for repaired"


async def test_the_policy_says_how_long_to_wait_before_judging_and_how_often_to_look(site: Site) -> None:
    answer = await site.world.reload(f"{site.policy}lineage: {{every: 1m, grace: 10m}}\n")
    assert answer.status_code == 200, answer.text
    run = site.run(commit=None)
    await site.surveyed(minutes=9)
    assert await site.orphans(run) == set()
    await site.surveyed(minutes=2)
    assert ("run_without_git_commit", "git_commit") in await site.orphans(run)


async def test_the_command_tells_the_chain_from_whatever_it_is_given(site: Site) -> None:
    trigger = await site.retrained()
    run = site.run(trigger=trigger["id"])
    model, version = site.version(run)
    alert = trigger["alerts"][0]["id"]
    for subject in (f"{model}/{version}", run, trigger["id"], alert, trigger["dag_run_id"]):
        output = await ask(site.world, "lineage", subject, columns=160)
        for words in (
            alert,
            "fire, new_alert",
            trigger["id"],
            trigger["dag_run_id"],
            run,
            f"{model}/{version}",
            COMMIT[:12],
        ):
            assert words in output, (subject, words)
        assert output.rstrip().endswith("No link is missing.")
    found = json.loads(await ask(site.world, "lineage", run, "--json"))
    assert found["chains"][0]["trigger"]["id"] == trigger["id"]
    bare = site.run(commit=None)
    assert "Missing: git_commit of run" in await ask(site.world, "lineage", bare)
    await site.surveyed()
    assert f"run {bare}" in (await ask(site.world, "lineage", "--orphans", columns=200))
    for wrong in ([], [run, "--orphans"]):
        with pytest.raises(UsageError, match="or --orphans"):
            await ask(site.world, "lineage", *wrong)
    with pytest.raises(GatewayError, match="Neither the gateway nor MLflow knows"):
        await ask(site.world, "lineage", "nobody/1")
