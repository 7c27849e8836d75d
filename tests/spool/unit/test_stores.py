"""Stores before which MLflow does not stand: no client holds up its caller, and a store that is silent is left alone."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_spool.errors import NoAnswer
from mlflow_spool.stores import IDLE, PAUSE, Stores

ROOT = "s3://models/1/run/artifacts"
#: In place of MLflow's clients: what it does is in the name of the bucket, and its number in each answer.
CLIENT = """
import json, os, sys, time
sys.stdin.readline()
if os.environ.get("SLOW_START"): time.sleep(60)
print("{}", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    bucket = asked["root"].split("/")[2]
    status = int(bucket) if bucket.isdigit() else 200
    if bucket == "hangs": time.sleep(60)
    if bucket == "dies": sys.exit(1)
    if bucket == "grows":
        for number in range(4):
            time.sleep(0.8)
            open(asked["file"] + ".part", "a").write("x")
    body = {"message": str(os.getpid()), "asked": asked}
    print(json.dumps({"status": status, "silent": bucket == "silent", "body": body}), flush=True)
"""


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def stores(now: list[float]) -> Iterator[Stores]:
    asked = Stores("http://mlflow", [sys.executable, "-S", "-c", CLIENT], lambda: now[0])
    yield asked
    for process in asked._ours():
        process.end()


def client(stores: Stores, root: str = ROOT) -> str:
    """The number of the process that answers for a store."""
    return str(stores.files(root, "").body["message"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x")
    return tmp_path / "file"


def test_one_process_answers_question_after_question(stores: Stores) -> None:
    assert client(stores) == client(stores)


@pytest.mark.parametrize(
    ("bucket", "limit", "reason"),
    [("hangs", 1.0, "in time"), ("dies", 30.0, "s3://dies"), ("silent", 30.0, "s3://silent")],
)
def test_a_store_that_does_not_answer_is_left_alone_and_no_other(
    stores: Stores, now: list[float], file: Path, bucket: str, limit: float, reason: str
) -> None:
    root = f"s3://{bucket}/1"
    client(stores)
    with pytest.raises(NoAnswer, match=reason):
        stores.put(root, "a", file, limit)
    began = time.monotonic()
    with pytest.raises(NoAnswer, match="did not answer before"):
        stores.put(root, "a", file, 30.0)
    assert time.monotonic() - began < 15
    assert not stores.is_ready(root)
    assert stores.put(ROOT, "a", file, 30.0).status == 200
    now[0] += PAUSE
    assert stores.is_ready(root)


def test_nobody_waits_for_a_store_that_no_process_is_ready_to_ask(
    stores: Stores, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not stores.is_ready(ROOT)
    monkeypatch.setenv("SLOW_START", "1")
    began = time.monotonic()
    with pytest.raises(NoAnswer, match="not started yet"):
        stores.put(ROOT, "a", file, 0.2)
    assert (time.monotonic() - began < 10, stores.is_ready(ROOT)) == (True, False)
    (process,) = stores._ours()
    with pytest.raises(NoAnswer, match="not started yet"):  # It goes on with its start, for whoever asks next.
        stores.put(ROOT, "a", file, 0.2)
    assert stores._ours() == [process]


def test_a_large_file_goes_only_to_a_store_that_answers(stores: Stores, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as made:
        made.truncate(100_000_000)  # At the slowest rate it would have fifty seconds.
    began = time.monotonic()
    with pytest.raises(NoAnswer, match="in time"):
        stores.put("s3://hangs/1", "large", large, 51.0)
    assert time.monotonic() - began < 20
    assert stores.put(ROOT, "large", large, 51.0).status == 200


def test_a_download_is_waited_for_as_long_as_it_keeps_coming(tmp_path: Path) -> None:
    stores = Stores("http://mlflow", [sys.executable, "-S", "-c", CLIENT], patience=2.0)
    assert stores.fetch("s3://grows/1", "file", tmp_path / "file").status == 200
    with pytest.raises(NoAnswer, match="in time"):
        stores.fetch("s3://hangs/1", "file", tmp_path / "other")
    for process in stores._ours():
        process.end()


@pytest.mark.parametrize(("status", "same"), [(401, False), (403, False), (404, True)])
def test_after_a_refused_login_a_new_process_reads_the_logins_again(stores: Stores, status: int, same: bool) -> None:
    first = client(stores)
    assert stores.files(f"s3://{status}/1", "").status == status
    assert (client(stores) == first) is same


def test_threads_ask_side_by_side_and_two_processes_are_kept(stores: Stores) -> None:
    several = [threading.Thread(target=client, args=(stores,)) for _ in range(6)]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert 1 <= len(stores._ours()) <= IDLE


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_fork_has_processes_of_its_own(stores: Stores) -> None:
    first = client(stores)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        own = b"failed"
        try:
            own = client(stores).encode()
        finally:
            os.write(writing, own)
            for process in stores._ours():
                process.end()
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert theirs.isdigit()
    assert theirs != first == client(stores)


def test_a_process_that_somebody_has_killed_is_replaced(stores: Stores) -> None:
    first = client(stores)
    os.kill(int(first), signal.SIGKILL)
    os.waitid(os.P_PID, int(first), os.WEXITED | os.WNOWAIT)
    assert client(stores) != first


def test_whoever_waits_for_a_store_hears_that_its_question_is_abandoned(stores: Stores) -> None:
    client(stores)
    heard: list[str] = []

    def ask() -> None:
        try:
            stores.files("s3://hangs/1", "")
        except NoAnswer as error:
            heard.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    end = time.monotonic() + 30
    while not stores._busy and time.monotonic() < end:
        time.sleep(0.01)
    stores.abandon()
    asking.join(60)
    assert len(heard) == 1
    assert "in time" not in heard[0]
