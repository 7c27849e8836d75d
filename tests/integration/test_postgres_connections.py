"""Databases, roles and URLs as people have them: what is used, and what is refused by name."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.kit.db import is_pooled, one_statement, open_engine, transaction
from app.kit.errors import UsageError
from app.tables.migrate import current_and_head, head, upgrade
from tests.integration.gateways import ask
from tests.integration.processes import Process, command
from tests.pgbouncer import pgbouncer, through
from tests.servers import TestServers


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    engine = open_engine(url, pool_size=1)
    try:
        async with transaction(engine) as conn:
            yield conn
    finally:
        await engine.dispose()


async def shown(url: str, *settings: str) -> list[str]:
    """The values of these settings in a transaction of the gateway."""
    async with connected(url) as conn:
        return [(await conn.execute(text(f"SHOW {name}"))).scalar_one() for name in settings]


# Databases and roles.


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("LATIN1", [("migrate", 2), ("serve", 2), ("doctor", 1)]), ("SQL_ASCII", [("migrate", 2)])],
    ids=["LATIN1", "SQL_ASCII"],
)
def test_a_database_that_cannot_hold_every_alert_is_refused_by_name(
    servers: TestServers, tmp_path: Path, encoding: str, words: list[tuple[str, int]]
) -> None:
    name = f"in_{encoding.lower()}"
    ask(servers.postgres.url, f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    variables = {"database_url": servers.postgres.url_of(name), "redis_url": servers.valkey.url}
    Process(tmp_path).write_policy()
    for word, code in words:
        done = command(tmp_path, word, port="0", **variables)
        output = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == code, output
        assert f"the database {name} has the encoding {encoding}" in output
        assert "ENCODING 'UTF8' TEMPLATE template0" in output
        assert "Traceback" not in output
    assert ask(variables["database_url"], "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


@pytest.mark.parametrize(
    ("setting", "value", "in_force"),
    [
        ("DateStyle", "SQL, DMY", "ISO, MDY"),
        ("TimeZone", "Asia/Kolkata", "UTC"),
        ("IntervalStyle", "iso_8601", "postgres"),
        ("standard_conforming_strings", "off", "on"),
        ("bytea_output", "escape", "hex"),
        ("default_transaction_isolation", "serializable", "read committed"),
        ("synchronous_commit", "off", "on"),
        ("synchronous_commit", "remote_apply", "remote_apply"),
        ("idle_session_timeout", "1s", "0"),
        ("statement_timeout", "1h", "5s"),
        ("lock_timeout", "0", "2s"),
        ("idle_in_transaction_session_timeout", "0", "10s"),
    ],
)
async def test_a_setting_of_the_role_does_not_change_what_the_gateway_does(
    servers: TestServers, setting: str, value: str, in_force: str
) -> None:
    url = servers.fresh_database()
    connection = await asyncpg.connect(url)
    try:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    finally:
        await connection.close()
    assert await shown(url, setting, "transaction_isolation") == [in_force, "read committed"]


async def test_a_schema_of_its_own_is_named_by_options(servers: TestServers) -> None:
    url = servers.fresh_database()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE SCHEMA gateway")
        own = f"{url}?options=-c%20search_path%3Dgateway"
        await upgrade(own)
        assert await current_and_head(own) == (head(), head())
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        assert await connection.fetchval("SELECT count(*) FROM gateway.alerts") == 0
    finally:
        await connection.close()


# What a URL may say.


async def test_the_parameters_of_a_url_have_their_effect(database: str) -> None:
    given = (
        "application_name=mine&options=-c%20work_mem%3D5MB&keepalives_idle=77&channel_binding=prefer&gssencmode=prefer"
    )
    given += "&connect_timeout=3&target_session_attrs=read-write&sslmode=disable"
    async with connected(f"{database}?{given}") as conn:
        found = [(await conn.execute(text(f"SHOW {name}"))).scalar_one() for name in ("application_name", "work_mem")]
        assert found == ["mine", "5MB"]
        driver: Any = (await conn.get_raw_connection()).driver_connection
        with socket.fromfd(driver.descriptor, socket.AF_INET, socket.SOCK_STREAM) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77


async def test_a_service_file_is_read_whole(
    servers: TestServers, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = database.rpartition("/")[2]
    file = tmp_path / "services"
    file.write_text(
        f"[gateway]\nhost=127.0.0.1\nport={servers.postgres.access.port}\nuser=gateway\ndbname={name}\n"
        f"password={servers.postgres.access.password}\napplication_name=from the file\n[bad]\nhost=h\nrequire_auth=md5\n"
    )
    assert await shown(f"postgresql:///?service=gateway&servicefile={file}", "application_name") == ["from the file"]
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    assert await shown("postgresql:///?service=gateway", "application_name") == ["from the file"]
    for service, words in (("other", "the service 'other' is not in"), ("bad", "require_auth is not taken")):
        with pytest.raises(UsageError, match=words):
            open_engine(f"postgresql:///?service={service}")


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslcrl", "passfile"])
def test_a_file_that_a_url_names_and_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(UsageError, match="GATEWAY_DATABASE_URL: /none/here cannot be read: No such file"):
        open_engine(f"postgresql://h/d?sslmode=require&{name}=/none/here")


def test_a_password_file_that_others_may_read_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    file.write_text("*:*:*:*:hush\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        open_engine(f"postgresql://h/d?passfile={file}")


def test_a_file_in_a_home_directory_that_nobody_knows_is_named() -> None:
    with pytest.raises(UsageError, match="GATEWAY_DATABASE_URL: ~nobody-of-this-name/ca cannot be read"):
        open_engine("postgresql://h/d?sslmode=require&sslrootcert=~nobody-of-this-name/ca")


@pytest.mark.parametrize(
    ("word", "query", "words"),
    [
        ("migrate", "channel_binding=require", "channel_binding=require is not taken"),
        ("serve", "channel_binding=require", "channel_binding=require is not taken"),
        ("doctor", "channel_binding=require", "channel_binding=require is not taken"),
        ("serve", "sslrootcert=/none/here", "/none/here cannot be read"),
    ],
)
def test_a_parameter_that_is_not_taken_ends_every_command_with_its_name(
    servers: TestServers, tmp_path: Path, word: str, query: str, words: str
) -> None:
    variables = {"database_url": f"postgresql://u:hush@h/d?{query}", "redis_url": servers.valkey.url}
    Process(tmp_path).write_policy()
    done = command(tmp_path, word, port="0", **variables)
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode in (1, 2), output
    assert words in output
    assert "Traceback" not in output
    assert "hush" not in output


# PgBouncer.


@pytest.fixture(scope="module", params=["session", "transaction"])
def pooler(
    request: pytest.FixtureRequest, servers: TestServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    with pgbouncer(servers.postgres, tmp_path_factory.mktemp("pgbouncer"), request.param) as port:
        yield port


async def test_every_transaction_through_pgbouncer_has_the_gateways_settings(
    servers: TestServers, database: str, pooler: int
) -> None:
    url = through(database, servers.postgres, pooler)
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "TimeZone",
        "transaction_isolation",
    )
    expected = ["5s", "2s", "10s", "UTC", "read committed"]
    assert await shown(url, *names) == expected
    engine, copy = open_engine(url, pool_size=2), open_engine(url, pool_size=1, read_only=True)
    try:
        async with one_statement(engine) as conn, transaction(engine) as other:
            assert (is_pooled(conn), is_pooled(other)) == (True, True)
            assert (await conn.execute(text("SHOW statement_timeout"))).scalar_one() == "5s"
            with pytest.raises(Exception, match="statement timeout"):
                await other.execute(text("SELECT pg_sleep(6)"))
        async with copy.connect() as conn:
            with pytest.raises(Exception, match="read-only"):
                await conn.execute(text("DELETE FROM alerts"))
    finally:
        await engine.dispose()
        await copy.dispose()
    # What another client of the pooler gets from it: nothing of the gateway's is left in the sessions of Postgres.
    other = await asyncpg.connect(url, statement_cache_size=0)
    try:
        left = "SELECT array_agg(name) FROM pg_prepared_statements WHERE name <> ''"
        assert await other.fetchval(left) is None
        assert await other.fetchval("SHOW statement_timeout") == "0"
    finally:
        await other.close()


async def test_pgbouncer_that_drops_the_settings_in_silence_is_found_too(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    dropped = "lock_timeout, statement_timeout, idle_in_transaction_session_timeout, jit, default_transaction_isolation"
    more = f"ignore_startup_parameters = {dropped}, intervalstyle, IntervalStyle, bytea_output"
    with pgbouncer(servers.postgres, tmp_path, "transaction", more) as port:
        url = through(database, servers.postgres, port)
        assert await shown(url, "statement_timeout", "lock_timeout") == ["5s", "2s"]


def test_pgbouncer_that_takes_no_transactions_is_refused_by_name(
    servers: TestServers, database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "pgbouncer"
    folder.mkdir()
    Process(tmp_path).write_policy()
    with pgbouncer(servers.postgres, folder, "statement") as port:
        urls = {"database_url": through(database, servers.postgres, port), "redis_url": servers.valkey.url}
        for word in ("migrate", "worker"):
            done = command(tmp_path, word, **urls)
            assert done.returncode == 1, done.stderr
            assert "a pooler in front of it ended the connection" in done.stderr
            assert "pool_mode = transaction or session" in done.stderr
            assert "Traceback" not in done.stderr
