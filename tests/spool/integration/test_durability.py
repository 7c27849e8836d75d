"""What a call waits for: the disk, when only the journal knows of it; nothing but the server, when that has it."""

from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.breaker import Breaker
from mlflow_spool.drain import Drainer
from mlflow_spool.files import Files
from mlflow_spool.journal import Journal
from mlflow_spool.records import API, Answer, Call, draft
from mlflow_spool.spool import Spool
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.workload import ManualClock, spool_on

FAULTS = [fault for fault in Fault if fault is not Fault.NONE]


class Watched(FakeMlflow):
    """Notes, at each request, how many records the journal holds that are not settled."""

    spool: Spool | None = None

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[int] = []

    def send(self, call: Call, timeout: float) -> Answer:
        if self.spool is not None and call.path != "/health":
            self.pending.append(self.spool.journal.inventory.counts().pending)
        return super().send(call, timeout)


@pytest.fixture
def server() -> Watched:
    return Watched()


@pytest.fixture
def spool(server: Watched, memory: Path) -> Spool:
    server.spool = spool_on(server, memory, ManualClock())
    return server.spool


def start(spool: Spool) -> str:
    body = {"experiment_id": "0", "run_name": "run", "start_time": 1}
    return str(spool.call("POST", f"{API}/runs/create", body)["run"]["info"]["run_id"])


def measure(spool: Spool, run: str, step: int) -> None:
    body: dict[str, Any] = {"run_id": run, "key": "m", "value": float(step), "timestamp": step, "step": step}
    spool.call("POST", f"{API}/runs/log-metric", body)


def test_a_call_that_the_server_answers_is_in_the_journal_before_it_leaves_and_waits_for_no_disk(
    spool: Spool, server: Watched
) -> None:
    run = start(spool)
    before = spool.journal.syncs
    for step in range(20):
        measure(spool, run, step)
    assert spool.journal.syncs == before
    assert server.pending == [1] * 21
    assert spool.journal.inventory.counts().pending == 0


def test_what_would_do_harm_if_it_were_sent_twice_is_on_the_disk_before_it_leaves(
    spool: Spool, server: Watched
) -> None:
    before = spool.journal.syncs
    start(spool)
    assert spool.journal.syncs == before + 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.value))
def test_a_call_that_returns_without_the_servers_word_is_on_the_disk(
    spool: Spool, server: Watched, fault: Fault
) -> None:
    run = start(spool)
    server.plan = always(fault)
    for step in range(5):
        before = spool.journal.syncs
        measure(spool, run, step)
        assert spool.journal.syncs == before + 1
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    (there,) = server.runs.values()
    assert [step for step, _, _ in there["metrics"]["m"]] == list(range(5))


def test_what_the_background_delivered_first_is_not_sent_again(server: Watched, memory: Path) -> None:
    clock, journal = ManualClock(), Journal(memory, 10**9)
    drainer = Drainer(
        journal,
        Files(memory / "files"),
        server,
        Breaker(clock.as_clock().monotonic),
        memory / "lock",
        clock.as_clock(),
        1,
    )
    record = draft(Call("POST", f"{API}/registered-models/create", {"name": "churn"}), 1)
    assert record is not None
    kept = journal.append(record)
    assert drainer.step(lambda: 1.0)
    assert drainer.now_or_never(kept, 1.0) is None
    assert (len(server.seen), list(server.registered)) == (1, ["churn"])


def test_a_call_behind_others_that_wait_is_on_the_disk(spool: Spool, server: Watched, memory: Path) -> None:
    server.plan = always(Fault.REFUSE)
    run = start(spool)
    server.plan = never  # Nobody has delivered yet, and another process does not know that it was away.
    other = spool_on(server, memory, ManualClock())
    before = other.journal.syncs
    measure(other, run, 1)
    assert other.journal.syncs == before + 1
