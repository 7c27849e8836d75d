"""What the tests of the spool share, besides everybody's MLflow."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spool.mlflow import Environment, MlflowServer, install
from tests.spool.proxy import Proxy, proxied


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """MLflow with the spool's plugin beside it."""
    return install(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of journals are not about the disk."""
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="spool-", dir=base if base.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def proxy(mlflow_server: MlflowServer) -> Iterator[Proxy]:
    """The way to that server, on which things can go wrong."""
    with proxied(mlflow_server.port) as between:
        yield between
