"""The embedded PostgreSQL and Valkey: what a start gives, who may use it, how processes share it, how it ends."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
import redis

from app.kit.clock import monotonic
from app.kit.embedded import Postgres, Valkey, start_postgres, start_valkey, unprivileged
from app.kit.embedded.directory import NOBODY, OWN_USERS
from app.kit.errors import UsageError
from tests.integration.gateways import (
    NAMELESS,
    PROGRAM,
    ROOT,
    Gateway,
    ask,
    has_ended,
    ordinary_users,
    pid_of,
    read,
    write,
)
from tests.servers import TestServers, start_test_servers


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServers]:
    """Servers of this module, for tests that only ask."""
    with start_test_servers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory whose parents everybody may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


# What a start gives.


def test_a_start_without_further_words_is_durable(tmp_path: Path) -> None:
    postgres, valkey = start_postgres(tmp_path / "data"), start_valkey(tmp_path / "data")
    try:
        assert ask(postgres.url, "SHOW fsync") == "on"
        assert ask(postgres.url, "SHOW full_page_writes") == "on"
        with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
            found = client.config_get("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
    finally:
        valkey.stop()
        postgres.stop()
    assert found == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory": str(256 * 1024 * 1024),
        "maxmemory-policy": "allkeys-lru",
    }


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("server_version_num", "180004"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("data_checksums", "on"),
        ("synchronous_commit", "on"),
        ("max_connections", "200"),
        ("shared_buffers", "128MB"),
        ("jit", "off"),
        ("TimeZone", "UTC"),
        ("listen_addresses", "127.0.0.1"),
        ("is_superuser", "off"),
    ],
)
def test_postgres_is_set_up_as_production_is(servers: TestServers, setting: str, value: str) -> None:
    if setting == "lc_collate":
        found = ask(servers.postgres.url, "SELECT datcollate FROM pg_database WHERE datname = current_database()")
    else:
        found = ask(servers.postgres.url, f"SELECT current_setting('{setting}')")
    assert found[:2] == "18" if setting == "server_version_num" else found == value


def test_postgres_makes_no_unix_socket(servers: TestServers) -> None:
    lines = (servers.postgres.directory.server / "postmaster.pid").read_text().splitlines()
    assert lines[4:6] == ["", "127.0.0.1"], "the lines of the socket's directory and of the first address"


@pytest.mark.parametrize("user", ["gateway", "postgres"])
@pytest.mark.parametrize("password", ["", "wrong"])
def test_postgres_lets_nobody_in_without_the_password(servers: TestServers, user: str, password: str) -> None:
    url = f"postgresql://{user}:{password}@127.0.0.1:{servers.postgres.access.port}/gateway"
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(url, "SELECT 1")


def test_not_even_the_password_makes_a_superuser(servers: TestServers) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(servers.postgres.url.replace("gateway:", "postgres:", 1), "SELECT 1")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        ask(servers.postgres.url, "COPY (SELECT 1) TO PROGRAM 'cat'")


@pytest.mark.parametrize("password", ["", ":wrong@"], ids=["none", "wrong"])
def test_valkey_lets_nobody_in_without_the_password(servers: TestServers, password: str) -> None:
    with (
        redis.Redis.from_url(f"redis://{password}127.0.0.1:{servers.valkey.access.port}/0") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_the_passwords_stand_in_private_files_and_on_no_command_line(servers: TestServers) -> None:
    for server in (servers.postgres, servers.valkey):
        files = [path for path in server.directory.data_dir.iterdir() if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert server.directory.server.stat().st_mode & 0o777 == 0o700
        assert server.access.password not in server.directory.log.read_text()
    lines = subprocess.run(["ps", "-e", "-ww", "-o", "command="], capture_output=True, text=True, check=True).stdout
    assert servers.postgres.access.password not in lines
    assert servers.valkey.access.password not in lines


def test_a_database_is_created_once_however_many_ask_for_it_at_once(servers: TestServers) -> None:
    with ThreadPoolExecutor(4) as pool:
        urls = set(pool.map(servers.postgres.create_database, ["airflow"] * 4))
    (url,) = urls
    assert ask(url, "SELECT current_database()") == "airflow"


@pytest.mark.parametrize("name", ["Mixed", 'quo"te', "apo'strophe", "dash-ed", "a; DROP DATABASE gateway"])
def test_a_database_may_have_any_name(servers: TestServers, name: str) -> None:
    servers.postgres.create_database(name)
    names = ask(servers.postgres.url, "SELECT array_agg(datname::text) FROM pg_database")
    assert {name, "gateway"} <= set(names)


@pytest.mark.parametrize("template", ["nowhere", "nowhere_42P04", "nowhere_23505"])
def test_a_database_that_cannot_be_made_is_refused_in_the_words_of_postgres(
    servers: TestServers, template: str
) -> None:
    with pytest.raises(UsageError, match=f'template database "{template}" does not exist'):
        servers.postgres.create_database("copy", template=template)


def test_a_fresh_database_is_empty_or_a_copy_of_its_template(servers: TestServers) -> None:
    first = servers.fresh_database()
    ask(first, "CREATE TABLE kept AS SELECT 1 AS one")
    copy = servers.fresh_database(template=first.rsplit("/", 1)[1])
    assert ask(copy, "SELECT one FROM kept") == 1
    assert ask(servers.fresh_database(), "SELECT to_regclass('kept')") is None


# Who runs it.


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


def test_the_users_own_settings_of_postgres_do_not_leak_into_the_server(tmp_path: Path) -> None:
    environment = {
        "PGDATA": "/nonexistent",
        "PGPORT": "1",
        "PGHOST": "db.invalid",
        "PGUSER": "somebody",
        "PGOPTIONS": "-c nonsense=1",
        "PGSERVICE": "nonsense",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "xx_YY.UTF-8",
    }
    with Gateway(tmp_path / "data", environment=environment) as gateway:
        assert ask(gateway.postgres, "SHOW log_timezone") == "UTC"


# How processes share it, and how it ends.


@pytest.mark.parametrize("first_to_go", [0, 1], ids=["who started it goes first", "who joined goes first"])
def test_the_last_process_that_uses_the_servers_stops_them(tmp_path: Path, first_to_go: int) -> None:
    with ExitStack() as stack:
        gateways = [stack.enter_context(Gateway(tmp_path / "data")) for _ in range(2)]
        pids = [pid_of(tmp_path / "data", server) for server in ("postgres", "valkey")]
        gateways.pop(first_to_go).end()
        write(gateways[0].postgres, gateways[0].valkey, "kept")
        assert read(gateways[0].postgres, gateways[0].valkey) == ("kept", "kept")
        gateways[0].end()
    assert [has_ended(pid) for pid in pids] == [True, True]


def test_concurrent_first_starts_make_one_server(tmp_path: Path) -> None:
    gateways = [Gateway(tmp_path / "data").begin() for _ in range(3)]
    urls = {(gateway.ready().postgres, gateway.valkey) for gateway in gateways}
    assert len(urls) == 1
    (gateway,) = {gateway.postgres for gateway in gateways}
    assert ask(gateway, "SELECT 1") == 1
    for started in gateways:
        started.end()


def test_a_forked_child_does_not_stop_what_its_parent_uses(tmp_path: Path) -> None:
    program = PROGRAM.replace("print(", "import os\nif os.fork() == 0: sys.exit()\nos.wait()\nprint(")
    with Gateway(tmp_path / "data", program=program) as gateway:
        pid = pid_of(tmp_path / "data", "postgres")
        assert ask(gateway.postgres, "SELECT 1") == 1
    assert has_ended(pid)


def test_ctrl_c_is_for_the_gateway_and_not_for_its_servers(servers: TestServers) -> None:
    for server in ("postgres", "valkey"):
        pid = pid_of(servers.postgres.directory.data_dir, server)
        assert os.getsid(pid) == pid, "a session of its own gets no signals of our terminal"


def test_stop_does_not_wait_for_clients_and_may_be_called_twice(tmp_path: Path) -> None:
    with start_test_servers(tmp_path / "data") as servers:
        psql = subprocess.Popen(
            [servers.postgres._program("psql"), servers.postgres.url, "-c", "SELECT pg_sleep(600)"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        busy = "SELECT pg_stat_clear_snapshot() IS NULL FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%'"
        assert ask(servers.postgres.url, busy) is not None
        begin = monotonic()
        servers.stop()
        assert monotonic() - begin < 5
        assert psql.wait(timeout=10) != 0
        servers.stop()
        assert not servers.postgres.directory.server.joinpath("postmaster.pid").exists()


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_who_leaves_lets_the_server_run_for_the_next(tmp_path: Path, kind: type[Postgres] | type[Valkey]) -> None:
    first = kind(tmp_path / "data").start()
    pid = pid_of(tmp_path / "data", first.name)
    first.leave()
    second = kind(tmp_path / "data").start()
    assert pid_of(tmp_path / "data", first.name) == pid
    second.stop()
    assert has_ended(pid)
