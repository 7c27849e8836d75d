"""What `confirm` is told by a real Prometheus: yes, no, no data, and a query that it refuses."""

from collections.abc import Iterator

import pytest

from app.groups.prometheus import Outcome
from app.groups.prometheus import Prometheus as Asks
from app.kit.clock import SystemClock
from app.kit.embedded.processes import free_ports
from app.kit.http import open_http
from app.policy.confirm import Confirm
from app.policy.language.promql import render_query
from tests.e2e.processes import Model, Prometheus

CASES = [
    ('model_accuracy{model="{{group.model}}"} < 0.85', "worse", Outcome.YES),
    ('model_accuracy{model="{{group.model}}"} < 0.85', "better", Outcome.NO),
    ('model_accuracy{model="{{group.model}}"} < bool 0.85', "worse", Outcome.YES),
    ('model_accuracy{model="{{group.model}}"} < bool 0.85', "better", Outcome.NO),
    ('scalar(model_accuracy{model="{{group.model}}"} < bool 0.85)', "worse", Outcome.YES),
    ('scalar(model_accuracy{model="{{group.model}}"})', "nobody", Outcome.NO),
    ('model_accuracy{model="{{group.model}}"} * NaN', "worse", Outcome.NO),
    ('model_accuracy{model="{{group.model}}"}', 'a"} or vector(1) or x{a="', Outcome.NO),
    ('model_accuracy{model="{{group.model}}"}', "back\\slash\nand 'quotes'", Outcome.NO),
    ("model_accuracy{model='{{group.model}}'}", "worse", Outcome.YES),
    ('model_accuracy{model=~"{{group.model}}"}', ".*", Outcome.NO),
    ('model_accuracy{model=~"{{group.model}}|wors."}', "better", Outcome.YES),
    ('model_accuracy{model="{{group.model}}"}[5m]', "worse", Outcome.ERROR),
    ('"{{group.model}}"', "worse", Outcome.ERROR),
    ('model_accuracy{model="{{group.model}}"', "worse", Outcome.ERROR),
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
async def test_a_real_prometheus_says(measured: Prometheus, query: str, model: str, expected: Outcome) -> None:
    clock = SystemClock()
    async with open_http() as http:
        confirm = Confirm.model_validate({"prometheus": measured.url, "query": query, "on_error": "suppress"})
        outcome, answer = await Asks(http, clock).ask(confirm, render_query(query, {"model": model}))
    assert (outcome, answer.confirmed) == (expected, expected is Outcome.YES), answer.detail
