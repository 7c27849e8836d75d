"""What waits in the journal can be read by its name, also while MLflow is well: training goes on from its own creation."""

from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.errors import NotKnown, Refused
from mlflow_spool.records import API, Answer, Call
from mlflow_spool.spool import Spool
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always
from tests.spool.workload import ManualClock, spool_on

Write = tuple[str, dict[str, Any]]
MODEL: Write = ("registered-models/create", {"name": "churn"})
VERSION: Write = ("model-versions/create", {"name": "churn", "source": "s3://models/churn"})
ALIAS: Write = ("registered-models/alias", {"name": "churn", "alias": "champion", "version": "1"})
EXPERIMENT: Write = ("experiments/create", {"name": "churn"})
MODEL_READ = ("registered-models/get", {"name": "churn"})
EXPERIMENT_READ = ("experiments/get-by-name", {"experiment_name": "churn"})
ALIAS_READ = ("registered-models/alias", {"name": "churn", "alias": "champion"})


class Trouble(FakeMlflow):
    """Well, but it answers 500 to the writes of one path."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def send(self, call: Call, timeout: float) -> Answer:
        if call.method == "POST" and call.path == f"{API}/{self.path}":
            return Answer(500, {"error_code": "INTERNAL_ERROR", "message": "no"})
        return super().send(call, timeout)


@pytest.mark.parametrize(
    ("writes", "read", "expected"),
    [
        pytest.param([MODEL], MODEL_READ, {"name": "churn"}, id="registered model"),
        pytest.param([EXPERIMENT], EXPERIMENT_READ, {"name": "churn"}, id="experiment"),
        pytest.param([MODEL, VERSION, ALIAS], ALIAS_READ, {"version": "1", "aliases": ["champion"]}, id="alias"),
    ],
)
def test_a_creation_that_waits_can_be_read_by_name(
    tmp_path: Path, writes: list[Write], read: Write, expected: dict[str, Any]
) -> None:
    server = Trouble(writes[-1][0])
    spool = spool_on(server, tmp_path, ManualClock())
    for path, body in writes:
        spool.call("POST", f"{API}/{path}", body)
    [shown] = spool.call("GET", f"{API}/{read[0]}", read[1]).values()
    assert {name: shown[name] for name in expected} == expected


@pytest.mark.parametrize("read", [MODEL_READ, EXPERIMENT_READ, ALIAS_READ], ids=lambda read: read[0])
def test_what_nobody_has_created_is_not_found(tmp_path: Path, read: Write) -> None:
    spool = spool_on(FakeMlflow(), tmp_path, ManualClock())
    with pytest.raises(Refused) as refused:
        spool.call("GET", f"{API}/{read[0]}", read[1])
    assert refused.value.status == 404


Change = tuple[str, str, dict[str, Any]]
TAG = {"key": "checked", "value": "yes"}
WRONG = {"key": "wrong", "value": "x"}


def away(folder: Path) -> tuple[Spool, dict[str, str]]:
    """A spool whose MLflow is away, with an experiment and a version that wait; and their local ids."""
    server = FakeMlflow()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, folder, ManualClock())
    experiment = spool.call("POST", f"{API}/experiments/create", EXPERIMENT[1])["experiment_id"]
    spool.call("POST", f"{API}/registered-models/create", MODEL[1])
    version = spool.call("POST", f"{API}/model-versions/create", {**VERSION[1], "description": "old"})["model_version"]
    return spool, {"experiment_id": experiment, "name": "churn", "version": version["version"]}


def called(spool: Spool, ids: dict[str, str], method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    fields = ("experiment_id",) if path.startswith("experiments") else ("name", "version")
    fields = ("name",) if path.startswith("registered-models") and "alias" not in path else fields
    return spool.call(method, f"{API}/{path}", {**{field: ids[field] for field in fields}, **body})


@pytest.mark.parametrize(
    ("changes", "read", "expected"),
    [
        pytest.param(
            [
                ("POST", "model-versions/set-tag", WRONG),
                ("POST", "model-versions/set-tag", TAG),
                ("DELETE", "model-versions/delete-tag", {"key": "wrong"}),
                ("PATCH", "model-versions/update", {"description": "new"}),
                ("POST", "model-versions/transition-stage", {"stage": "staging"}),
                ("POST", "registered-models/alias", {"alias": "prod"}),
                ("POST", "registered-models/alias", {"alias": "gone"}),
                ("DELETE", "registered-models/alias", {"alias": "gone"}),
            ],
            "model-versions/get",
            {"description": "new", "current_stage": "Staging", "aliases": ["prod"]},
            id="version",
        ),
        pytest.param(
            [
                ("POST", "registered-models/set-tag", WRONG),
                ("POST", "registered-models/set-tag", TAG),
                ("DELETE", "registered-models/delete-tag", {"key": "wrong"}),
                ("PATCH", "registered-models/update", {"description": "new"}),
            ],
            "registered-models/get",
            {"name": "churn", "description": "new"},
            id="registered model",
        ),
        pytest.param(
            [
                ("POST", "experiments/set-experiment-tag", WRONG),
                ("POST", "experiments/set-experiment-tag", TAG),
                ("POST", "experiments/delete-experiment-tag", {"key": "wrong"}),
                ("POST", "experiments/update", {"new_name": "other"}),
                ("POST", "experiments/delete", {}),
            ],
            "experiments/get",
            {"name": "other", "lifecycle_stage": "deleted"},
            id="experiment",
        ),
    ],
)
def test_a_read_shows_every_change_of_what_waits(
    tmp_path: Path, changes: list[Change], read: str, expected: dict[str, Any]
) -> None:
    spool, ids = away(tmp_path)
    for method, path, body in changes:
        called(spool, ids, method, path, body)
    [shown] = called(spool, ids, "GET", read, {}).values()
    assert {name: shown[name] for name in expected} == expected
    assert [tag for tag in shown["tags"] if tag["key"] in ("checked", "wrong")] == [TAG]


def test_an_experiment_with_a_new_name_is_found_by_that_and_not_by_the_old_one(tmp_path: Path) -> None:
    spool, ids = away(tmp_path)
    called(spool, ids, "POST", "experiments/update", {"new_name": "other"})
    found = spool.call("GET", f"{API}/experiments/get-by-name", {"experiment_name": "other"})
    assert found["experiment"]["experiment_id"] == ids["experiment_id"]
    with pytest.raises(NotKnown):
        spool.call("GET", f"{API}/experiments/get-by-name", {"experiment_name": "churn"})


@pytest.mark.parametrize(
    ("method", "path", "body", "shown"),
    [
        (
            "PATCH",
            "model-versions/update",
            {"description": "new"},
            {"description": "new", "source": "s3://models/churn"},
        ),
        ("POST", "model-versions/transition-stage", {"stage": "Production"}, {"current_stage": "Production"}),
        ("PATCH", "registered-models/update", {"description": "new"}, {"name": "churn", "description": "new"}),
    ],
)
def test_a_change_that_waits_is_answered_with_what_it_changed(
    tmp_path: Path, method: str, path: str, body: dict[str, Any], shown: dict[str, Any]
) -> None:
    spool, ids = away(tmp_path)
    [answer] = called(spool, ids, method, path, body).values()
    assert {name: answer[name] for name in shown} == shown


def test_the_files_of_a_version_that_waits_are_those_that_it_is_made_of(tmp_path: Path) -> None:
    spool, ids = away(tmp_path)
    assert called(spool, ids, "GET", "model-versions/get-download-uri", {}) == {"artifact_uri": "s3://models/churn"}
