"""The whole way of an alert through a real PgBouncer: migrate, serve, decide, wake, deliver, follow."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from demo.processes import wait_until
from tests import plain
from tests.integration.processes import Process, alert, command, running, serve_airflow
from tests.pgbouncer import pgbouncer, through
from tests.servers import TestServers

pytestmark = pytest.mark.slow

POLICY = """
version: 1
airflow:
  - {{name: default, url: "{airflow}", auth: {{username: gateway, password: gateway}}}}
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"']
    group_by: [model]
    debounce: {debounce}
    dag: {{id: retrain_model}}
"""


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_two_replicas_behind_pgbouncer_start_each_run_once(
    servers: TestServers, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, mode: str
) -> None:
    folder = tmp_path_factory.mktemp("pgbouncer")
    with serve_airflow() as (airflow, airflow_url), pgbouncer(servers.postgres, folder, mode) as port:
        airflow.add_dag("retrain_model")
        airflow.auto_finish = timedelta(seconds=0.5)
        url = through(servers.fresh_database(), servers.postgres, port)
        variables = {"database_url": url, "redis_url": servers.valkey.url, "follow_interval": "0.2"}
        done = command(tmp_path, "migrate", **variables)
        assert done.returncode == 0, done.stderr
        (tmp_path / "policy.yaml").write_text(POLICY.format(airflow=airflow_url, debounce="2s"))
        replicas = [Process(tmp_path, variables | {"redis_prefix": mode}) for _ in range(2)]
        async with running(*replicas):
            models = [f"m{number}" for number in range(12)]
            async with plain.client(timeout=15) as client:
                answers = await asyncio.gather(
                    *(
                        client.post(f"{each.url}/api/v1/webhooks/alertmanager", json={"alerts": [alert(model)]})
                        for model in models
                        for each in replicas
                    )
                )
            assert {answer.status_code for answer in answers} == {202}
            reasons = {decision["reason"] for answer in answers for decision in answer.json()["decisions"]}
            assert reasons <= {"debouncing", "duplicate", "joined"}

            async def all_run() -> bool:
                found = replicas[0].get("/api/v1/triggers")["items"]
                return [each["state"] for each in found] == ["succeeded"] * len(models)

            servers_of = [each.server for each in replicas if each.server is not None]
            await wait_until("every run to succeed", all_run, within=60, servers=servers_of, interval=0.2)
            assert len(airflow.runs) == len(models)
            counts = {item["count"] for item in replicas[1].get("/api/v1/alerts")["items"]}
            assert counts == {2}
            assert replicas[0].get("/readyz")["status"] == "ok"
            found = command(tmp_path, "doctor", **variables).stdout
            assert "postgres pooler" in found
            for server in servers_of:
                assert "Traceback" not in server.log.read_text()
