"""The embedded servers where they cannot run: one sentence says what to do, and nothing is left running."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from app.kit.embedded import Postgres, Valkey, start_postgres, start_valkey
from app.kit.embedded.processes import wait_for
from app.kit.errors import UsageError
from tests.integration.gateways import PROGRAM, REPOSITORY, Gateway, has_ended, ordinary_users, pid_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_cluster_of_another_major_version_is_left_alone(data: Path) -> None:
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(UsageError, match=r"made by PostgreSQL 17 and this gateway brings 18: .*pg_dump"):
        start_postgres(data)
    assert [path.name for path in (data / "postgres").iterdir()] == ["PG_VERSION"]


def test_files_that_are_not_postgres_own_are_left_alone(data: Path) -> None:
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds files that are not PostgreSQL's"):
        start_postgres(data)
    assert (data / "postgres" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize("start", [start_postgres, start_valkey])
@pytest.mark.parametrize("place", ["file", "file/data", "/proc/gateway"])
def test_a_place_where_no_directory_can_be_is_told(
    tmp_path: Path, place: str, start: Callable[[Path], Postgres | Valkey]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="GATEWAY_DATA_DIR"):
        start(tmp_path / place)


def test_a_directory_of_another_user_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "postgres").symlink_to("/usr")  # It is root's, and an ordinary user is not.
    uid = ordinary_users()[-1]
    os.chown(tmp_path, uid, -1)
    os.chown(tmp_path / "data", uid, -1)
    refusal = Gateway(tmp_path / "data", uid).begin().refusal()
    assert re.search(r"belongs to the user with id 0: run the gateway as that user, or set GATEWAY_DATA_DIR", refusal)


class FailingValkey(Valkey):
    """A server that says something and ends."""

    words: ClassVar[str] = ""

    def _command(self) -> list[str]:
        return ["/bin/sh", "-c", f"echo first; echo '{self.words}'; exit 1", self._marker()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("FATAL: could not write: No space left on device", r"^No space is left on the disk of /\S+: free some"),
        (
            "FATAL: out of luck",
            r"^The embedded Valkey cannot run in .* or set GATEWAY_REDIS_URL .*\n  first\n  FATAL: out",
        ),
        ("", r"\n  first"),
    ],
    ids=["disk full", "its last words", "few words"],
)
def test_a_server_that_ends_at_once_is_told_with_its_last_words(data: Path, words: str, message: str) -> None:
    kind = type("Failing", (FailingValkey,), {"words": words})
    with pytest.raises(UsageError, match=message):
        kind(data).start()


def test_what_has_not_been_started_has_no_url(data: Path) -> None:
    with pytest.raises(UsageError, match="has not been started"):
        _ = Postgres(data).url


def test_a_failed_start_holds_nothing_back(data: Path) -> None:
    with pytest.raises(UsageError):
        FailingValkey(data).start()
    valkey = start_valkey(data)
    pid = pid_of(data, "valkey")
    valkey.stop()
    assert has_ended(pid), "it was the last one, whatever failed before"


@pytest.mark.parametrize("file", ["postgres.lock", "postgres.new", "postgres", "postgres.alive", "valkey.alive"])
def test_ctrl_c_during_a_first_start_leaves_nothing_running(data: Path, file: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(data)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert wait_for(lambda: (data / file).exists() or None, 20.0)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    running = subprocess.run(["ps", "-e", "-ww", "-o", "command="], capture_output=True, text=True, check=True).stdout
    assert not [line for line in running.splitlines() if str(data) in line]


def test_servers_whose_directory_was_removed_are_ended_by_stop(data: Path) -> None:
    daemons = [Postgres(data, durable=False).start(), Valkey(data).start()]
    pids = [pid_of(data, daemon.name) for daemon in daemons]
    shutil.rmtree(data)
    for daemon in daemons:
        daemon.stop()
    assert [has_ended(pid) for pid in pids] == [True, True]
