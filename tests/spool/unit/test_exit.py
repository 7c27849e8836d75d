"""The end of a process whose MLflow does not take everything, and of records that others would have to create first."""

import threading
from pathlib import Path
from typing import Any

import pytest

from mlflow_spool.background import Background
from mlflow_spool.errors import NoAnswer, NotSent
from mlflow_spool.locks import locked
from mlflow_spool.records import API, Answer, Call, imported
from mlflow_spool.replay import Done, replay
from mlflow_spool.spool import Spool, lock_file
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.workload import ManualClock, spool_on

ERROR = {"message": "no", "error_code": "X"}


class Answering(FakeMlflow):
    """Well by its pulse; `answers` are what the next writes get before it works."""

    def __init__(self, *answers: Answer, always: Answer | None = None) -> None:
        super().__init__()
        self.answers = list(answers)
        self.ever = always

    def send(self, call: Call, timeout: float) -> Answer:
        if call.path != "/health" and "search" not in call.path and (self.answers or self.ever):
            return self.answers.pop(0) if self.answers else self.ever or Answer(200, {})
        return super().send(call, timeout)


class Slow(FakeMlflow):
    """Takes its time for each request, of the clock that the spool reads."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = seconds

    def send(self, call: Call, timeout: float) -> Answer:
        self._clock.seconds += min(self._seconds, timeout)
        if self._seconds > timeout:
            raise NoAnswer("no answer in time")
        return super().send(call, timeout)


class SetClock(ManualClock):
    """A clock that people set, beside a counter that they cannot."""

    offset = 0.0  # hours

    def _now(self) -> int:
        return super()._now() + int(self.offset * 3_600_000)


class Taker:
    """A gateway that answers `first` before it works, and never takes a record that names `poison` in a request."""

    def __init__(self, *first: Answer | Exception, poison: tuple[str, int] = ("", 0)) -> None:
        self.first = list(first)
        self.poison, self.status = poison
        self.taken: list[str] = []
        self.offered: list[list[dict[str, Any]]] = []
        self.posts = 0
        self.names: dict[str, str] = {}

    def take(self, body: dict[str, Any], timeout: float) -> Answer:
        self.posts += 1
        self.offered.append(body["records"])
        self.names = body["names"]
        if self.first:
            answer = self.first.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if self.poison and self.poison in str(body["records"]):
            return Answer(self.status, {"detail": "not this one"})
        self.taken += [record["key"] for record in body["records"]]
        return Answer(202, {})


def a_run(spool: Spool, *keys: str) -> str:
    run = spool.call("POST", f"{API}/runs/create", {"experiment_id": "0", "start_time": 1})
    local = str(run["run"]["info"]["run_id"])
    for key in keys:
        log(spool, local, key)
    return local


def log(spool: Spool, run: str, key: str) -> None:
    spool.call("POST", f"{API}/runs/log-metric", {"run_id": run, "key": key, "value": 1.0, "timestamp": 1, "step": 0})


@pytest.mark.parametrize("status", [401, 500, 503])
def test_what_mlflow_does_not_take_at_the_end_is_handed_over(tmp_path: Path, status: int) -> None:
    taker = Taker()
    spool = spool_on(Answering(always=Answer(status, ERROR)), tmp_path, ManualClock(), taker=taker)
    a_run(spool, "f1")
    assert spool.finish(5.0) == 0
    assert len(taker.taken) == 2
    assert spool.journal.inventory.counts().handed == 2


def test_the_budget_of_a_process_ends_within_the_backlog_of_one_run_and_the_rest_is_handed_over(tmp_path: Path) -> None:
    clock, taker = ManualClock(), Taker()
    server = Slow(clock, 0.0)
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, clock, taker=taker)
    run = a_run(spool)
    for value in range(40):  # One value of a tag a request: they cannot be joined.
        spool.call("POST", f"{API}/runs/set-tag", {"run_id": run, "key": "at", "value": str(value)})
    server.plan, server._seconds = never, 1.0
    clock.seconds += 3600
    began = clock.seconds
    assert spool.finish(5.0) == 0
    assert clock.seconds - began <= 5.5
    delivered = spool.journal.inventory.counts().done
    assert 1 < delivered < 6
    assert len(taker.taken) == 41 - delivered


def test_the_thread_of_a_process_that_ends_leaves_a_long_backlog_to_the_end(tmp_path: Path) -> None:
    server, clock = FakeMlflow(), ManualClock()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, clock)
    run = a_run(spool)
    for value in range(40):
        spool.call("POST", f"{API}/runs/set-tag", {"run_id": run, "key": "at", "value": str(value)})
    server.plan = never
    clock.seconds += 3600
    background = Background(spool._drainer, spool._breaker, clock.as_clock(), 30.0)

    def plan(_number: int, line: str) -> Fault:
        if "set-tag" in line:
            background.stop()
        return Fault.NONE

    server.plan = plan
    background._run()
    assert spool.journal.inventory.counts().pending == 39


@pytest.mark.parametrize(
    "trouble", [NotSent("refused"), NoAnswer("lost"), Answer(429, {}, 2.0), Answer(503, {}), Answer(500, {})]
)
def test_a_gateway_that_is_away_for_a_moment_is_asked_again(tmp_path: Path, trouble: Answer | Exception) -> None:
    server, taker = FakeMlflow(), Taker(trouble)
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, ManualClock(), taker=taker)
    a_run(spool, "f1")
    assert spool.finish(5.0) == 0
    assert (taker.posts, spool.journal.inventory.counts().handed) == (2, 2)


@pytest.mark.parametrize("trouble", [NotSent("refused"), Answer(503, {}), Answer(429, {})])
def test_the_budget_of_a_process_ends_also_while_the_gateway_is_away(
    tmp_path: Path, trouble: Answer | Exception
) -> None:
    clock, taker = ManualClock(), Taker(*[trouble] * 1000)
    spool = spool_on(Answering(always=Answer(500, ERROR)), tmp_path, clock, taker=taker)
    a_run(spool)
    began = clock.seconds
    spool.finish(5.0)
    assert clock.seconds - began <= 10.5
    assert 1 < taker.posts < 10


@pytest.mark.parametrize("status", [413, 422])
def test_one_record_that_the_gateway_refuses_is_set_aside_and_the_rest_goes(tmp_path: Path, status: int) -> None:
    server, taker = FakeMlflow(), Taker(poison=("poison", status))
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, ManualClock(), taker=taker)
    a_run(spool, "f1", "poison", "f2", "f3")
    spool.finish(5.0)
    counts = spool.journal.inventory.counts()
    assert (counts.handed, counts.aside, counts.pending, counts.handing) == (4, 1, 0, 0)
    assert f"{status} not this one" in spool.journal.inventory.asides()[0].problem


def test_what_the_token_may_not_hand_over_stays_with_what_follows_it(tmp_path: Path) -> None:
    server, taker = FakeMlflow(), Taker(poison=("poison", 403))
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, ManualClock(), taker=taker)
    a_run(spool, "f1", "poison", "f2")
    a_run(spool, "f3")
    spool.finish(5.0)
    counts = spool.journal.inventory.counts()
    assert (counts.handed, counts.aside, counts.pending, counts.handing) == (4, 0, 2, 0)


@pytest.mark.parametrize("gateway", ["gone", "away", "refuses"])
def test_what_a_dead_process_was_handing_over_is_delivered_from_here_once_its_lease_is_over(
    tmp_path: Path, gateway: str
) -> None:
    server, clock = FakeMlflow(), ManualClock()
    server.plan = always(Fault.REFUSE)
    died = spool_on(server, tmp_path, clock, taker=Taker(*[NoAnswer("lost")] * 100))
    a_run(died, "f1")
    died.finish(5.0)
    assert died.journal.inventory.counts().handing == 2
    server.plan = never
    answer: dict[str, list[Answer | Exception]] = {"away": [NotSent("no")] * 1000, "refuses": [Answer(403, {})] * 1000}
    taker = Taker(*answer[gateway]) if gateway in answer else None
    heir = spool_on(server, tmp_path, clock, taker=taker)
    clock.seconds += 3000  # The other may still be asking.
    heir.finish(60, patient=True)
    assert (server.runs, heir.journal.inventory.counts().handing) == ({}, 2)
    clock.seconds += 600
    assert heir.finish(60, patient=True) == 0
    assert heir.journal.inventory.counts().done == 2
    assert [list(run["metrics"]) for run in server.runs.values()] == [["f1"]]


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_set_neither_ends_nor_lengthens_a_lease(tmp_path: Path, hours: int) -> None:
    server, clock = FakeMlflow(), SetClock()
    server.plan = always(Fault.REFUSE)
    died = spool_on(server, tmp_path, clock, taker=Taker(*[NoAnswer("lost")] * 100))
    a_run(died, "f1")
    died.finish(5.0)
    server.plan = never
    clock.offset = hours
    heir = spool_on(server, tmp_path, clock)
    heir.finish(60, patient=True)
    assert (server.runs, heir.journal.inventory.counts().handing) == ({}, 2)
    clock.seconds += 3600
    assert heir.finish(60, patient=True) == 0
    assert heir.journal.inventory.counts().done == 2


def test_what_the_gateway_had_all_the_same_is_not_created_again_by_either(tmp_path: Path) -> None:
    server, clock, taker = FakeMlflow(), ManualClock(), Taker(*[NoAnswer("lost")] * 100)
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, clock, taker=taker)
    a_run(spool)
    spool.finish(5.0)
    server.plan = never
    (offered,) = taker.offered[0]
    theirs = imported(offered)
    assert isinstance(replay(theirs, server, lambda _token: None, 1.0), Done)
    assert any("runs/search" in line for line in server.seen)  # The gateway looks first too.
    clock.seconds += 7200
    spool_on(server, tmp_path, clock).finish(60, patient=True)
    assert len(server.runs) == 1


def test_trouble_of_mlflows_database_is_no_refusal(tmp_path: Path) -> None:
    busy = Answer(400, {"error_code": "BAD_REQUEST", "message": "QueuePool limit of size 5 overflow 10 reached"})
    server = Answering(busy, busy, busy)
    spool = spool_on(server, tmp_path, ManualClock())
    a_run(spool, "f1")
    assert spool.finish(600, patient=True) == 0
    assert spool.journal.inventory.asides() == []
    assert [list(run["metrics"]) for run in server.runs.values()] == [["f1"]]


def test_a_call_does_not_wait_while_the_backlog_of_its_run_is_delivered(tmp_path: Path) -> None:
    server, clock = FakeMlflow(), ManualClock()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, clock, probe_timeout=30.0)
    run = a_run(spool, "f1")
    server.plan = never
    clock.seconds += 3600
    assert spool._drainer.probe(1.0)
    stream = spool.journal.pending_streams()[0]
    done = threading.Event()

    def train() -> None:
        log(spool, run, "f2")
        done.set()

    with locked(lock_file(spool.journal.folder), stream) as ours:
        assert ours
        training = threading.Thread(target=train)
        training.start()
        assert done.wait(10)
    training.join()


def test_a_run_of_another_machine_is_given_up_only_when_mlflow_says_that_it_is_not_there(tmp_path: Path) -> None:
    server, clock = FakeMlflow(), ManualClock()
    spool = spool_on(server, tmp_path, clock)
    server.plan = always(Fault.REFUSE)
    log(spool, "spool-" + "a" * 32, "f1")
    clock.seconds += 2 * 86_400
    server.plan = lambda _number, line: Fault.HANG if "search" in line else Fault.NONE
    spool.finish(30)
    assert spool.journal.inventory.counts().aside == 0
    server.plan = never
    spool.finish(600, patient=True)
    assert spool.journal.inventory.counts().aside == 1


@pytest.mark.parametrize("status", [404, 403, 302, 503])
def test_delivery_starts_again_behind_a_proxy_that_routes_only_the_api(tmp_path: Path, status: int) -> None:
    class Behind(FakeMlflow):
        def send(self, call: Call, timeout: float) -> Answer:
            if call.path == "/health" and self.plan is never:
                return Answer(status, {"message": "no such route"})
            return super().send(call, timeout)

    server, clock = Behind(), ManualClock()
    spool = spool_on(server, tmp_path, clock)
    server.plan = always(Fault.REFUSE)
    a_run(spool, "f1")
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    assert len(server.runs) == 1


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("heir", [False, True], ids=["same process", "next process"])
def test_a_clock_that_is_set_changes_neither_when_a_creation_is_searched_for_nor_what_is_there(
    tmp_path: Path, hours: int, heir: bool
) -> None:
    server, clock = FakeMlflow(), SetClock()
    spool = spool_on(server, tmp_path, clock)
    server.plan = lambda _number, line: Fault.COMMIT_AND_DROP if line.endswith("runs/create") else Fault.NONE
    a_run(spool, "f1")
    clock.offset = hours
    server.plan = never
    began = clock.seconds
    spool = spool_on(server, tmp_path, clock) if heir else spool
    assert spool.finish(60, patient=True) == 0
    assert clock.seconds - began < 12
    if hours < 0 or not heir:
        assert clock.seconds - began >= 4.5
    assert len(server.runs) == 1
