"""What waits in the journal can be read by its name, also while MLflow is well: training goes on from its own creation."""

from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.errors import Refused
from mlflow_spool.records import API, Answer, Call
from tests.spool.fake import FakeMlflow
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
