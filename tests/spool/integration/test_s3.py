"""An artifact root that the client itself writes to (`s3://`, no MLflow in between), as moto's server plays it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.spool.contents import Artifacts, contents, differences, readable
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, never
from tests.spool.training import Site

pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.slow]

BUCKET = "models"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def store(endpoint: str) -> Any:
    """The client of the test itself."""
    login = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **login)
    client.create_bucket(Bucket=BUCKET)
    return client


def artifacts_of(store: Any) -> Artifacts:
    """What lies below an artifact root: path -> content of text, or length of what is none."""

    def read(uri: str) -> dict[str, Any]:
        base = uri.removeprefix(f"s3://{BUCKET}/") + "/"
        found = store.list_objects_v2(Bucket=BUCKET, Prefix=base).get("Contents", [])
        bodies = {entry["Key"]: store.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read() for entry in found}
        return {key.removeprefix(base): readable(Path(key), body) for key, body in sorted(bodies.items())}

    return read


def test_an_s3_root_works_as_a_proxied_one_through_an_outage(
    environment: Environment, mlflow_server: MlflowServer, proxy: Proxy, tmp_path: Path, endpoint: str, store: Any
) -> None:
    variables = {"MLFLOW_S3_ENDPOINT_URL": endpoint, **KEYS}
    found = {}
    for name, uri in (("s3-plain", mlflow_server.uri), ("s3-away", f"spool+{proxy.uri}")):
        mlflow_server.call("POST", "experiments/create", {"name": name, "artifact_location": f"s3://{BUCKET}/{name}"})
        site = Site(environment, tmp_path, uri, {"MLFLOW_SPOOL_SETTLE": "0.2", **variables})
        proxy.plan = always(Fault.REFUSE)
        site.train("models.py", EXPERIMENT=name)
        proxy.plan = never
        if name == "s3-away":
            site.spool("flush", "--timeout", "60")
            assert " 0 waiting" in site.spool("status")
        found[name] = contents(mlflow_server, name, artifacts_of(store))
    (model,) = found["s3-plain"]["models"]
    assert {"MLmodel", "model.pkl"} <= model["artifacts"].keys() or "MLmodel" in model["artifacts"]
    assert found["s3-plain"]["runs"][0]["artifacts"]["notes/why.txt"] == "no"
    assert differences(found["s3-away"], found["s3-plain"]) == []
