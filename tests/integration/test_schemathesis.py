"""The OpenAPI document against the gateway: whatever the document allows, and much that it does not, is answered as told."""

import asyncio
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from pydantic import SecretStr
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from app.bootstrap.core import Urls
from app.bootstrap.parts import open_services
from app.bootstrap.settings import read_settings
from app.kit.clock import SystemClock
from app.kit.http import open_http
from app.policy.file.load import parse_policy
from app.web.main import create_app
from tests.fakes.airflow import FakeAirflow
from tests.integration.api import ALERTMANAGER, CLOUDEVENTS, GRAFANA, NATIVE, POLICY, native_alert, word
from tests.servers import TestServers
from tests.sizes import seed, size

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # It asks for httpx2, which nothing here speaks.
    from starlette.testclient import TestClient

load_all_checks()
#: No token exists in this test; who may call what has a table of its own.
WITHOUT_TOKENS = ["ignored_auth"]
#: A readable body with a bad alert is a 202 that lists it, and what Postgres cannot store (NUL, a year out of range) is
#: refused though no JSON Schema can say so.
READ_ALERT_BY_ALERT = ["negative_data_rejection", "positive_data_acceptance"]
INTAKE = (NATIVE, ALERTMANAGER, GRAFANA, CLOUDEVENTS)


@contextmanager
def serving(servers: TestServers, database: str, folder: Path) -> Iterator[FastAPI]:
    """The application on real servers, its lifespan run by the client that a portal thread drives."""
    (folder / "policy.yaml").write_text(POLICY)
    configured = read_settings(
        data_dir=folder,
        policy_file=folder / "policy.yaml",
        database_url=SecretStr(database),
        redis_url=SecretStr(servers.valkey.url),
    )
    policy = parse_policy(POLICY, "policy.yaml", {})
    airflow = FakeAirflow(SystemClock())
    airflow.users["gateway"] = "gateway"
    airflow.add_dag("retrain_model")  # A probe that is rightly 503 would be taken for a fault.
    http = open_http(transport=airflow.transport())
    app = create_app(
        configured,
        lambda: open_services(configured, policy, Urls(database, servers.valkey.url), http=http),
        worker=False,
    )
    yield app
    asyncio.run(http.aclose())


@pytest.fixture
def app(servers: TestServers, database: str, tmp_path: Path) -> Iterator[FastAPI]:
    with serving(servers, database, tmp_path) as made:
        yield made


#: Where what fits the document may be refused all the same, and what the document cannot say.
MORE_THAN_A_SCHEMA = {
    "/api/v1/backtests": "`policy` is the text of a policy, `since` a duration or a time",
    "/api/v1/lineage": "exactly one of its parameters",
    "/api/v1/metadata": "one of three references is needed; a record is one that a spool writes",
    "/api/v1/triggers": "NUL again: in a reason, a name, a value of the group or of the conf",
    "/api/v1/promotions": "what a version looks like is its registry's",
    "/api/v1/routes": "a cursor needs the route whose groups it pages through",
    "/api/v1/routes/{name}/pause": "`until` is in the future",
}


def test_no_request_is_answered_other_than_the_document_says(app: FastAPI) -> None:
    chosen = seed()
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        known = client.post(NATIVE, json=native_alert("ModelAccuracyLow", labels={"model": word()}))
        assert known.status_code == 202
        schema = schemathesis.openapi.from_dict(app.openapi())
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
        assert len(operations) == sum(map(len, app.openapi()["paths"].values()))
        for operation in operations:
            answered_as_told(operation, client, chosen)
        assert client.get("/readyz").json()["status"] == "ok"
        alive = client.post(NATIVE, json=native_alert("ModelAccuracyLow", labels={"model": word()}))
        assert alive.json()["decisions"][0]["action"] == "fire"


def answered_as_told(operation: Any, client: TestClient, chosen: int) -> None:
    """Good and bad requests for one operation, each answer held against the document."""
    excluded = WITHOUT_TOKENS + (READ_ALERT_BY_ALERT if operation.path in INTAKE else [])
    if operation.path in MORE_THAN_A_SCHEMA:
        excluded = [*excluded, "positive_data_acceptance"]
    checks: list[Any] = CHECKS.get_by_names([name for name in CHECKS.get_all_names() if name not in excluded])

    @seeded(chosen)
    @settings(
        max_examples=size(10, 100),
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def every_one(case: Any) -> None:
        case.validate_response(send(case, client), checks=checks)

    every_one()


def send(case: Any, client: TestClient) -> Any:
    """The request that schemathesis would send, through the client that keeps the application's loop."""
    wanted = case.as_transport_kwargs(base_url="http://localhost")
    known = ("method", "url", "headers", "params", "data", "json", "cookies", "files")
    raw = requests.Request(**{name: wanted[name] for name in known if name in wanted}).prepare()
    return client.request(str(raw.method), str(raw.url), content=raw.body, headers=dict(raw.headers))
