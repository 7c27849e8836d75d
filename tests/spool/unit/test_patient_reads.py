"""Reads while MLflow fails for a moment, is slow, or is busy with what was written here: as its client, within a bound."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.errors import NoAnswer, NotKnown, Offline
from mlflow_spool.records import API, Answer, Call
from mlflow_spool.spool import Spool
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.workload import ManualClock, post, spool_on, start

Read = Callable[[Spool], object]
BOUND = 5.0  # seconds that a read may cost while MLflow is away, with the default of one second for a probe
SEARCH = Call("POST", f"{API}/runs/search", {"experiment_ids": ["0"]})


class Slow(FakeMlflow):
    """MLflow that needs `seconds` for a request whose line ends with `slow`; it goes on when its client has left."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self.seconds, self.slow = 0.0, ""
        self._late: list[tuple[float, Call]] = []

    def send(self, call: Call, timeout: float) -> Answer:
        self._finish()
        seconds = self.seconds if f"{call.method} {call.path}".endswith(self.slow) else 0.0
        if seconds > timeout:
            self._late.append((self._clock.seconds + seconds, call))
            self._clock.seconds += timeout
            raise NoAnswer("no answer in time")
        self._clock.seconds += seconds
        return super().send(call, timeout)

    def _finish(self) -> None:
        """What clients did not wait for."""
        due = [call for at, call in self._late if at <= self._clock.seconds]
        self._late = [(at, call) for at, call in self._late if at > self._clock.seconds]
        for call in due:
            super().send(call, 0.0)


def searched(spool: Spool) -> int:
    return len(spool.call(SEARCH.method, SEARCH.path, SEARCH.body)["runs"])


def text(spool: Spool) -> str:
    target = spool.journal.folder / "target"
    spool.fetch_file("mlflow-artifacts:/1/a/artifacts", "x.txt", target)
    return target.read_text()


def aliased(spool: Spool) -> str:
    found = spool.call("GET", f"{API}/registered-models/alias", {"name": "churn", "alias": "prod"})
    return str(found["model_version"]["version"])


READS: list[tuple[str, Read, object]] = [
    ("search", searched, 1),
    ("file", text, "content"),
    ("alias", aliased, "1"),
    (
        "experiment",
        lambda spool: spool.call("GET", f"{API}/experiments/search", {})["experiments"][0]["name"],
        "Default",
    ),
]


def filled(server: FakeMlflow) -> None:
    """What others have put there."""
    for path, body in [
        ("runs/create", {"run_name": "r"}),
        ("registered-models/create", {"name": "churn"}),
        ("model-versions/create", {"name": "churn", "source": "s3://x"}),
        ("model-versions/create", {"name": "churn", "source": "s3://y"}),
        ("registered-models/alias", {"name": "churn", "alias": "prod", "version": "1"}),
    ]:
        FakeMlflow.send(server, Call("POST", f"{API}/{path}", body), 1.0)
    server.files["mlflow-artifacts:/1/a/artifacts/x.txt"] = b"content"
    server.seen.clear()


@pytest.mark.parametrize(("name", "read", "expected"), READS, ids=[name for name, _, _ in READS])
@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.REFUSE, Fault.HANG, Fault.NOT_FOUND])
@pytest.mark.parametrize("times", [1, 2])
def test_a_read_goes_on_after_a_moment_without_mlflow(
    tmp_path: Path, name: str, read: Read, expected: object, fault: Fault, times: int
) -> None:
    server = FakeMlflow()
    filled(server)
    server.plan = lambda number, line: fault if 0 <= number < times else Fault.NONE
    assert read(spool_on(server, tmp_path, ManualClock())) == expected


@pytest.mark.parametrize("pulse", [False, True], ids=["", "with a pulse that a proxy has"])
@pytest.mark.parametrize(
    "fault",
    [Fault.UNAVAILABLE, Fault.REFUSE, Fault.HANG, Fault.NOT_FOUND, Fault.LOGIN_PAGE],
    ids=lambda fault: fault.value,
)
def test_an_outage_costs_the_first_read_the_bound_and_the_others_nothing(
    tmp_path: Path, fault: Fault, pulse: bool
) -> None:
    server, clock = FakeMlflow(), ManualClock()
    server.plan = lambda number, line: Fault.NONE if pulse and line.endswith("/health") else fault
    spool = spool_on(server, tmp_path, clock)
    for bound in (BOUND, 0.1, 0.1):
        began = clock.seconds
        with pytest.raises(Offline):
            searched(spool)
        assert clock.seconds - began < bound


@pytest.mark.parametrize("seconds", [0.6, 1.5, 2.0])
def test_a_slow_server_is_not_gone(tmp_path: Path, seconds: float) -> None:
    clock = ManualClock()
    server = Slow(clock)
    filled(server)
    server.seconds = seconds
    spool = spool_on(server, tmp_path, clock)
    assert [searched(spool), aliased(spool), searched(spool)] == [1, "1", 1]


@pytest.mark.parametrize(
    ("path", "body", "read", "expected"),
    [
        ("registered-models/alias", {"name": "churn", "alias": "prod", "version": "2"}, aliased, "2"),
        ("runs/create", {"experiment_id": "0", "run_name": "own", "start_time": 1}, searched, 2),
    ],
    ids=["alias", "search"],
)
def test_a_read_shows_what_was_written_here_though_the_server_is_busy(
    tmp_path: Path, path: str, body: dict[str, Any], read: Read, expected: object
) -> None:
    clock = ManualClock()
    server = Slow(clock)
    filled(server)
    server.seconds, server.slow = 2.0, path
    spool = spool_on(server, tmp_path, clock)
    post(spool, path, **body)
    assert read(spool) == expected


def test_what_waits_for_long_is_an_error_for_a_read_of_it_and_no_search_waits_twice(tmp_path: Path) -> None:
    clock = ManualClock()
    server = Slow(clock)
    filled(server)
    spool = spool_on(server, tmp_path, clock, request_timeout=5.0)
    post(spool, "runs/set-tag", run_id="spool-" + "0" * 32, key="k", value="v")
    for bound in (6.0, 0.1):
        began = clock.seconds
        assert searched(spool) == 1
        assert clock.seconds - began < bound


def test_the_name_of_an_experiment_that_nobody_knows_is_told_apart_from_one_that_is_not_there(tmp_path: Path) -> None:
    server = FakeMlflow()
    spool = spool_on(server, tmp_path, ManualClock())
    server.plan = always(Fault.REFUSE)
    with pytest.raises(NotKnown):
        spool.call("GET", f"{API}/experiments/get-by-name", {"experiment_name": "churn"})
    server.plan = never
    start(spool)
