"""Alerts about the gateway itself are for people: no route takes them, whatever its matchers."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.builders import policy

RULES = Path(__file__).resolve().parents[2] / "examples" / "rules"


def alerts_of(name: str) -> list[dict[str, str]]:
    """The labels of each alert of a rules file."""
    content: dict[str, Any] = yaml.safe_load((RULES / name).read_text())
    return [{"alertname": rule["alert"]} | rule["labels"] for group in content["groups"] for rule in group["rules"]]


ALARMS = [
    *((labels, False) for labels in alerts_of("gateway.yml")),
    *((labels, True) for labels in alerts_of("model.yml")),
    ({"alertname": "TriggerGatewayRunFailed", "notice": "trigger-gateway/run_failed:accuracy"}, False),
    ({"alertname": "TriggerGatewayRunFailed", "severity": "critical"}, True),
    ({"alertname": "GatewayAway", "notice": "by a person"}, True),
]


@pytest.mark.parametrize(("labels", "taken"), ALARMS, ids=[labels["alertname"] for labels, _ in ALARMS])
def test_a_route_that_takes_everything_takes_no_alarm_about_the_gateway(labels: dict[str, str], taken: bool) -> None:
    assert (policy().route_for(labels) is not None) == taken
