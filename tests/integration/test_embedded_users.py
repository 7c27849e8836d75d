"""Who runs the embedded servers (an ordinary user, a user of root's for them, one without a name), and who may read them."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.kit.embedded import start_postgres, start_valkey, unprivileged
from app.kit.embedded.directory import NOBODY, OWN_USERS
from tests.integration.gateways import NAMELESS, ROOT, Gateway, ask, ordinary_users, pid_of, read, write
from tests.servers import start_test_servers


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory whose parents everybody may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("uid", ordinary_users())
def test_it_starts_and_starts_again_as_this_user(uid: int, open_path: Path) -> None:
    os.chown(open_path, uid, -1)
    with Gateway(open_path / "data", uid) as first:
        write(first.postgres, first.valkey, "kept")
        process = Path(f"/proc/{pid_of(open_path / 'data', 'postgres')}")
        owner = process.stat().st_uid
        # With a directory of nobody's below it, root still finds a user of its own.
        assert owner in OWN_USERS if ROOT and uid == 0 else owner == uid
    with Gateway(open_path / "data", uid) as second:
        assert (second.postgres, second.valkey) == (first.postgres, first.valkey)
        assert read(second.postgres, second.valkey) == ("kept", "kept")


@pytest.mark.parametrize("name", ["blank '$HOME; # ümläut", 'back\\slash "quoted"'])
def test_the_data_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    with start_test_servers(tmp_path / name / "data") as servers:
        write(servers.postgres.url, servers.valkey.url, "kept")
        assert read(servers.postgres.url, servers.valkey.url) == ("kept", "kept")
        (tmp_path / "link").symlink_to(tmp_path / name)
        with start_test_servers(tmp_path / "link" / "data") as same:
            assert same.postgres.url == servers.postgres.url
            servers.stop()
        assert not (tmp_path / name / "data" / "postgres" / "postmaster.pid").exists()


@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["below an open directory", "below a closed one"])
@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_a_server_has_no_more_rights_than_it_needs(open_path: Path, server: str, mode: int) -> None:
    open_path.chmod(mode)
    daemon = (
        start_postgres(open_path / "data", durable=False) if server == "postgres" else start_valkey(open_path / "d")
    )
    try:
        pid = pid_of(daemon.directory.data_dir, server)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    finally:
        daemon.stop()
    [owner] = set(map(int, status["Uid"].split()))
    assert owner in OWN_USERS if ROOT else owner == os.geteuid()
    assert {int(text, 16) for name, text in status.items() if name.startswith("Cap") and name != "CapBnd"} == {0}
    assert status["NoNewPrivs"] == ("1" if ROOT else status["NoNewPrivs"])


@pytest.mark.parametrize(
    ("owner", "runs_as"),
    # 1 is "daemon" on every Linux.
    [(1, 1), (NAMELESS, NAMELESS), (0, None)] if ROOT else [(os.geteuid(), os.geteuid())],
)
def test_root_runs_the_servers_as_the_owner_of_the_directory(open_path: Path, owner: int, runs_as: int | None) -> None:
    data = open_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, owner, -1)
    with start_test_servers(data):
        assert {path.stat().st_uid for path in (data, *data.glob("*.*"))} == {owner}
        [user] = {path.stat().st_uid for path in (*data.glob("postgres/**/*"), *data.glob("valkey/*"))}
        assert user in OWN_USERS if runs_as is None else user == runs_as


def test_a_user_without_a_name_and_a_home_runs_both_servers(open_path: Path) -> None:
    data, uid = open_path / "a b:c" / "data", NAMELESS if ROOT else os.geteuid()
    data.parent.mkdir()
    os.chown(data.parent, uid, -1)
    gateway = Gateway(data, uid=uid, environment={"HOME": "/nonexistent", "TMPDIR": "/proc"})
    with gateway:
        write(gateway.postgres, gateway.valkey, "kept")
    data.rename(moved := open_path / "moved")
    (moved / "postgres.json").unlink()  # A forgotten password is set again by the single-user PostgreSQL.
    os.chown(open_path, uid, -1)
    with Gateway(moved, uid=uid) as again:
        assert read(again.postgres, again.valkey) == ("kept", "kept")
        assert ask(again.postgres, "SELECT count(*) FROM pg_roles WHERE rolsuper") == 1
    assert {path.stat().st_uid for path in moved.glob("**/*")} == {uid}
    assert not [path.name for path in moved.iterdir() if path.suffix == ".so" or path.name.startswith("tmp")]


def test_a_directory_that_a_group_may_write_to_is_used(tmp_path: Path) -> None:
    """Kubernetes gives the whole volume to a group at every mount (fsGroup)."""
    data = tmp_path / "data"
    for word in ("first", "second"):
        with start_test_servers(data) as servers:
            write(servers.postgres.url, servers.valkey.url, word)
        for path in (data, *data.rglob("*")):
            path.chmod(path.stat().st_mode | (0o2070 if path.is_dir() else 0o060))
    with start_test_servers(data) as servers:
        assert read(servers.postgres.url, servers.valkey.url) == ("first,second", "second")
        modes = {path.name: path.stat().st_mode & 0o777 for path in (data / "postgres", *data.glob("*.json"))}
    assert modes == {"postgres": 0o700, "postgres.json": 0o600, "valkey.json": 0o600}, "no password for the group"


def test_a_copy_made_by_root_is_used_like_the_original(tmp_path: Path) -> None:
    with start_test_servers(tmp_path / "data") as servers:
        write(servers.postgres.url, servers.valkey.url, "kept")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "data", copy)  # All of it is ours now, which is root's when we are root.
    with start_test_servers(copy) as servers:
        assert read(servers.postgres.url, servers.valkey.url) == ("kept", "kept")
        owners = {path.stat().st_uid for path in (*copy.glob("postgres/*"), *copy.glob("valkey/**/*"))}
    [owner] = owners
    assert owner in OWN_USERS if ROOT else owner == os.geteuid()


as_root = pytest.mark.skipif(not ROOT, reason="only root runs the servers as another user")
REACH = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_APPEND):
        try:
            os.close(os.open(path, flags))
            print(path)
        except OSError:
            pass
"""


