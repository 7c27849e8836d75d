"""The Grafana dashboard and the alert rules of the gateway itself ask for metrics that there are."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.kit.metrics import Metrics

EXAMPLES = Path(__file__).parents[2] / "examples"
DASHBOARD: dict[str, Any] = json.loads((EXAMPLES / "grafana/dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
#: Of a metric with labels, what stands in `by (...)` and in `{...}` must be among them; `instance` is Prometheus' own.
OWN_LABELS = {"instance", "le"}


def exposed() -> dict[str, set[str]]:
    """Every series that the gateway can show, with its labels."""
    found: dict[str, set[str]] = {}
    for collector in Metrics().registry._collector_to_names:
        name, labels = collector._name, set(collector._labelnames)  # type: ignore[attr-defined]
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
        for suffix in suffixes.get(collector._type, [""]):  # type: ignore[attr-defined]
            found[name + suffix] = labels
    return found


def expressions() -> list[str]:
    rules = yaml.safe_load((EXAMPLES / "rules/gateway.yml").read_text())["groups"][0]["rules"]
    drawn = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return drawn + [rule["expr"] for rule in rules]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_asks_for_metrics_and_labels_that_there_are(expression: str) -> None:
    known = exposed()
    named = set(re.findall(r"\bgateway_\w+", expression))
    assert named
    assert named <= set(known)
    grouped = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", expression) for label in by.split(",")}
    selected = set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!=)", expression))
    labels = {label for name in named for label in known[name]} | OWN_LABELS
    assert grouped | selected <= labels


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_asks_the_chosen_source(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        grouped = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in by.split(",")}
        assert shown <= grouped


def test_panels_have_ids_of_their_own_and_do_not_cover_each_other() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for left, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        apart_x = left["x"] + left["w"] <= other["x"] or other["x"] + other["w"] <= left["x"]
        apart_y = left["y"] + left["h"] <= other["y"] or other["y"] + other["h"] <= left["y"]
        assert apart_x or apart_y


def test_the_variables_are_those_that_are_used() -> None:
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(PANELS))) - {"__rate_interval"}
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == used
