"""What the tests of the spool share, besides everybody's MLflow."""

from collections.abc import Iterator

import pytest

from tests.spool.mlflow import Environment, MlflowServer, install
from tests.spool.proxy import Proxy, proxied


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """MLflow with the spool's plugin beside it."""
    return install(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def proxy(mlflow_server: MlflowServer) -> Iterator[Proxy]:
    """The way to that server, on which things can go wrong."""
    with proxied(mlflow_server.port) as between:
        yield between
