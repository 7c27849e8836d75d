"""An alertmanager.yml: which alerts get to the gateway, and with which pace."""

from datetime import timedelta
from pathlib import Path

import pytest

from app.kit.errors import UsageError
from app.replay.prometheus.alertmanager import from_file, without_file
from app.replay.prometheus.notify import Pace
from tests.e2e.processes import EXAMPLES

GATEWAY = "http://gateway:8090/api/v1/webhooks/alertmanager"
TREE = """
route:
  receiver: nobody
  group_by: [alertname, model]
  repeat_interval: 3h
  routes:
    - {matchers: ['alertname=~"Disk.*"'], receiver: pager}
    - matchers: [team="ml"]
      receiver: gateway
      group_wait: 10s
      continue: true
      routes:
        - {match: {severity: critical}, group_by: ['...'], group_interval: 1m}
        - {match_re: {severity: "info|debug"}, receiver: nobody}
    - {matchers: ['model!=""'], receiver: quiet}
receivers:
  - {name: nobody}
  - {name: pager, webhook_configs: [{url: "http://pager/hook"}]}
  - {name: gateway, webhook_configs: [{url: "HOOK"}]}
  - {name: quiet, webhook_configs: [{url: "HOOK/", send_resolved: false}]}
"""


def seconds(pace: Pace) -> tuple[float, float, float]:
    return tuple(t.total_seconds() for t in (pace.group_wait, pace.group_interval, pace.repeat_interval))  # type: ignore[return-value]


def write(folder: Path, text: str) -> Path:
    file = folder / "alertmanager.yml"
    file.write_text(text.replace("HOOK", GATEWAY))
    return file


ALERTS: dict[str, tuple[dict[str, str], list[tuple[str, tuple[float, float, float], tuple[str, ...] | None, bool]]]] = {
    "to another receiver": ({"alertname": "DiskFull", "team": "ml"}, []),
    "to the receiver at the top": ({"alertname": "x"}, []),
    "to the gateway": ({"team": "ml"}, [("route.routes.1", (10, 300, 10800), ("alertname", "model"), True)]),
    "of a child": ({"team": "ml", "severity": "critical"}, [("route.routes.1.routes.0", (10, 60, 10800), None, True)]),
    "of a child to nobody": ({"team": "ml", "severity": "info"}, []),
    "twice, by continue": (
        {"team": "ml", "model": "churn"},
        [
            ("route.routes.1", (10, 300, 10800), ("alertname", "model"), True),
            ("route.routes.2", (30, 300, 10800), ("alertname", "model"), False),
        ],
    ),
}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_gets_to_the_gateway_as_alertmanager_routes_it(tmp_path: Path, name: str) -> None:
    labels, expected = ALERTS[name]
    ways = from_file(write(tmp_path, TREE), {}).ways(labels)
    assert [(w.name, seconds(w.pace), w.pace.group_by, w.pace.send_resolved) for w in ways] == expected


def test_without_a_gateway_in_the_file_each_alert_keeps_the_pace_that_it_has(tmp_path: Path) -> None:
    routing = from_file(write(tmp_path, TREE.replace("HOOK", "http://other/")), {})
    assert [seconds(way.pace) for way in routing.ways({"team": "ml", "model": "churn"})] == [(10, 300, 10800)]
    assert [seconds(way.pace) for way in routing.ways({})] == [(30, 300, 10800)]
    assert "No receiver in it posts to a gateway" in routing.text


def test_an_option_counts_in_every_route(tmp_path: Path) -> None:
    given = {"group_wait": timedelta(0), "repeat_interval": timedelta(hours=1)}
    routing = from_file(write(tmp_path, TREE), given)
    assert [seconds(way.pace) for way in routing.ways({"team": "ml"})] == [(0, 300, 3600)]
    assert routing.text == "Alertmanager posts as alertmanager.yml says, with group_wait 0s, repeat_interval 1h."
    routing = without_file(["alertname", "model"], given)
    assert routing.text == (
        "Alertmanager posts with group_wait 0s, group_interval 5m, repeat_interval 1h, grouped by alertname, model: "
        "see --alertmanager."
    )


def test_the_file_that_we_ship_is_read() -> None:
    routing = from_file(EXAMPLES / "alertmanager.yml", {})
    assert [seconds(way.pace) for way in routing.ways({"alertname": "ModelAccuracyLow"})] == [(30, 300, 14400)]
    assert [seconds(way.pace) for way in routing.ways({"alertname": "Watchdog"})] == [(0, 60, 60)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", r"alertmanager.yml:1:5: it is not YAML"),
        ("a: 1", "it has no `route`"),
        ("[]", "it has no `route`"),
        ("route: {routes: [1]}", "route.routes.0 is no mapping"),
        ("route: {group_wait: soon}", "route.group_wait: 'soon' is not a duration"),
        ("route: {group_interval: 0s}", "route.group_interval must be longer than 0"),
        ("route: {group_by: model}", "route.group_by is no list"),
        ("route: {routes: [{matchers: ['=x']}]}", "route.routes.0: "),
        ("route: {routes: 5}", "is no configuration of Alertmanager"),
        ("route: {}\nreceivers: [5]", "is no configuration of Alertmanager"),
        ("route: " + "{routes: [" * 60 + "{}" + "]}" * 60, "too deep"),
    ],
)
def test_a_file_that_is_wrong_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_file(write(tmp_path, text), {})
    with pytest.raises(UsageError, match="cannot be read"):
        from_file(tmp_path / "nothing.yml", {})
