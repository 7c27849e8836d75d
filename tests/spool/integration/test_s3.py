"""An artifact root that the client itself writes to (`s3://`, no MLflow in between), as moto's server plays it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.sizes import PROVE
from tests.spool.contents import Artifacts, contents, differences, readable
from tests.spool.mlflow import Environment, MlflowServer
from tests.spool.proxy import Fault, Proxy, always, never, proxied
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


SLOWEST = 40.0  # seconds of a call, and of the end, on a busy machine; the client of the store needs minutes
#: What the store does, and whether MLflow names it only after the end of the training.
SILENT = [(Fault.HANG, False), *([(Fault.HANG, True), (Fault.REFUSE, False)] if PROVE else [])]


@pytest.mark.parametrize(("fault", "late"), SILENT)
def test_a_store_that_is_away_holds_up_neither_training_nor_metadata_nor_an_end(
    environment: Environment,
    mlflow_server: MlflowServer,
    proxy: Proxy,
    tmp_path: Path,
    endpoint: str,
    store: Any,
    fault: Fault,
    late: bool,
) -> None:
    name, gate = f"store-{fault.name.lower()}-{late}", tmp_path / "gate"
    mlflow_server.call("POST", "experiments/create", {"name": name, "artifact_location": f"s3://{BUCKET}/{name}"})
    with proxied(int(endpoint.rpartition(":")[2])) as way:
        settings = {"MLFLOW_SPOOL_SETTLE": "0.2", "MLFLOW_SPOOL_REQUEST_TIMEOUT": "3", **KEYS}
        site = Site(environment, tmp_path, f"spool+{proxy.uri}", {"MLFLOW_S3_ENDPOINT_URL": way.uri, **settings})
        proxy.plan, way.plan = lambda number, line: Fault.NONE if gate.exists() else Fault.REFUSE, always(fault)
        given = {} if late else {"GATE": str(gate)}
        slowest, ended = site.train("direct.py", EXPERIMENT=name, LARGE="3000000", **given).split()[-2:]
        assert float(slowest) < SLOWEST
        assert time.time() - float(ended) < SLOWEST
        gate.touch()
        began = time.monotonic()
        site.spool("flush", "--timeout", "10", code=1)
        assert time.monotonic() - began < SLOWEST
        (run,) = contents(mlflow_server, name, artifacts_of(store))["runs"]
        assert (run["metrics"]["loss"], run["status"], run["artifacts"]) == ([[0, 0.5]], "FINISHED", {})
        way.plan = never
        site.spool("flush", "--timeout", "120")
        assert " 0 waiting" in site.spool("status")
    (run,) = contents(mlflow_server, name, artifacts_of(store))["runs"]
    table = json.loads(run["artifacts"].pop("table.json"))
    assert (table["data"], run["artifacts"].pop("large.bin")) == ([[1], [2], [1], [2]], 3000000)
    assert run["artifacts"] == {"first.txt": "first", **{f"parts/{number}.txt": str(number) for number in range(3)}}
