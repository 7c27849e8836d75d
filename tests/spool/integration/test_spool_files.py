"""Files at the edges of the spool: one that a proxy refuses, and one of another machine while MLflow fails."""

import contextlib
from pathlib import Path

import pytest

from mlflow_spool.errors import Offline
from mlflow_spool.records import API, Answer
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.workload import ManualClock, post, spool_on, start

pytestmark = pytest.mark.xdist_group("mlflow")


@pytest.mark.parametrize(("status", "seconds"), [(413, 60), (404, 60), (500, 3600)])
@pytest.mark.parametrize("refused", ["first.bin", "second.bin"])
def test_a_file_that_is_refused_is_set_aside_alone_and_holds_up_no_other(
    memory: Path, status: int, seconds: int, refused: str
) -> None:
    class Refusing(FakeMlflow):
        def upload(self, root: str, path: str, file: Path, timeout: float) -> Answer:
            if path == refused and self.plan is never:
                return Answer(status, {"message": "<html>nginx</html>"})
            return super().upload(root, path, file, timeout)

    server, clock = Refusing(), ManualClock()
    spool = spool_on(server, memory, clock)
    server.plan = always(Fault.REFUSE)
    run = start(spool)
    names = ["first.bin", "second.bin", "third.txt"]
    for name in names:
        (memory / name).write_text(name)
        spool.put_file(f"spool-artifacts:/{run}/artifacts", name, memory / name)
    post(spool, "registered-models/create", name="churn")
    post(spool, "model-versions/create", name="churn", source=f"spool-artifacts:/{run}/artifacts/m", run_id=run)
    server.plan = never
    spool.finish(10, patient=True)
    assert server.uploads == [name for name in names if name != refused]  # At once, whatever becomes of the other.
    assert spool.finish(seconds, patient=True) == 0
    assert [aside.record.call.body["path"] for aside in spool.journal.inventory.asides()] == [refused]
    assert len(server.versions) == 1


@pytest.mark.parametrize(("failures", "arrives"), [(1, True), (30, False)], ids=["one failure", "an outage"])
def test_a_file_of_another_machine_is_read_over_one_failure_and_not_in_an_outage(
    memory: Path, failures: int, arrives: bool
) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock())
    run = start(spool)
    root = spool.call("GET", f"{API}/runs/get", {"run_id": run})["run"]["info"]["artifact_uri"]
    server.files[f"{root}/model.bin"] = b"weights"
    faults = iter([Fault.UNAVAILABLE] * failures)
    server.plan = lambda number, line: next(faults, Fault.NONE)
    with contextlib.nullcontext() if arrives else pytest.raises(Offline):
        spool.fetch_file(root, "model.bin", memory / "model.bin")
    assert (memory / "model.bin").exists() is arrives
