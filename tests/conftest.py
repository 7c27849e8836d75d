"""Real servers for everybody: one PostgreSQL, one Valkey and one MLflow a session, a migrated database a test."""

import asyncio
import gc
import os
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from app.tables import migrate
from tests.distribution import pytest_collection_modifyitems, pytest_xdist_make_scheduler
from tests.servers import TestServers, start_test_servers
from tests.sizes import PROVE
from tests.spool.mlflow import Environment, MlflowServer, install_mlflow, running

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_xdist_make_scheduler",
]  # Hooks: pytest finds them here, and only here.

# A background job of a shell ignores SIGINT, and so would every server that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Otherwise pytest would end at once, and the servers of its fixtures would run on.
for _number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_DFL:
        signal.signal(_number, signal.default_int_handler)

# Folders of tests in memory, where it has room and lets programs run: a database is copied four times as fast there.
_MEMORY = Path("/dev/shm")
if _MEMORY.is_dir():
    _room = os.statvfs(_MEMORY)
    if _room.f_bavail * _room.f_frsize >= 8 << 30 and not _room.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


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
def database(new_database: Callable[[], str]) -> str:
    """The URL of a migrated, empty database."""
    return new_database()


@pytest.fixture
def new_database(servers: TestServers, template: str) -> Iterator[Callable[[], str]]:
    """For tests that need several. They are dropped after the test."""
    made: list[str] = []

    def new() -> str:
        made.append(servers.fresh_database(template))
        return made[-1]

    yield new
    for url in made:
        servers.discard(url)


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


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays to the end: the search for garbage need not look at it, then or after every test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """`make prove` takes hours: it shows each fault when it happens, and again at the end."""
    if PROVE and report.failed and hasattr(report, "node"):  # in the process that gathers what xdist's workers report
        print(f"\n{report.nodeid}\n{report.longreprtext}\n{report.capstdout}", flush=True)
