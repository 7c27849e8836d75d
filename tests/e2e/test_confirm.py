"""What `confirm` is told by a real Prometheus: yes, no, no data, and a query that it refuses."""

from collections.abc import Iterator

import pytest

from app.groups.prometheus import Prometheus as Asks
from app.groups.prometheus import Result
from app.kit.clock import SystemClock
from app.kit.embedded.processes import free_ports
from app.kit.http import open_http
from app.policy.confirm import Confirm
from app.policy.language.promql import render_query
from tests.e2e.processes import Model, Prometheus

CASES = [
    ('model_accuracy{model="{{group.model}}"} < 0.85', "worse", Result.YES),
    ('model_accuracy{model="{{group.model}}"} < 0.85', "better", Result.NO),
    ('model_accuracy{model="{{group.model}}"} < bool 0.85', "worse", Result.YES),
    ('model_accuracy{model="{{group.model}}"} < bool 0.85', "better", Result.NO),
    ('scalar(model_accuracy{model="{{group.model}}"} < bool 0.85)', "worse", Result.YES),
    ('scalar(model_accuracy{model="{{group.model}}"})', "nobody", Result.NO),
    ('model_accuracy{model="{{group.model}}"} * NaN', "worse", Result.NO),
    ('model_accuracy{model="{{group.model}}"}', 'a"} or vector(1) or x{a="', Result.NO),
    ('model_accuracy{model="{{group.model}}"}', "back\\slash\nand 'quotes'", Result.NO),
    ("model_accuracy{model='{{group.model}}'}", "worse", Result.YES),
    ('model_accuracy{model=~"{{group.model}}"}', ".*", Result.NO),
    ('model_accuracy{model=~"{{group.model}}|wors."}', "better", Result.YES),
    ('model_accuracy{model="{{group.model}}"}[5m]', "worse", Result.ERROR),
    ('"{{group.model}}"', "worse", Result.ERROR),
    ('model_accuracy{model="{{group.model}}"', "worse", Result.ERROR),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has measured one model that is worse and one that is better; there is no Alertmanager."""
    page = Model()
    page.set("worse", 0.7)
    page.set("better", 0.9)
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    targets = {"models": page.address, "trigger-gateway": nobody}
    server = Prometheus(tmp_path_factory.mktemp("measured"), free_ports(1)[0], targets, nobody)
    server.start()
    yield server
    server.stop()
    page.stop()


@pytest.mark.parametrize(("query", "model", "expected"), CASES)
async def test_a_real_prometheus_says(measured: Prometheus, query: str, model: str, expected: Result) -> None:
    clock = SystemClock()
    async with open_http() as http:
        confirm = Confirm.model_validate({"prometheus": measured.url, "query": query, "on_error": "suppress"})
        said, answer = await Asks(http, clock).ask(confirm, render_query(query, {"model": model}))
    assert (said, answer.confirmed) == (expected, expected is Result.YES), answer.detail
