"""Migrating is safe for N replicas at once, leaves nothing half done, and leads to the tables of app.tables."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from app.effects import show
from app.kit.errors import GatewayError
from app.kit.postgres.faults import naming_postgres
from app.promotion import store as promotions
from app.tables.migrate import current_and_head, head, migration_engine, migrations_dir, under_lock, upgrade
from tests.servers import TestServers, start_test_servers

ROOT = Path(__file__).resolve().parents[2]
HEADER = "from alembic import op\nrevision = {0!r}\ndown_revision = {1!r}\nbranch_labels = depends_on = None\n"
FIRST = """
def upgrade():
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("CREATE TABLE once (n integer)")
    op.execute("INSERT INTO once SELECT 1")
"""
#: An index built without blocking writers has to step out of its transaction, and waits for everybody's snapshot.
SECOND = """
def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY once_n ON once (n)")
"""
BROKEN = """
def upgrade():
    op.execute("CREATE TABLE half (n integer)")
    op.execute("SELECT no_such_column FROM half")
"""

#: The newest migration before the effects of triggers, and rows of that version.
BEFORE_EFFECTS = "5c2f10a6b8d1"
OLD_ROWS = """
INSERT INTO groups (key, route, mode, labels, failures, version, nonce)
    VALUES ('k', 'accuracy', 'live', '{"model": "churn"}', 0, 1, 'n');
INSERT INTO triggers (id, route, mode, group_key, group_labels, reason, state, outcome, detail, created_at, fired_at,
    accepted_at, started_at, ended_at, airflow, dag_id, dag_run_id, run_timeout, on_failure, policy)
SELECT gen_random_uuid(), 'accuracy', 'live', 'k', '{"model": "churn"}', 'new_alert', state, outcome, '', now(), now(),
    now(), now(), ended, 'default', 'retrain', 'r', 60, 'release', 'p'
FROM (VALUES ('succeeded', 'success', now() + interval '1 hour'), ('running', NULL, NULL)) t(state, outcome, ended)
"""

#: The newest migration before probations, and a promotion of that version, an hour old.
BEFORE_PROBATIONS = "5c301fe4a907"
OLD_PROMOTION = """
INSERT INTO promotions (id, kind, registry, model, mark, version, state, dry_run, mode, override, requested_by, previous,
    target, verdicts, tags, tags_before, detail, policy, fence, created_at, ended_at)
VALUES (gen_random_uuid(), 'promote', 'mlflow', 'churn', 'champion', '2', 'promoted', false, 'live', false, 'ci', '1', '2',
    '[]', '{}', '{}', 'version 2 holds champion', 'p', 1, now() - interval '1 hour', now() - interval '1 hour')
"""

BUGGY = """
def upgrade():
    int("x")
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServers]:
    with start_test_servers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture
