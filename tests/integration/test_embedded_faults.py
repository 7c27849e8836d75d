"""The embedded servers after kill -9, beside other programs, and where they cannot run."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from app.kit.embedded import Postgres, Valkey, start_valkey
from app.kit.embedded.directory import MAX_LOG_BYTES, NOBODY
from app.kit.embedded.processes import is_free, wait_for
from app.kit.errors import UsageError
from tests.integration.gateways import ROOT, Gateway, ask, has_ended, kill, ordinary_users, pid_of, read, write
from tests.servers import start_test_servers

SERVERS = ("postgres", "valkey")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory in which both servers have kept a word and were stopped."""
    original = tmp_path_factory.mktemp("original") / "data"
    with start_test_servers(original) as servers:
        write(servers.postgres.url, servers.valkey.url, "kept")
    return original


@pytest.fixture
def used(original: Path, data: Path) -> Path:
    """A copy of `original`, which is quicker to make than another one of its kind."""
    shutil.copytree(original, data)
    return data


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the user the servers run as, which has nothing to do with them."""
    process = subprocess.Popen(["sleep", "600"], user=NOBODY if ROOT else None, extra_groups=[] if ROOT else None)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def listener() -> Iterator[Callable[[int], None]]:
    """Another program that takes a port."""
    sockets: list[socket.socket] = []

    def take(port: int) -> None:
        # The threads of a server that was killed a moment ago may still be closing its sockets.
        assert wait_for(lambda: is_free(port) or None, 30.0)
        sockets.append(socket.create_server(("127.0.0.1", port)))

    yield take
    for taken in sockets:
        taken.close()


# After kill -9.


@pytest.mark.parametrize(
    ("killed", "uid"),
    [
        pytest.param(killed, uid, id=f"{' and '.join(killed)} as {uid}")
        for killed in (("gateway",), ("postgres",), ("valkey",), ("gateway", *SERVERS), (*SERVERS, "gateway"))
        for uid in (ordinary_users() if len(killed) == 3 else ordinary_users()[-1:])
    ],
)
def test_whatever_was_killed_the_next_start_goes_on_from_the_same_data(
    data: Path, killed: tuple[str, ...], uid: int
) -> None:
    os.chown(data.parent, uid, -1)
    with Gateway(data, uid) as first:
        write(first.postgres, first.valkey, "kept")
        for victim in killed:
            if victim == "gateway":
                first.kill()
            else:
                kill(pid_of(data, victim))
        with Gateway(data, uid) as second:
            assert (second.postgres, second.valkey) == (first.postgres, first.valkey)
            assert read(second.postgres, second.valkey) == ("kept", "kept")


def test_servers_that_outlived_their_gateway_are_adopted_and_stopped_in_the_end(data: Path) -> None:
    with Gateway(data) as first:
        pids = [pid_of(data, server) for server in SERVERS]
        first.kill()
    with start_test_servers(data) as servers:
        assert [pid_of(data, server) for server in SERVERS] == pids
        assert ask(servers.postgres.url, "SELECT 1") == 1
    assert [has_ended(pid) for pid in pids] == [True, True]


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_died_under_us_comes_back_on_the_same_port(data: Path, server: str) -> None:
    with start_test_servers(data) as servers:
        write(servers.postgres.url, servers.valkey.url, "kept")
        daemon = servers.postgres if server == "postgres" else servers.valkey
        before = daemon.access
        assert not daemon.ensure_running()
        kill(pid_of(data, server))
        assert daemon.ensure_running()
        assert daemon.access == before
        assert not daemon.ensure_running()
        assert read(servers.postgres.url, servers.valkey.url) == ("kept", "kept")


def test_the_last_children_of_a_killed_postgres_are_waited_for(data: Path) -> None:
    with start_test_servers(data) as servers:
        busy = subprocess.Popen(
            [
                servers.postgres._program("psql"),
                servers.postgres.url,
                "-c",
                "SELECT sum(i) FROM generate_series(1, 4e6) i",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        count = "SELECT nullif(count(*), 0) FROM pg_stat_activity WHERE query LIKE 'SELECT sum%'"
        assert wait_for(lambda: ask(servers.postgres.url, count), 10.0)
        kill(pid_of(data, "postgres"))
        assert servers.postgres.ensure_running()
        assert busy.poll() is not None, "two generations on one directory would destroy it"
        assert ask(servers.postgres.url, "SELECT 1") == 1


def test_a_server_that_another_process_moved_is_not_mistaken_for_a_dead_one(
    data: Path, listener: Callable[[int], None]
) -> None:
    first = start_valkey(data)
    kill(pid_of(data, "valkey"))
    listener(first.access.port)
    second = start_valkey(data)
    with pytest.raises(UsageError, match="started again on another port: start this process again too"):
        first.ensure_running()
    first.stop()
    assert second._answers()
    second.stop()


def test_a_server_that_died_does_not_come_back_on_another_port(data: Path, listener: Callable[[int], None]) -> None:
    with start_test_servers(data) as servers:
        kill(pid_of(data, "valkey"))
        listener(servers.valkey.access.port)
        with pytest.raises(UsageError, match="Address already in use"):
            servers.valkey.ensure_running()


class ImpatientPostgres(Postgres):
    hung_seconds: ClassVar[float] = 0.2
    stop_signals = ((signal.SIGINT, 0.2),)


class ImpatientValkey(Valkey):
    hung_seconds: ClassVar[float] = 0.2
    pid_seconds: ClassVar[float] = 0.2
    stop_signals = ((signal.SIGTERM, 0.2),)


@pytest.mark.parametrize("kind", [ImpatientPostgres, ImpatientValkey])
def test_a_server_that_hangs_is_killed_and_started_again(data: Path, kind: type[Postgres] | type[Valkey]) -> None:
    first = kind(data).start()
    hung = pid_of(data, kind.name)
    os.kill(hung, signal.SIGSTOP)
    second = kind(data).start()
    assert has_ended(hung)
    assert second.access == first.access
    first.leave()
    second.stop()


@pytest.mark.parametrize("kind", [ImpatientPostgres, ImpatientValkey])
def test_a_server_that_hangs_is_killed_in_the_end_by_stop(data: Path, kind: type[Postgres] | type[Valkey]) -> None:
    daemon = kind(data).start()
    hung = pid_of(data, kind.name)
    os.kill(hung, signal.SIGSTOP)
    daemon.stop()
    assert has_ended(hung)


@pytest.mark.parametrize("server", SERVERS)
def test_a_pid_file_whose_pid_is_somebody_elses_by_now_is_stale(
    used: Path, server: str, bystander: subprocess.Popen[bytes]
) -> None:
    file = used / ("postgres/postmaster.pid" if server == "postgres" else "valkey/valkey.pid")
    lines = [str(used / "postgres"), "1700000000", "1", "", "127.0.0.1", "  1234567         0", "ready   "]
    file.write_text("\n".join([str(bystander.pid), *(lines if server == "postgres" else []), ""]))
    with start_test_servers(used) as servers:
        assert read(servers.postgres.url, servers.valkey.url) == ("kept", "kept")
    assert bystander.poll() is None


def test_a_server_that_runs_out_of_our_reach_is_told_and_not_doubled(
    used: Path, bystander: subprocess.Popen[bytes]
) -> None:
    (used / "valkey" / "valkey.pid").write_text(f"{bystander.pid}\n")  # The pid it has in its own container.
    with (used / "valkey.alive").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="runs where this process cannot reach it, in another container"):
            ImpatientValkey(used).start()
    assert bystander.poll() is None
    start_valkey(used).stop()


def test_a_first_start_that_was_killed_half_way_is_begun_again(data: Path) -> None:
    (data / "postgres.new" / "base").mkdir(parents=True)
    (data / "postgres.new" / "PG_VERSION").write_text("18\n")
    with start_test_servers(data) as servers:
        assert ask(servers.postgres.url, "SELECT 1") == 1
    assert not (data / "postgres.new").exists()


@pytest.mark.parametrize("content", [None, "", "{", '{"port": 1}', "[]"])
def test_a_lost_or_broken_password_file_costs_no_data(used: Path, content: str | None) -> None:
    for server in SERVERS:
        file = used / f"{server}.json"
        file.unlink() if content is None else file.write_text(content)
    with start_test_servers(used) as servers:
        assert read(servers.postgres.url, servers.valkey.url) == ("kept", "kept")


@pytest.mark.parametrize("file", ["*.manifest", "*.base.rdb"])
@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_broken_part_of_the_append_only_file_does_not_keep_valkey_down(used: Path, file: str, content: bytes) -> None:
    (found,) = used.glob(f"valkey/appendonlydir/{file}")
    found.write_bytes(content)
    with start_test_servers(used) as servers:
        assert read(servers.postgres.url, servers.valkey.url)[0] == "kept"


@pytest.mark.parametrize(
    ("tail", "kept"),
    [(b"*3\r\n$3\r\nSET\r\n$4\r\nke", "kept"), (b"damaged\r\n*1\r\n$4\r\nPING\r\n", None)],
    ids=["cut off: mended", "damaged: set aside"],
)
def test_a_broken_append_only_file_does_not_keep_valkey_down(used: Path, tail: bytes, kept: str | None) -> None:
    (file,) = used.glob("valkey/appendonlydir/*.incr.aof")
    with file.open("ab") as log:
        log.write(tail)
    with start_test_servers(used) as servers:
        assert read(servers.postgres.url, servers.valkey.url) == ("kept", kept)
    assert (used / "valkey" / "appendonlydir.damaged").exists() == (kept is None)


# Beside other programs.


def test_a_port_that_was_taken_meanwhile_is_given_up(used: Path, listener: Callable[[int], None]) -> None:
    before = [daemon.directory.remembered() for daemon in (Postgres(used), Valkey(used))]
    for access in before:
        assert access is not None
        listener(access.port)
    with start_test_servers(used) as servers:
        after = [servers.postgres.access, servers.valkey.access]
        assert read(servers.postgres.url, servers.valkey.url) == ("kept", "kept")
    for old, new in zip(before, after, strict=True):
        assert old is not None
        assert old.port != new.port
        assert old.password == new.password


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_a_port_that_is_snatched_at_the_last_moment_is_given_up(
    used: Path, listener: Callable[[int], None], kind: type[Postgres] | type[Valkey]
) -> None:
    class Slow(kind):  # type: ignore[misc, valid-type]
        def _prepare(self, access: object) -> None:
            """Lose the race: the port was free when it was chosen, and is taken when the server comes."""
            super()._prepare(access)
            if self._process is None:
                listener(self.directory.remembered().port)

    daemon = Slow(used).start()
    assert daemon.access.port != 0
    assert daemon._answers()
    daemon.stop()


def test_two_directories_do_not_meet(used: Path, tmp_path: Path) -> None:
    shutil.copy(used / "postgres.json", tmp_path)
    with start_test_servers(used) as servers:
        (tmp_path / "other").mkdir()
        shutil.move(tmp_path / "postgres.json", tmp_path / "other")  # It remembers the very port that is in use.
        with start_test_servers(tmp_path / "other") as others:
            assert others.postgres.access.port != servers.postgres.access.port
            assert ask(others.postgres.url, "SELECT to_regclass('kept')") is None


def test_a_log_that_has_grown_too_big_is_emptied_at_a_start(used: Path) -> None:
    for server in SERVERS:
        (used / f"{server}.log").write_bytes(b"old line\n" * (MAX_LOG_BYTES // 9 + 1))
    with start_test_servers(used):
        sizes = [(used / f"{server}.log").stat().st_size for server in SERVERS]
    assert max(sizes) < 100_000