@pytest.mark.parametrize("uid", ordinary_users()[:1])
def test_no_other_user_reads_or_writes_what_the_servers_keep(open_path: Path, uid: int) -> None:
    """Nor does a server open what is root's, below a directory that only root may enter."""
    assert uid == os.geteuid()
    home = open_path / "home"
    home.mkdir(mode=0o700)
    (home / "secret").write_text("root's")
    (home / "secret").chmod(0o600)
    data = home / "data"
    with start_test_servers(data):
        found = [str(path) for path in (home / "secret", *data.rglob("*"))]
        modes = {name: (data / name).stat().st_mode & 0o777 for name in ("postgres", "valkey")}
        home.chmod(0o711)  # Whoever opens the way later opens only the way.
        if ROOT:
            command = [sys.executable, "-I", "-S", "-c", REACH, *found]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
            assert done.stdout == ""
            [server] = {path.stat().st_uid for path in data.glob("postgres/*")}
            as_server = REACH.replace("65534", str(server))
            paths = [str(path) for path in (home / "secret", *data.glob("*.json"), *data.glob("*.log"))]
            command = [sys.executable, "-I", "-S", "-c", as_server, *paths]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
            assert done.stdout == ""
            assert data.stat().st_mode & 0o777 == 0o710
    assert modes == {"postgres": 0o700, "valkey": 0o700}


@as_root
@pytest.mark.parametrize("owner", [0, NOBODY], ids=["by root", "by nobody"])
def test_what_ran_as_nobody_gets_a_user_of_its_own(open_path: Path, owner: int) -> None:
    data = open_path / "data"
    with start_test_servers(data) as servers:
        write(servers.postgres.url, servers.valkey.url, "kept")
    for server in ("postgres", "valkey"):  # As earlier versions left it.
        for path in (data / server, *(data / server).rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    data.chmod(0o711)
    for path in (data, *data.glob("*.*")):
        os.chown(path, owner, owner)
    with start_test_servers(data) as servers:
        assert read(servers.postgres.url, servers.valkey.url) == ("kept", "kept")
    owners = {path.stat().st_uid for path in (*data.rglob("postgres/*"), *data.rglob("valkey/*"))}
    assert len(owners) == 1
    assert owners < set(OWN_USERS)
    assert {path.stat().st_uid for path in (data, *data.glob("*.*"))} == {0}


@as_root
def test_a_machine_where_root_may_not_mount_is_refused_with_a_sentence(open_path: Path) -> None:
    """As in most containers, below a directory that only root may enter."""
    open_path.chmod(0o700)
    inner = open_path / "inner"
    inner.mkdir()
    code = "import ctypes; ctypes.CDLL(None).prctl(24, 21); import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    helper = [sys.executable, "-I", "-S", unprivileged.__file__, "60600", "60600", str(inner), "/bin/true"]
    done = subprocess.run([sys.executable, "-c", code, *helper], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 1
    assert f"it has to pass {open_path}, which only root may enter" in done.stderr
    assert "Traceback" not in done.stderr
