"""What the tests of the spool share, besides everybody's MLflow."""

import os
from collections.abc import Iterator

import pytest

from tests.spool.mlflow import Environment, MlflowServer, install
from tests.spool.proxy import Proxy, proxied


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """MLflow with the spool's plugin beside it, for every worker the same."""
    base = tmp_path_factory.getbasetemp()
    return install((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "plugin")


@pytest.fixture
def proxy(mlflow_server: MlflowServer) -> Iterator[Proxy]:
    """The way to that server, on which things can go wrong."""
    with proxied(mlflow_server.port) as between:
        yield between
