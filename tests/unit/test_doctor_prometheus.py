"""`doctor` asks the Prometheus of each `confirm` one query, with its login."""

import json
from typing import Any

import httpx
import pytest

from app.cli.doctor.finding import Finding
from app.cli.doctor.prometheus import examine_prometheus
from app.kit.http import open_http
from app.policy.file.load import parse_policy
from tests.fakes.clock import ManualClock
from tests.fakes.prometheus import FakePrometheus

POLICY = """
version: 1
airflow: [{name: default, url: "http://airflow.test"}]
routes:
  - {name: plain, match: ['a="b"'], dag: {id: retrain}}
  - {name: asking, match: [], dag: {id: retrain}, confirm: {prometheus: "http://prometheus.test", query: "up"}}
"""


async def examined(status: int, body: Any = None, *, has_login: bool = True) -> Finding:
    clock = ManualClock()
    answer = json.dumps(FakePrometheus(clock).vector(1) if body is None else body)

    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.params["query"] == "vector(1)"
        return httpx.Response(status, text=answer, headers={"Content-Type": "application/json"})

    policy = parse_policy(POLICY, "p.yaml", {})
    async with open_http(transport=httpx.MockTransport(handle)) as http:
        [finding] = await examine_prometheus(policy, http, clock, has_login=has_login)
    assert finding.check == "confirm of route asking"
    return finding


@pytest.mark.parametrize(
    ("status", "body", "level", "part"),
    [
        (200, None, "ok", "http://prometheus.test answers a query"),
        (401, "", "fail", "it answered 401: check auth and headers of confirm in the policy"),
        (401, {"error": "no org id"}, "fail", "it answered 401: no org id"),
        (200, "<html>", "fail", "it answered 200"),
        (302, "", "fail", "it answered 302"),
    ],
)
async def test_an_answer_and_what_it_means(status: int, body: Any, level: str, part: str) -> None:
    finding = await examined(status, body)
    assert (finding.level, part in finding.detail) == (level, True)


async def test_without_the_values_of_the_policy_nothing_is_asked() -> None:
    assert (await examined(500, has_login=False)).level == "warn"
