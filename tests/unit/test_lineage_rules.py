"""Which link of a chain is missing, as a table."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from app.lineage.model import SeenAlias, SeenRun, SeenVersion, read_run, read_version
from app.lineage.rules import Patience, TriggerFacts, gaps, judge_alias, judge_run, judge_trigger, judge_version
from app.policy.file.load import parse_policy
from tests.fakes.clock import NOON

LONG_AGO, JUST_NOW = NOON - timedelta(hours=5), NOON - timedelta(minutes=5)
PATIENCE = Patience.at(NOON, timedelta(hours=1), timedelta(days=90))
TRIGGER = TriggerFacts(UUID(int=7), "accuracy", "succeeded", "gateway__accuracy__7", LONG_AGO, LONG_AGO)
RUN = SeenRun("r1", "1", "a run", "FINISHED", False, TRIGGER.id, None, "3fe19b6", None, 2, LONG_AGO, LONG_AGO)
VERSION = SeenVersion("churn", "3", "r1", "READY", LONG_AGO)


@pytest.mark.parametrize(
    ("run", "trigger", "kinds"),
    [
        pytest.param(RUN, TRIGGER, [], id="whole"),
        pytest.param(replace(RUN, git_commit=None), TRIGGER, ["run_without_git_commit"], id="no-commit"),
        pytest.param(replace(RUN, metrics=0), TRIGGER, ["run_without_metrics"], id="no-metrics"),
        pytest.param(replace(RUN, metrics=0, status="FAILED"), TRIGGER, [], id="failed-before-its-metrics"),
        pytest.param(replace(RUN, metrics=0, status="RUNNING", ended_at=None), TRIGGER, [], id="still-running"),
        pytest.param(replace(RUN, metrics=0, ended_at=JUST_NOW), TRIGGER, [], id="ended-just-now"),
        pytest.param(replace(RUN, trigger_id=None), None, ["run_without_dag_run"], id="by-hand"),
        pytest.param(replace(RUN, trigger_id=None, dag_run_id="scheduled__1"), None, [], id="of-another-dag-run"),
        pytest.param(RUN, None, ["run_without_dag_run"], id="of-a-trigger-that-is-not-ours"),
        pytest.param(RUN, replace(TRIGGER, accepted_at=None), ["run_without_dag_run"], id="of-a-trigger-without-a-run"),
        pytest.param(replace(RUN, started_at=NOON - timedelta(days=91)), None, [], id="its-trigger-may-be-deleted"),
        pytest.param(replace(RUN, git_commit=None, parent="r0"), None, [], id="nested"),
        pytest.param(replace(RUN, git_commit=None, deleted=True), None, [], id="deleted"),
        pytest.param(replace(RUN, git_commit=None, started_at=JUST_NOW), None, [], id="too-young"),
        pytest.param(replace(RUN, git_commit=None, started_at=None), None, [], id="never-started"),
    ],
)
def test_what_a_run_lacks(run: SeenRun, trigger: TriggerFacts | None, kinds: list[str]) -> None:
    found = judge_run(run, trigger, PATIENCE)
    assert [orphan.kind for orphan in found] == kinds
    assert all(orphan.ids == {"run_id": "r1"} and "r1" in orphan.detail for orphan in found)


@pytest.mark.parametrize(
    ("version", "run", "detail"),
    [
        pytest.param(VERSION, RUN, None, id="whole"),
        pytest.param(replace(VERSION, run_id=None), None, "names no run", id="names-none"),
        pytest.param(VERSION, None, "does not exist", id="its-run-is-not-there"),
        pytest.param(VERSION, replace(RUN, deleted=True), "was deleted", id="its-run-was-deleted"),
    ],
)
def test_what_a_version_lacks(version: SeenVersion, run: SeenRun | None, detail: str | None) -> None:
    found = judge_version(version, run)
    assert [(o.kind, o.missing, o.key) for o in found] == (
        [("version_without_run", "run", "version_without_run:churn:3")] if detail else []
    )
    assert all(str(detail) in orphan.detail for orphan in found)


@pytest.mark.parametrize(
    ("trigger", "runs", "orphan"),
    [
        pytest.param(TRIGGER, 1, False, id="reported"),
        pytest.param(TRIGGER, 0, True, id="silent"),
        pytest.param(replace(TRIGGER, state="failed"), 0, False, id="failed-which-is-told-elsewhere"),
        pytest.param(replace(TRIGGER, ended_at=JUST_NOW), 0, False, id="the-spool-may-still-deliver"),
    ],
)
def test_a_dag_run_that_succeeded_should_have_reported(trigger: TriggerFacts, runs: int, orphan: bool) -> None:
    assert [found.kind for found in judge_trigger(trigger, runs, PATIENCE)] == ["trigger_without_run"] * orphan
    assert judge_trigger(trigger, runs, PATIENCE, reports=False) == []


def test_of_a_route_whose_runs_train_nothing_no_run_is_missed() -> None:
    policy = parse_policy(
        """
        version: 1
        airflow: [{name: default, url: "http://airflow.test"}]
        routes: [{match: [a=b], dag: {id: accuracy}}, {match: [c=d], dag: {id: canary}, lineage: false}]
        """,
        "policy.yaml",
        {},
    )
    for route, links in (("accuracy", ["run"]), ("canary", []), ("one-that-is-gone", ["run"])):
        found = judge_trigger(replace(TRIGGER, route=route), 0, PATIENCE, reports=policy.reports(route))
        assert [orphan.missing for orphan in found] == links
        shown = {"id": "7", "state": "succeeded", "route": route}
        chain = {"trigger": shown, "dag_run": {}, "runs": [], "versions": []}
        assert [gap["link"] for gap in gaps(chain, policy.reports)] == links


def test_an_alias_names_a_version_that_is_there() -> None:
    alias = SeenAlias("churn", "champion", "3")
    assert judge_alias(alias, exists=True) == []
    (orphan,) = judge_alias(alias, exists=False)
    assert (orphan.kind, orphan.missing) == ("alias_to_deleted_version", "version")
    assert orphan.detail == "the alias champion of churn names version 3, which does not exist"


def test_without_a_retention_no_trigger_was_ever_deleted() -> None:
    ancient = replace(RUN, started_at=datetime(1971, 1, 1, tzinfo=NOON.tzinfo))
    assert judge_run(ancient, None, Patience.at(NOON, timedelta(hours=1), timedelta(0)))
    assert not judge_run(ancient, None, PATIENCE)


def test_what_mlflow_says_is_read_with_care() -> None:
    info = {"run_id": "r", "experiment_id": 3, "status": "FINISHED", "lifecycle_stage": "active", "start_time": "x"}
    tags = {"gateway.trigger_id": "not an id", "mlflow.source.git.commit": "a\x00b" + "c" * 900}
    run = read_run({"info": info, "data": {"metrics": [{"key": "f1"}]}}, tags)
    assert (run.trigger_id, run.started_at, run.metrics, run.experiment_id) == (None, None, 1, "3")
    assert run.git_commit is not None
    assert (run.git_commit[:3], len(run.git_commit)) == ("abc", 500)
    version = read_version({"name": "m", "version": 2, "run_id": "", "creation_timestamp": 1795637147963})
    assert (version.version, version.run_id, version.created_at) == (
        "2",
        None,
        datetime.fromisoformat("2026-11-25T20:05:47.963Z"),
    )
