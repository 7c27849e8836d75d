"""Real servers for everybody: one PostgreSQL, one Valkey and one MLflow a session, a migrated database a test."""

import asyncio
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.tables import migrate
from tests.distribution import pytest_xdist_make_scheduler
from tests.servers import TestServers, start_test_servers
from tests.spool.mlflow import Environment, MlflowServer, install_mlflow, running

__all__ = ["pytest_xdist_make_scheduler"]  # A hook: pytest-xdist finds it here, and only here.

# A background job of a shell ignores SIGINT, and so would every server that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServers]:
    """PostgreSQL and Valkey from their wheels, started when the first test asks."""
    with start_test_servers(tmp_path_factory.mktemp("servers")) as started:
        yield started


@pytest.fixture(scope="session")
def template(servers: TestServers) -> str:
    """The name of a migrated database, to be copied: migrating anew would cost half a second a test."""
    url = servers.fresh_database()
    asyncio.run(migrate.upgrade(url))
    return url.rsplit("/", 1)[1].partition("?")[0]


@pytest.fixture
def database(servers: TestServers, template: str) -> str:
    """The URL of a migrated, empty database."""
    return servers.fresh_database(template)


@pytest.fixture
def new_database(servers: TestServers, template: str) -> Callable[[], str]:
    """For tests that need several."""
    return lambda: servers.fresh_database(template)


@pytest.fixture(scope="session")
def mlflow_server(servers: TestServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server on PostgreSQL, which is never restarted: tests use experiments and models of their own."""
    environment = Environment(install_mlflow(), tmp_path_factory.mktemp("no-plugin"))
    with running(environment, tmp_path_factory.mktemp("mlflow"), servers.fresh_database()) as server:
        yield server


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of journals are not about the disk."""
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="spool-", dir=base if base.is_dir() else None) as folder:
        yield Path(folder)
