"""What the tests of the HTTP surface share: a policy with a route for each behaviour, bodies, and a fresh word."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from app.kit.clock import SystemClock
from app.web.tokens import create_token
from tests.acceptance.world import ZERO, World
from tests.fakes.clock import NOON
from tests.servers import TestServers

POLICY = """
version: 1
airflow:
  - {name: default, url: "http://airflow.test:8080", auth: {username: gateway, password: gateway}}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    dag: {id: retrain_model}
  - name: drift
    match: ['alertname="Drift"']
    group_by: [model]
    debounce: 10m
    dag: {id: retrain_model}
  - name: once
    match: ['alertname="Once"']
    group_by: [model]
    cooldown: 1h
    refire: false
    dag: {id: retrain_model}
"""

ALERTMANAGER = "/api/v1/webhooks/alertmanager"
GRAFANA = "/api/v1/webhooks/grafana"
CLOUDEVENTS = "/api/v1/webhooks/cloudevents"
NATIVE = "/api/v1/alerts"
DECISION_KEYS = [
    "alert_id",
    "fingerprint",
    "status",
    "route",
    "group",
    "action",
    "reason",
    "trigger_id",
    "until",
    "detail",
]
PROBLEM_KEYS = {"type", "title", "status", "detail", "instance", "code"}


def word() -> str:
    """A word that no other test has used."""
    return secrets.token_hex(6)


def webhook_alert(name: str = "ModelAccuracyLow", *, starts_at: datetime = NOON, **labels: Any) -> dict[str, Any]:
    """One alert as Alertmanager sends it."""
    return {
        "status": "firing",
        "labels": {"alertname": name, "severity": "critical", **labels},
        "annotations": {},
        "startsAt": starts_at.isoformat(),
        "endsAt": ZERO,
        "generatorURL": "http://prometheus.test/graph",
        "fingerprint": word(),
    }


def notification(*alerts: Any) -> dict[str, Any]:
    """One body of Alertmanager's webhook."""
    return {"version": "4", "status": "firing", "receiver": "gateway", "groupKey": word(), "alerts": list(alerts)}


def native_alert(alert_id: str = "ModelAccuracyLow", **more: Any) -> dict[str, Any]:
    """The smallest alert, and what a test adds to it."""
    return {"alert_id": alert_id, "severity": "critical", "timestamp": NOON.isoformat(), **more}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error answer, which must be a problem of that status and code."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert body.keys() >= PROBLEM_KEYS
    assert (body["status"], body["code"]) == (status, code), body
    assert body["detail"].endswith((".", "?", "!")), f"not a sentence: {body['detail']}"
    return body


def cloud_event(**more: Any) -> dict[str, Any]:
    """The smallest event that is an alert, in structured mode, and what a test adds to its data."""
    event = {"specversion": "1.0", "id": word(), "source": "/monitor", "type": "drift", "time": NOON.isoformat()}
    return event | {"data": {"severity": "critical", **more}}


@asynccontextmanager
async def opened(servers: TestServers, database: str, **more: Any) -> AsyncIterator[World]:
    """A World with this policy and the DAG that it names."""
    async with World(servers, database, more.pop("policy", POLICY), **more) as world:
        world.airflow.add_dag("retrain_model")
        yield world


def token_of(folder: Path, *scopes: str) -> dict[str, str]:
    """The header of a new token in the folder's tokens file; the first one closes the gateway to everybody else."""
    text = create_token(folder / "tokens", scopes, f"{'-'.join(scopes)}-{word()}", SystemClock().now())
    return {"Authorization": f"Bearer {text}"}
