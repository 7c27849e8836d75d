"""What the spool does at its edges: refused records, a full disk, credentials, errors, other machines, its own memory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.errors import Offline, Refused, SpoolFull
from mlflow_spool.records import API, Answer, Call
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.workload import ManualClock, post, spool_on, start, steps

pytestmark = pytest.mark.xdist_group("mlflow")


class Answering(FakeMlflow):
    """Answers some requests with a status of its own, and counts them."""

    def __init__(self, status: int, path: str) -> None:
        super().__init__()
        self.status, self.path, self.asked = status, path, 0

    def _answer(self, call: Call) -> Answer:
        if self.status and call.path.endswith(self.path):
            self.asked += 1
            return Answer(self.status, {"error_code": "SOME_ERROR", "message": "so it is"})
        return super()._answer(call)


def test_a_record_that_mlflow_refuses_is_set_aside_and_the_rest_goes_on(memory: Path) -> None:
    server, clock = FakeMlflow(), ManualClock()
    spool = spool_on(server, memory, clock)
    server.plan = always(Fault.REFUSE)
    run = start(spool)
    for value in ("1", "2"):
        post(spool, "runs/log-parameter", run_id=run, key="p", value=value)
    post(spool, "runs/update", run_id=run, status="FINISHED", end_time=2)
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    (aside,) = spool.journal.inventory.asides()
    assert (aside.record.call.body["value"], aside.problem.split(":")[0]) == ("2", "400 INVALID_PARAMETER_VALUE")
    (there,) = server.runs.values()
    assert (there["params"], there["info"]["status"]) == ({"p": "1"}, "FINISHED")


def test_what_needs_a_creation_that_was_refused_is_set_aside_with_it_and_says_so(memory: Path) -> None:
    server, clock = FakeMlflow(), ManualClock()
    spool = spool_on(server, memory, clock)
    server.plan = always(Fault.REFUSE)
    lost = str(post(spool, "runs/create", experiment_id="99", run_name="lost", start_time=1)["run"]["info"]["run_id"])
    post(spool, "runs/set-tag", run_id=lost, key="k", value="v")
    kept = start(spool, "kept")
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    assert [run["info"]["run_name"] for run in server.runs.values()] == ["kept"]
    assert [aside.record.kind.value for aside in spool.journal.inventory.asides()] == ["create run", "log"]
    assert lost in spool.journal.inventory.asides()[1].problem
    assert spool.journal.names.name_of(kept) in server.runs


def test_a_caller_who_waits_hears_of_a_refusal_as_without_the_spool(memory: Path) -> None:
    spool = spool_on(FakeMlflow(), memory, ManualClock())
    run = start(spool)
    post(spool, "runs/log-parameter", run_id=run, key="p", value="1")
    with pytest.raises(Refused, match="INVALID_PARAMETER_VALUE"):
        post(spool, "runs/log-parameter", run_id=run, key="p", value="2")
    assert spool.journal.inventory.counts().pending == 0
    assert spool.journal.inventory.asides() == []


@pytest.mark.parametrize("status", [401, 403], ids=str)
def test_a_token_that_is_no_good_keeps_everything_until_it_is_mended(memory: Path, status: int) -> None:
    server, clock = Answering(status, "runs/create"), ManualClock()
    spool = spool_on(server, memory, clock)
    run = start(spool)
    post(spool, "runs/set-tag", run_id=run, key="k", value="v")
    assert spool.finish(2 * 3600, patient=True) == 2
    server.status = 0
    assert spool.finish(600, patient=True) == 0
    (there,) = server.runs.values()
    assert there["tags"]["k"] == "v"


def test_what_a_good_login_may_not_do_is_set_aside_after_a_day_and_the_rest_goes_on(memory: Path) -> None:
    server, clock = Answering(403, "runs/set-tag"), ManualClock()
    spool = spool_on(server, memory, clock)
    run = start(spool)
    post(spool, "runs/set-tag", run_id=run, key="k", value="v")
    post(spool, "runs/update", run_id=run, status="FINISHED", end_time=2)
    assert spool.finish(20 * 3600, patient=True) == 2  # It may be mended yet.
    assert spool.finish(5 * 3600, patient=True) == 0
    assert [aside.problem for aside in spool.journal.inventory.asides()] == ["403 so it is"]
    assert server.runs[run]["info"]["status"] == "FINISHED"


def test_a_login_that_may_do_nothing_is_not_the_record_s_fault(memory: Path) -> None:
    server = Answering(403, "")
    spool = spool_on(server, memory, ManualClock())
    start(spool)
    assert spool.finish(30 * 3600, patient=True) == 1
    server.status = 0
    assert spool.finish(600, patient=True) == 0
    assert len(server.runs) == 1


def test_a_record_on_which_the_server_always_fails_is_set_aside_after_minutes_not_at_once(memory: Path) -> None:
    server, clock = Answering(500, "runs/set-tag"), ManualClock()
    spool = spool_on(server, memory, clock)
    run = start(spool)
    begun = clock.seconds
    post(spool, "runs/set-tag", run_id=run, key="k", value="v")
    post(spool, "runs/update", run_id=run, status="FINISHED", end_time=2)
    other = start(spool, "other")
    assert spool.finish(3600, patient=True) == 0
    assert clock.seconds - begun > 300
    assert server.asked >= 12
    assert [aside.problem for aside in spool.journal.inventory.asides()] == ["500 so it is"]
    assert server.runs[run]["info"]["status"] == "FINISHED"
    assert other in server.runs


def test_a_server_that_fails_on_everything_for_hours_sets_nothing_aside(memory: Path) -> None:
    server = Answering(0, "")
    spool = spool_on(server, memory, ManualClock())
    run = start(spool)
    server.status = 500  # Its database is away, for example.
    post(spool, "runs/set-tag", run_id=run, key="k", value="v")
    start(spool, "other")
    spool.finish(3 * 3600, patient=True)
    server.status = 0
    assert (spool.finish(600, patient=True), spool.journal.inventory.asides()) == (0, [])
    assert sorted(there["info"]["run_name"] for there in server.runs.values()) == ["other", "run"]


def test_a_full_journal_is_told_in_the_log_and_does_not_stop_training(
    memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock(), max_bytes=200_000)
    server.plan = always(Fault.REFUSE)
    run = start(spool)
    for number in range(300):
        post(spool, "runs/set-tag", run_id=run, key=f"k{number}", value="x" * 1000)
    assert "MLFLOW_SPOOL_MAX_BYTES is 200000" in caplog.text
    assert spool.journal.size() <= 200_000 + 50_000
    kept = spool.journal.inventory.counts().pending
    assert 50 < kept < 200
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    (there,) = server.runs.values()
    assert len(there["tags"]) == kept


def test_files_leave_room_for_metadata(memory: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock(), max_bytes=1_000_000)
    server.plan = always(Fault.REFUSE)
    run = start(spool)
    big = memory / "model.bin"
    big.write_bytes(b"x" * 300_000)
    for number in range(5):
        spool.put_file(f"spool-artifacts:/{run}/artifacts", f"{number}/model.bin", big)
    assert "does not keep the artifact 2/model.bin" in caplog.text
    post(spool, "runs/set-tag", run_id=run, key="k", value="v")
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    (there,) = server.runs.values()
    assert there["tags"]["k"] == "v"
    assert server.uploads == ["0/model.bin", "1/model.bin"]
    assert list((next(memory.glob("mlflow-*")) / "files").iterdir()) == []


def test_a_strict_spool_raises_when_it_is_full(memory: Path) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock(), max_bytes=1000, strict=True)
    with pytest.raises(SpoolFull, match="no room"):
        start(spool)


def test_reads_are_answered_from_the_journal_while_the_server_is_away_or_refused_at_once(memory: Path) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock())
    run = start(spool)
    post(spool, "runs/log-metric", run_id=run, key="m", value=0.5, timestamp=1, step=0)
    server.plan = always(Fault.HANG)
    post(spool, "runs/log-metric", run_id=run, key="m", value=0.7, timestamp=2, step=1)
    shown = spool.call("GET", f"{API}/runs/get", {"run_id": run})["run"]
    assert shown["info"]["run_id"] == run
    assert [(metric["key"], metric["value"]) for metric in shown["data"]["metrics"]] == [("m", 0.7)]
    history = spool.call("GET", f"{API}/metrics/get-history", {"run_id": run, "metric_key": "m"})["metrics"]
    assert [metric["value"] for metric in history] == [0.5, 0.7]
    with pytest.raises(Offline):
        spool.call("POST", f"{API}/runs/search", {"experiment_ids": ["0"]})
    with pytest.raises(Offline):
        spool.call("GET", f"{API}/runs/get", {"run_id": "0" * 32})


def test_a_local_id_resolves_from_any_machine_once_it_was_delivered(memory: Path) -> None:
    server, clock = FakeMlflow(), ManualClock()
    here = spool_on(server, memory / "here", clock)
    server.plan = always(Fault.REFUSE)
    local = start(here, "made away")
    server.plan = never
    assert here.finish(600, patient=True) == 0
    there = spool_on(server, memory / "there", clock)
    found = there.call("GET", f"{API}/runs/get", {"run_id": local})["run"]["info"]
    assert (found["run_name"], found["run_id"]) == ("made away", here.journal.names.name_of(local))
    with pytest.raises(Offline):
        there.call("GET", f"{API}/runs/get", {"run_id": "spool-" + "0" * 32})


def test_a_backlog_is_delivered_in_few_requests(memory: Path) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock())
    server.plan = always(Fault.REFUSE)
    run = start(spool)
    for step in range(400):
        post(spool, "runs/log-metric", run_id=run, key="m", value=float(step), timestamp=step, step=step)
    server.plan = never
    server.seen.clear()
    assert spool.finish(600, patient=True) == 0
    (there,) = server.runs.values()
    assert [step for step, _, _ in there["metrics"]["m"]] == list(range(400))
    assert len(server.seen) <= 6


def test_the_certificate_of_a_run_names_what_mlflow_does_not_show(memory: Path) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock())
    server.plan = always(Fault.REFUSE)
    run = start(spool)
    for step in range(3):
        post(spool, "runs/log-metric", run_id=run, key="m", value=step / 2, timestamp=step, step=step)
    post(spool, "runs/log-parameter", run_id=run, key="p", value="1")
    post(spool, "runs/set-tag", run_id=run, key="parent", value=run)
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    (whole,) = spool.certificates()
    assert (whole.spooled, whole.readable, whole.missing) == (7, 7, ())
    (there,) = server.runs.values()
    del there["metrics"]["m"][1]
    there["params"]["p"] = "2"
    (partial,) = spool.certificates()
    assert (partial.spooled, partial.readable) == (7, 5)
    assert partial.missing == ("param p", "metric m at step 1, time 1: 0.5")


def test_the_certificate_names_missing_files_models_versions_and_what_was_refused(memory: Path) -> None:
    server, clock = FakeMlflow(), ManualClock()
    spool = spool_on(server, memory, clock)
    server.plan = always(Fault.REFUSE)
    for step in steps(spool, memory):
        step()
    (token, _) = spool.journal.inventory.runs()
    for value in ("7", "8"):
        post(spool, "runs/log-parameter", run_id=token, key="p", value=value)
    server.plan = never
    assert spool.finish(3600, patient=True) == 0
    parent, child = spool.certificates()
    assert child.is_complete
    assert parent.missing == ("log, refused: 400 INVALID_PARAMETER_VALUE: invalid_parameter_value",)
    (model,) = server.models
    server.files = {path: content for path, content in server.files.items() if "notes" not in path}
    server.models[model]["info"]["status"] = "LOGGED_MODEL_PENDING"
    server.versions.clear()
    parent, _ = spool.certificates()
    named = {"version 1 of churn", f"model {model} status", "artifact notes/why.txt"}
    assert set(parent.missing[:-1]) == named
    assert (parent.spooled - parent.readable, parent.is_complete) == (4, False)


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.HANG, Fault.UNAVAILABLE], ids=lambda fault: str(fault.value))
def test_a_read_about_another_machine_s_run_says_whether_mlflow_is_away_or_does_not_know_it(
    memory: Path, fault: Fault
) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock())
    query = {"run_id": "spool-" + "b" * 32}
    with pytest.raises(Offline, match="neither this machine's journal nor MLflow knows"):
        spool.call("GET", f"{API}/runs/get", query)
    server.plan = always(fault)
    for _ in range(2):  # The call that finds it gone, and one that knows.
        with pytest.raises(Offline, match="MLflow at http://mlflow is away"):
            spool.call("GET", f"{API}/runs/get", query)


def test_a_marked_version_that_waits_is_read_by_its_alias(memory: Path) -> None:
    server = FakeMlflow()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, memory, ManualClock())
    post(spool, "registered-models/create", name="churn")
    version = post(spool, "model-versions/create", name="churn", source="s")["model_version"]["version"]
    for alias in ("champion", "gone"):
        post(spool, "registered-models/alias", name="churn", alias=alias, version=version)
    spool.call("DELETE", f"{API}/registered-models/alias", {"name": "churn", "alias": "gone"})
    shown = spool.call("GET", f"{API}/registered-models/get", {"name": "churn"})["registered_model"]
    assert shown["aliases"] == [{"alias": "champion", "version": version}]
    found = spool.call("GET", f"{API}/registered-models/alias", {"name": "churn", "alias": "champion"})
    assert found["model_version"]["version"] == version
    with pytest.raises(Offline):
        spool.call("GET", f"{API}/registered-models/alias", {"name": "churn", "alias": "gone"})


def test_a_reader_of_the_command_may_go_away(memory: Path) -> None:
    spool = spool_on(FakeMlflow(), memory, ManualClock())
    start(spool)
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "mlflow_spool.cli", "export", "--all"]
    own = os.environ | {"MLFLOW_SPOOL_DIR": str(memory)}
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, env=own, timeout=60, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


HEX = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        f"/mnt/spool-{HEX}/x.parquet",
        f"m-spool-{HEX}",
        f"spool-experiment-of-{HEX}",
        f"spool-artifacts:/{HEX}/artifacts/x",
        '{"version": "2000000007"}',
    ],
)
def test_a_text_of_a_user_that_looks_like_a_local_id_holds_up_nothing_and_stays_as_it_is(
    memory: Path, text: str
) -> None:
    server = FakeMlflow()
    spool = spool_on(server, memory, ManualClock())
    server.plan = always(Fault.REFUSE)
    run = start(spool, text)
    post(spool, "runs/log-parameter", run_id=run, key="data", value=text)
    post(spool, "runs/set-tag", run_id=run, key=f"of {text}", value=f"{text} in {run}")
    post(spool, "runs/log-batch", run_id=run, tags=[{"key": "batch", "value": text}])
    file = memory / "file.txt"
    file.write_text(text)
    spool.put_file(f"spool-artifacts:/{run}/artifacts", f"{text.strip('/')}/file.txt", file)
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    assert spool.journal.inventory.asides() == []
    ((real, there),) = server.runs.items()
    assert there["params"] == {"data": text}
    assert there["tags"][f"of {text}"] == f"{text} in {real}"
    assert there["tags"]["batch"] == text
    assert server.uploads == [f"{text.strip('/')}/file.txt"]
    assert spool.call("POST", f"{API}/runs/search", {"experiment_ids": ["0"], "filter": f"tags.x = '{text}'"})


def test_a_run_that_diverges_is_certified_and_read_as_it_was_logged(memory: Path) -> None:
    class Stores(FakeMlflow):
        """As MLflow's store, which has no infinite number."""

        def _metrics_get_history(self, body: dict[str, Any]) -> Answer:
            answer = super()._metrics_get_history(body)
            largest = {"Infinity": sys.float_info.max, "-Infinity": -sys.float_info.max}
            shown = [
                {**point, "value": largest.get(point["value"], point["value"])} for point in answer.body["metrics"]
            ]
            return Answer(200, {"metrics": shown})

    server = Stores()
    spool = spool_on(server, memory, ManualClock())
    server.plan = always(Fault.REFUSE)
    run = start(spool)
    values = ["NaN", "Infinity", "-Infinity", 0.5, "NaN"]
    for step, value in enumerate(values):
        post(spool, "runs/log-metric", run_id=run, key="loss", value=value, timestamp=step, step=step)
    for value in (-1.0, "NaN", "-Infinity"):  # At the same step and time: MLflow keeps NaN as 0, which is the largest.
        post(spool, "runs/log-metric", run_id=run, key="same", value=value, timestamp=1, step=0)
    history = spool.call("GET", f"{API}/metrics/get-history", {"run_id": run, "metric_key": "loss"})["metrics"]
    assert [point["value"] for point in history] == values
    shown = spool.call("GET", f"{API}/runs/get", {"run_id": run})["run"]["data"]["metrics"]
    assert {metric["key"]: metric["value"] for metric in shown} == {"loss": "NaN", "same": "NaN"}
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    (certificate,) = spool.certificates()
    assert certificate.missing == ()
