"""SageMaker as moto serves it, in this process, and the way to it that boto3 finds by itself."""

from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from tests.mlflow.sites import SagemakerSite
from tests.spool.conftest import environment

__all__ = ["environment"]  # A fixture: MLflow with the spool's plugin beside it.


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def sagemaker(moto: str, monkeypatch: pytest.MonkeyPatch) -> SagemakerSite:
    """An account of AWS."""
    for name, value in [
        ("ENDPOINT_URL", moto),
        ("ACCESS_KEY_ID", "x"),
        ("SECRET_ACCESS_KEY", "x"),
        ("DEFAULT_REGION", "us-east-1"),
    ]:
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return SagemakerSite()