def url(servers: TestServers) -> str:
    return servers.fresh_database()


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A directory like migrations/ with two migrations of its own; the percent sign is a trap for ConfigParser."""
    directory = tmp_path / "100%" / "migrations"
    (directory / "versions").mkdir(parents=True)
    shutil.copy(migrations_dir() / "env.py", directory)
    write(directory, "one", None, FIRST)
    write(directory, "two", "one", SECOND)
    return directory


@pytest.fixture
async def connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


def write(directory: Path, revision: str, after: str | None, body: str) -> None:
    (directory / "versions" / f"{revision}.py").write_text(HEADER.format(revision, after) + body)


async def test_eight_replicas_at_once_migrate_once(url: str, migrations: Path, connection: asyncpg.Connection) -> None:
    await asyncio.gather(*(upgrade(url, migrations=migrations) for _ in range(8)))
    assert await connection.fetch("SELECT n FROM once") == [(1,)]
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "two"
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_a_migration_that_fails_leaves_nothing_of_itself_and_keeps_those_before(
    url: str, migrations: Path, connection: asyncpg.Connection
) -> None:
    write(migrations, "three", "two", BROKEN)
    with pytest.raises(Exception, match="no_such_column"):
        await upgrade(url, migrations=migrations)
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "two"
    (migrations / "versions" / "three.py").unlink()
    await upgrade(url, migrations=migrations)  # The failed one has let go of the lock.


async def test_a_replica_that_waits_too_long_for_another_gives_up_and_says_why(url: str) -> None:
    engine = migration_engine(url)
    migrating, finish = threading.Event(), threading.Event()

    def slow(_: Connection) -> None:
        migrating.set()
        assert finish.wait(10)

    async def other_replica() -> None:
        async with engine.connect() as connection:
            await under_lock(connection, slow)

    def refused(_: Connection) -> None:
        raise AssertionError("two replicas migrate at the same time")

    # The other replica blocks its event loop on purpose, so it has a thread and a loop of its own.
    other = asyncio.create_task(asyncio.to_thread(asyncio.run, other_replica()))
    assert await asyncio.to_thread(migrating.wait, 10)
    async with engine.connect() as connection:
        with pytest.raises(GatewayError, match="Another process has been migrating this database for 0 s"):
            await under_lock(connection, refused, patience=0)
    finish.set()
    await other
    await engine.dispose()


async def test_a_database_that_was_never_migrated_says_so(url: str) -> None:
    assert await current_and_head(url) == (None, head())


async def test_after_the_upgrade_the_database_is_at_the_head_however_it_is_asked(url: str) -> None:
    await upgrade(url)
    await upgrade(url)
    engine = migration_engine(url)
    async with engine.connect() as connection:
        assert await current_and_head(connection) == (head(), head())
    await engine.dispose()
    assert await current_and_head(url) == (head(), head())


@pytest.mark.parametrize("command", [["upgrade", "head"], ["check"]], ids=["upgrade", "check"])
def test_the_alembic_command_works_in_a_checkout_and_the_tables_agree_with_the_migrations(
    url: str, command: list[str]
) -> None:
    asyncio.run(upgrade(url))
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *command],
        cwd=ROOT,
        env={**os.environ, "GATEWAY_DATABASE_URL": url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alembic_command_without_a_database_names_the_variable() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GATEWAY_DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "current"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Set GATEWAY_DATABASE_URL" in done.stderr


def test_the_alembic_command_reads_the_variable_as_the_gateway_does(url: str, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{url}\r\n")
    given = [
        ({"GATEWAY_DATABASE_URL": f' "{url}"\n'}, 0, ""),
        ({"GATEWAY_DATABASE_URL_FILE": str(tmp_path / "url")}, 0, ""),
    ]
    given.append(({"GATEWAY_DATABASE_URL": "mysql://u:hush@h/d"}, 1, "must begin with postgresql://"))
    for variables, code, words in given:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | variables
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "current"], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr


async def test_a_bug_of_a_migration_is_not_blamed_on_the_url(url: str, migrations: Path) -> None:
    write(migrations, "three", "two", BUGGY)
    with pytest.raises(RuntimeError, match="bug"), naming_postgres(url):
        await upgrade(url, migrations=migrations)


def test_every_migration_gives_up_on_a_lock_instead_of_stopping_the_service() -> None:
    files = sorted((migrations_dir() / "versions").glob("*.py"))
    assert files
    assert [path.name for path in files if "SET LOCAL lock_timeout = '5s'" not in path.read_text()] == []


async def upgrade_to(engine: AsyncEngine, revision: str) -> None:
    """Make the tables of an older version."""

    def run(sync: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
        config.attributes["connection"] = sync
        command.upgrade(config, revision)

    async with engine.connect() as conn:
        await under_lock(conn, run)


async def test_triggers_of_the_version_before_are_kept_and_their_effect_is_unknown(
    url: str, connection: asyncpg.Connection
) -> None:
    engine = migration_engine(url)
    await upgrade_to(engine, BEFORE_EFFECTS)
    await connection.execute(OLD_ROWS)
    await upgrade(url)
    async with engine.connect() as conn:
        items, _ = await show.page(conn, show.Query())
        groups, _, _ = await show.sums(conn, show.Query())
    await engine.dispose()
    assert {item["state"]: (item["effect"], item["reason"]) for item in items} == {
        "succeeded": ("unknown", "not_judged"),
        "running": (None, "running"),
    }
    assert [(each["retrains"], each["unknown"], each["waiting"], each["run_hours"]) for each in groups] == [
        (2, 1, 1, 1.0)
    ]
    assert await connection.fetchval("SELECT ineffective FROM groups") == 0


async def test_a_promotion_from_before_probations_is_not_watched(url: str, connection: asyncpg.Connection) -> None:
    engine = migration_engine(url)
    await upgrade_to(engine, BEFORE_PROBATIONS)
    await connection.execute(OLD_PROMOTION)
    await upgrade(url)
    now = datetime.now(UTC)
    async with engine.begin() as conn:
        assert await promotions.on_probation(conn, now, now + timedelta(minutes=1), 9) == []
        [row], _ = await promotions.page(conn, 9, None, {})
    assert (row.version, row.probation) == ("2", None)
    await engine.dispose()
