"""DAG runs, health and import errors are read from recorded bodies, and nothing else is taken for one of them."""

import json
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.kit.airflow.answers import BrokenFile, DagRun, Health, read_broken_files, read_health, read_run, run_is_ours

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RECORDED = {
    pair["case"]: pair["response"]
    for pair in json.loads((Path(__file__).parents[1] / "fixtures" / "airflow_3.3.2_rest.json").read_text())
}


def test_a_recorded_run_is_read_with_its_times_in_utc() -> None:
    run = read_run(RECORDED["get_run"]["body"])
    assert run == DagRun(
        dag_id="retrain_pipeline",
        dag_run_id="gw__fraud__01HX",
        state="success",
        conf={"reason": "accuracy", "model_name": "fraud"},
        queued_at=datetime(2026, 11, 23, 9, 38, 15, 394728, tzinfo=UTC),
        started_at=datetime(2026, 11, 23, 9, 38, 15, 812027, tzinfo=UTC),
        ended_at=datetime(2026, 11, 23, 9, 38, 19, 997531, tzinfo=UTC),
    )
    with pytest.raises(FrozenInstanceError):
        run.state = "failed"  # type: ignore[misc]


RUN = {"dag_id": "d", "dag_run_id": "r", "state": "queued"}


@pytest.mark.parametrize(
    ("change", "queued_at"),
    [
        pytest.param(
            {"queued_at": "2026-11-23T12:00:00+02:00"}, datetime(2026, 11, 23, 10, 0, tzinfo=UTC), id="offset"
        ),
        pytest.param({"queued_at": "2026-11-23T12:00:00"}, NOW, id="without a zone it is UTC"),
        pytest.param({"queued_at": "yesterday"}, None, id="no time"),
        pytest.param({"queued_at": 7}, None, id="a number"),
        pytest.param({"queued_at": "0001-01-01T00:00:00+14:00"}, None, id="before the first year"),
        pytest.param({"conf": None}, None, id="no conf"),
        pytest.param({"conf": "x"}, None, id="conf is text"),
    ],
)
def test_an_odd_time_or_conf_does_not_hide_the_state_of_a_run(
    change: dict[str, Any], queued_at: datetime | None
) -> None:
    assert read_run(RUN | change) == DagRun("d", "r", "queued", {}, queued_at)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(RUN | {"state": "restarting"}, id="unknown state"),
        pytest.param(RUN | {"state": None}, id="no state"),
        pytest.param(RUN | {"state": ["queued"]}, id="state is a list"),
        pytest.param(RUN | {"dag_run_id": 1}, id="id is a number"),
        pytest.param(RUN | {"dag_id": None}, id="no DAG"),
        pytest.param({}, id="nothing"),
        pytest.param("queued", id="text"),
        pytest.param(None, id="null"),
        pytest.param([RUN], id="a list"),
    ],
)
def test_what_is_no_run_is_not_taken_for_one(body: Any) -> None:
    assert read_run(body) is None


@pytest.mark.parametrize(
    ("conf", "ours"),
    [
        pytest.param({"gateway": {"trigger_id": "t1"}}, True, id="ours"),
        pytest.param({"gateway": {"trigger_id": "t2"}}, False, id="another trigger's"),
        pytest.param({"gateway": {"trigger_id": None}}, False, id="null"),
        pytest.param({"gateway": {}}, False, id="no trigger"),
        pytest.param({"gateway": "t1"}, False, id="text"),
        pytest.param({"gateway": ["t1"]}, False, id="a list"),
        pytest.param({"trigger_id": "t1"}, False, id="somebody else's key"),
        pytest.param({}, False, id="empty"),
    ],
)
def test_a_run_is_ours_only_if_it_carries_our_triggers_id(conf: dict[str, Any], ours: bool) -> None:
    assert run_is_ours(DagRun("d", "r", "queued", conf), "t1") is ours


def test_recorded_health_is_read_and_null_means_that_a_component_does_not_run() -> None:
    assert read_health(RECORDED["health"]["body"]) == Health("healthy", "healthy", "healthy", None)


@pytest.mark.parametrize(
    ("health", "can_run"),
    [
        (Health("healthy", "healthy", "healthy", None), True),
        (Health("healthy", "healthy", "unhealthy", "unhealthy"), True),
        (Health("healthy", "unhealthy", "healthy", "healthy"), False),
        (Health("healthy", None, "healthy", "healthy"), False),
        (Health("unhealthy", "healthy", "healthy", "healthy"), False),
    ],
)
def test_a_run_is_started_only_with_a_database_and_a_scheduler(health: Health, can_run: bool) -> None:
    assert health.can_run is can_run


@pytest.mark.parametrize("body", [None, [], "ok", {}, {"status": "healthy"}, {"metadatabase": "healthy"}], ids=repr)
def test_what_is_no_health_is_not_taken_for_one(body: Any) -> None:
    assert read_health(body) is None
    assert read_health({"metadatabase": {"status": 1}, "scheduler": "up"}) == Health(None, None, None, None)


TRACE = """Traceback (most recent call last):
  File "/opt/airflow/dags/pipelines.py", line 2, in <module>
    churn_retrain = build("churn-retrain")
ModuleNotFoundError: No module named 'pandas'
"""


@pytest.mark.parametrize(
    ("file", "dag_id", "concerned"),
    [
        pytest.param("retrain_model.py", "retrain_model", True, id="the file's name"),
        pytest.param("teams/ml/retrain_model.py", "retrain_model", True, id="in a folder"),
        pytest.param("teams/retrain_model/dag.py", "retrain_model", True, id="the folder's name"),
        pytest.param("retrain_model_v2.py", "retrain_model", False, id="a longer name"),
        pytest.param("my_retrain_model.py", "retrain_model", False, id="a longer name before"),
        pytest.param("x.py", "churn-retrain", True, id="in the trace"),
        pytest.param("x.py", "churn", False, id="half a word of the trace"),
        pytest.param("x.py", "", False, id="no id"),
        pytest.param("axb.py", "a.b", False, id="a dot is a dot"),
    ],
)
def test_a_broken_file_concerns_the_dag_whose_id_it_mentions(file: str, dag_id: str, concerned: bool) -> None:
    assert BrokenFile(file, TRACE).concerns(dag_id) is concerned


@pytest.mark.parametrize(
    ("trace", "summary"),
    [
        (TRACE, "x.py: Traceback (most recent call last): ... ModuleNotFoundError: No module named 'pandas'"),
        ("only line\n", "x.py: only line"),
        ("", "x.py: "),
    ],
    ids=["long", "one line", "none"],
)
def test_a_broken_file_is_summed_up_by_the_first_and_last_line(trace: str, summary: str) -> None:
    assert BrokenFile("x.py", trace).summary == summary.strip()


@pytest.mark.parametrize(
    ("body", "files"),
    [
        ({"import_errors": [{"filename": "x.py", "stack_trace": "t"}]}, [BrokenFile("x.py", "t")]),
        ({"import_errors": [{"filename": None, "stack_trace": None}, 7]}, [BrokenFile("unknown file", "")]),
        ({"import_errors": []}, []),
        ({"import_errors": {}}, None),
        ({}, None),
        ("<html>", None),
    ],
    ids=["one", "nulls", "none", "an object", "nothing", "a page"],
)
def test_import_errors_are_read_or_known_to_be_something_else(body: Any, files: list[BrokenFile] | None) -> None:
    assert read_broken_files(body) == files
