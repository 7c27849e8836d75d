"""Traces: what a collector is sent, and what Airflow is given to go on with. Nothing without an endpoint or the extra."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.kit.telemetry import telemetry, traceparent
from demo.processes import wait_until
from tests import plain
from tests.integration.gateways import REPOSITORY
from tests.integration.processes import WEBHOOK, Process, alert, running, serve_airflow
from tests.servers import TestServers

SENDER = "0af7651916cd43dd8448eb211c80319c"
TRIGGER = UUID("019ab0c4-6f1e-7d35-9c1a-3f0e4a5b6c7d")


class Collector(BaseHTTPRequestHandler):
    """What OTLP over HTTP is sent to."""

    received: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not on our output."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Collector]]:
    kind = type("Own", (Collector,), {"received": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield kind
    server.shutdown()


def spans(collector: type[Collector]) -> dict[str, Any]:
    """By their names; of several with one name the last."""
    parts = [part for request in list(collector.received) for part in request.resource_spans]
    return {span.name: span for part in parts for scope in part.scope_spans for span in scope.spans}


@pytest.mark.slow
async def test_a_trigger_is_one_trace_that_its_dag_run_can_go_on_with(
    servers: TestServers, database: str, tmp_path: Path, collector: type[Collector]
) -> None:
    with serve_airflow() as (airflow, url):
        airflow.add_dag("retrain_model")
        variables = {"database_url": database, "redis_url": servers.valkey.url, "log_level": "warning"}
        process = Process(tmp_path, variables, airflow=url)
        async with running(process), plain.client() as client:
            headers = {"traceparent": f"00-{SENDER}-b7ad6b7169203331-01"}
            answer = await client.post(process.url + WEBHOOK, json={"alerts": [alert("churn")]}, headers=headers)
            trigger = UUID(answer.json()["decisions"][0]["trigger_id"])

            async def spans_arrived() -> bool:
                return {"trigger", "deliver", f"POST {WEBHOOK}"} <= spans(collector).keys()

            await wait_until("the spans", spans_arrived, within=60)
            await asyncio.to_thread(process.get, "/livez")
        found = spans(collector)
    request, root, attempt = found[f"POST {WEBHOOK}"], found["trigger"], found["deliver"]
    assert request.trace_id.hex() == SENDER, "the sender's trace goes on in the request"
    assert root.trace_id.hex() == attempt.trace_id.hex() == trigger.hex
    assert (root.parent_span_id, attempt.parent_span_id) == (b"", root.span_id)
    assert {a.key: a.value.string_value for a in attempt.attributes}["gateway.outcome"] == "ok"
    [post] = airflow.posts
    assert post["conf"]["gateway"]["traceparent"] == f"00-{trigger.hex}-{root.span_id.hex()}-01"
    assert post["conf"]["gateway"]["schema"] == 1
    assert "GET /livez" not in found
    [service] = {a.value.string_value for a in collector.received[0].resource_spans[0].resource.attributes
                 if a.key == "service.name"}  # fmt: skip
    assert service == "trigger-gateway"


TRACING = """
from uuid import UUID
from app.kit.telemetry import span, telemetry
with telemetry(), span("deliver", UUID(int=1), {}):
    pass
"""


def test_a_collector_on_this_machine_is_reached_without_the_proxy_of_the_environment(
    collector: type[Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")
    subprocess.run([sys.executable, "-c", TRACING], cwd=REPOSITORY, timeout=120, check=True)
    assert spans(collector).keys() == {"deliver"}


def test_without_an_endpoint_nothing_is_traced() -> None:
    with telemetry():
        assert traceparent(TRIGGER) is None


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_standard_variables_turn_it_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with telemetry():
        assert traceparent(TRIGGER) is None


def test_an_endpoint_without_the_extra_is_told_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with caplog.at_level(logging.WARNING), telemetry():
        assert traceparent(TRIGGER) is None
    assert "install trigger-gateway[otel]" in caplog.text
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
