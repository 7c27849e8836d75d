"""Real servers for everybody: one PostgreSQL and one Valkey a session, a migrated database a test."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from app import migrate
from tests.distribution import pytest_xdist_make_scheduler
from tests.servers import TestServers, start_test_servers

__all__ = ["pytest_xdist_make_scheduler"]  # A hook: pytest-xdist finds it here, and only here.


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
