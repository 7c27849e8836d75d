"""The embedded PostgreSQL and Valkey: what a start gives, who may use it, how processes share it, how it ends."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
import redis

from app.kit.clock import monotonic
from app.kit.embedded import Postgres, Valkey, start_postgres, start_valkey
from app.kit.errors import UsageError
from tests.integration.gateways import (
    PROGRAM,
    Gateway,
    ask,
    has_ended,
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
        assert monotonic() - begin < 9
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
