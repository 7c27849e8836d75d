"""A fork while other threads hold locks of ours: the child works, and the parent goes on."""

import os
import socket
import threading
from pathlib import Path

import pytest

from mlflow_spool import family, forks
from mlflow_spool.background import Background
from mlflow_spool.database import Database
from mlflow_spool.journal import Journal
from mlflow_spool.settings import MAX_BYTES
from mlflow_spool.spool import Spool
from mlflow_spool.wire import Way, Wire
from tests.spool.fake import FakeMlflow
from tests.spool.proxy import Fault, always, never
from tests.spool.unit.test_exit import a_run, log
from tests.spool.workload import ManualClock, spool_on

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
LIMIT = 20  # seconds, until a child counts as hanging


def forked(work: object) -> int:
    """The exit code of a child that does `work`; it is ended when it hangs."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    ended: list[int] = []
    waiter = threading.Thread(target=lambda: ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    waiter.start()
    waiter.join(LIMIT)
    if not ended:
        os.kill(pid, 9)
        waiter.join()
        return -1
    return ended[0]


class Holder:
    """A thread that holds a lock until it is told otherwise."""

    def __init__(self, lock: object) -> None:
        self._lock, self._taken, self._free = lock, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)
        self._thread.start()
        assert self._taken.wait(30)

    def _hold(self) -> None:
        with self._lock:  # type: ignore[attr-defined]
            self._taken.set()
            self._free.wait(60)

    def let_go(self) -> None:
        self._free.set()
        self._thread.join()


def locks_of(spool: Spool, background: Background) -> dict[str, object]:
    """Every lock that a thread of ours, or one that logs, may hold at the moment of a fork."""
    database: Database = spool.journal._database
    return {
        "the journal": database._lock,
        "long reads of the journal": database._scanning,
        "the breaker": spool._breaker._lock,
        "the start of the thread": background._guard,
        "the bell of the thread": vars(background._work)["_cond"],
        "the end of the thread": vars(background._stop)["_cond"],
    }


@pytest.mark.parametrize("name", ["the journal", "long reads of the journal", "the breaker", "the start of the thread"])
def test_a_child_works_whatever_lock_another_thread_held_at_the_fork(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "PATIENCE", 0.2)
    server, clock = FakeMlflow(), ManualClock()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, clock)
    run = a_run(spool, "before")
    background = Background(spool._drainer, spool._breaker, clock.as_clock(), 1.0)
    holder = Holder(locks_of(spool, background)[name])

    def work() -> None:
        log(spool, run, "in the child")
        background.wake()
        background.stop()

    try:
        assert forked(work) == 0
    finally:
        holder.let_go()
    log(spool, run, "after")
    server.plan = never
    assert spool.finish(600, patient=True) == 0
    (there,) = server.runs.values()
    assert sorted(there["metrics"]) == ["after", "before", "in the child"]


@pytest.mark.parametrize("name", ["the bell of the thread", "the end of the thread"])
def test_a_child_does_not_wait_for_the_parents_thread(tmp_path: Path, name: str) -> None:
    spool = spool_on(FakeMlflow(), tmp_path, ManualClock())
    background = Background(spool._drainer, spool._breaker, ManualClock().as_clock(), 1.0)
    holder = Holder(locks_of(spool, background)[name])
    try:
        assert forked(background.stop) == 0
    finally:
        holder.let_go()


def test_a_child_finds_what_its_own_children_left(tmp_path: Path) -> None:
    def child() -> None:
        assert not list(family.left(tmp_path, MAX_BYTES))
        assert forked(lambda: family.mark(Journal(tmp_path / "journal", MAX_BYTES))) == 0
        assert len(list(family.left(tmp_path, MAX_BYTES))) == 1

    assert forked(child) == 0


def test_the_end_of_a_child_does_not_end_what_the_parent_asks() -> None:
    listening, wire = socket.create_server(("127.0.0.1", 0)), Wire()
    answers: list[int] = []

    def ask() -> None:
        way = Way(f"http://127.0.0.1:{listening.getsockname()[1]}")
        answers.append(wire.request(way, "GET", "/", 30).status)

    asking = threading.Thread(target=ask)
    asking.start()
    with listening, listening.accept()[0] as connection:
        connection.recv(10_000)
        assert forked(wire.abandon) == 0
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        asking.join()
    assert answers == [200]


def test_no_connection_of_sqlite_crosses_a_fork_and_a_fork_waits_for_a_write_that_is_under_way(tmp_path: Path) -> None:
    server = FakeMlflow()
    server.plan = always(Fault.REFUSE)
    spool = spool_on(server, tmp_path, ManualClock())
    run = a_run(spool)
    database: Database = spool.journal._database
    written = threading.Event()

    def write() -> None:
        with database.transaction() as cursor:
            cursor.execute("INSERT INTO facts VALUES ('a', 'b')")
            written.set()
            threading.Event().wait(0.5)

    writer = threading.Thread(target=write)
    writer.start()
    assert written.wait(30)

    def work() -> None:
        assert database._connection is None
        for number in range(20):
            log(spool, run, f"child {number}")

    assert forked(work) == 0
    writer.join()
    for number in range(20):
        log(spool, run, f"parent {number}")
    assert spool.journal.inventory.counts().pending == 41
