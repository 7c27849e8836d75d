"""What is handed over to the gateway while other threads and processes deliver, or hand over, the same records."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.locks import locked
from mlflow_spool.records import Answer, Call, imported
from mlflow_spool.settings import Settings
from mlflow_spool.spool import Spool, lock_file, system_clock
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always
from tests.spool.unit.test_exit import Taker, a_run
from tests.spool.workload import ManualClock, post, spool_on


class Waited(ManualClock):
    """A clock that calls `then` when somebody has waited `times` times."""

    def __init__(self, times: int, then: Callable[[], object]) -> None:
        super().__init__()
        self.times, self._then = times, then

    def _pass(self, seconds: float) -> None:
        super()._pass(seconds)
        self.times -= 1
        if not self.times:
            self._then()


class Crossing(Taker):
    """A gateway that gets a request in the moment in which `meanwhile` happens."""

    def __init__(self, meanwhile: Callable[[list[Any]], object], *first: Answer | Exception) -> None:
        super().__init__(*first)
        self._meanwhile = meanwhile

    def take(self, body: dict[str, Any], timeout: float) -> Answer:
        self._meanwhile(body["records"])
        return super().take(body, timeout)


def test_the_gateway_gets_the_real_experiment_and_files_of_a_run_that_others_made(tmp_path: Path) -> None:
    server, taker, other = FakeMlflow(), Taker(), "0123456789abcdef" * 2
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, ManualClock(), taker=taker)
    unknown, root = f"spool-experiment-of-{other}", f"mlflow-artifacts:/7/{other}/artifacts"
    spool.knowledge.adopt(other, unknown)
    post(spool, "runs/create", experiment_id=unknown, run_name="child", start_time=1)
    post(spool, "registered-models/create", name="churn")
    post(spool, "model-versions/create", name="churn", source=f"spool-artifacts:/{other}/artifacts/m", run_id=other)
    spool.journal.names.learn([(unknown, "7"), (f"root:{other}", root)])  # MLflow was back for a moment.
    assert spool.finish(5.0) == 0
    run, _, version = (record["body"] for record in taker.offered[-1])
    assert (run["experiment_id"], version["source"]) == ("7", f"{root}/m")
    assert all("spool-experiment" not in token and other not in token for token in taker.names)


@pytest.mark.parametrize("held", [0, 1])
def test_what_is_under_delivery_while_the_rest_is_handed_over_follows_once_it_is_free(
    tmp_path: Path, held: int
) -> None:
    with ExitStack() as locks:
        server, taker, clock = FakeMlflow(), Taker(), Waited(3, locks.close)
        server.plan = always(Fault.REFUSE)
        spool = spool_on(server, tmp_path, clock, taker=taker)
        runs = [a_run(spool, "f1"), a_run(spool, "f2")]
        (tmp_path / "file").write_text("x")
        spool.put_file(f"mlflow-artifacts:/0/{runs[1 - held]}/artifacts", "file", tmp_path / "file")
        assert locks.enter_context(locked(lock_file(spool.journal.folder), f"run:{runs[held]}"))
        assert spool.finish(5.0) == 1  # The file: the gateway gets only its record.
    first, second = [{record["stream"] for record in records} for records in taker.offered]
    assert (first, second) == ({f"run:{runs[1 - held]}", f"artifacts:{runs[1 - held]}"}, {f"run:{runs[held]}"})
    assert spool.journal.inventory.counts().handed == 4


def test_what_is_under_delivery_for_longer_than_the_budget_keeps_neither_the_process_nor_the_rest(
    tmp_path: Path,
) -> None:
    server, taker, clock = FakeMlflow(), Taker(), ManualClock()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, clock, taker=taker)
    runs = [a_run(spool, "f1"), a_run(spool, "f2")]
    began = clock.seconds
    with locked(lock_file(spool.journal.folder), f"run:{runs[0]}"):
        assert spool.finish(5.0) == 2
    assert clock.seconds - began <= 10.5
    assert (taker.posts, spool.journal.inventory.counts().handed) == (1, 2)


def test_what_the_gateway_has_is_the_gateways_though_another_process_did_not_reach_it(tmp_path: Path) -> None:
    server, clock = FakeMlflow(), ManualClock()
    server.plan = always(Fault.REFUSE)
    # While `first` hands over, `heir` offers the same records again. Before it has its answer, `first` hears of none.
    taker = Crossing(lambda records: first.journal.custody.keep([imported(record) for record in records]))
    heir = spool_on(server, tmp_path, clock, taker=taker)
    first = spool_on(server, tmp_path, clock, taker=Crossing(lambda _: heir.finish(0.0), NotSent("refused")))
    a_run(first, "f1")
    assert first.finish(0.2) == 0
    assert (len(taker.taken), first.journal.inventory.counts().handed) == (2, 2)


class Silent(FakeMlflow):
    """Does not answer a request of our thread until that is abandoned."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.abandoned = threading.Event(), threading.Event()

    def send(self, call: Call, timeout: float) -> Answer:
        if threading.current_thread().name != "mlflow-spool" or call.path == "/health":
            return super().send(call, timeout)
        self.asked.set()
        self.abandoned.wait(60)
        raise NoAnswer("no answer")

    def abandon(self) -> None:
        self.abandoned.set()


def test_a_request_of_the_thread_that_gets_no_answer_keeps_no_run_from_the_gateway(tmp_path: Path) -> None:
    server, taker = Silent(), Taker()
    server.plan = always(Fault.REFUSE)
    clock = system_clock()
    spool = Spool("http://mlflow", server, Settings(tmp_path, spare=0), clock, taker=taker)
    a_run(spool, "f1")
    server.plan = lambda _number, line: Fault.NONE if line.endswith("/health") else Fault.REFUSE
    assert server.asked.wait(30)
    assert spool.finish(1.0) == 0
    assert (len(taker.taken), spool.journal.inventory.counts().handed) == (2, 2)
