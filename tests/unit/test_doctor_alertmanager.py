"""Alertmanager's configuration against the policy: what costs alerts silently is told, with what to do."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.doctor.alertmanager import WEBHOOK, judge
from app.cli.doctor.finding import Finding
from app.policy.file.starter import alertmanager_receiver
from tests.unit.builders import policy

EXAMPLES = Path(__file__).parents[2] / "examples"
GATEWAY = "http://gateway:8090"
ACCURACY: dict[str, Any] = {"name": "accuracy", "match": ['alertname="Low"'], "debounce": "10m"}
HOOK: dict[str, Any] = {"url": GATEWAY + WEBHOOK}


def config(hook: dict[str, Any] | None = None, name: str = "gw", **route: Any) -> dict[str, Any]:
    """One receiver for everything; `hook` overrides its members."""
    webhook = {"name": name, "webhook_configs": [HOOK | (hook or {})]}
    return {"route": {"receiver": name, **route}, "receivers": [{"name": "people"}, webhook]}


def findings(given: Any, *routes: dict[str, Any], tokens: bool = False) -> tuple[Finding, ...]:
    return judge(given, policy(*(routes or (ACCURACY,))).routes, gateway_url=GATEWAY, tokens=tokens)


def bad(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.check.removeprefix("alertmanager "), finding.level) for finding in found if finding.level != "ok"]


def test_a_good_configuration_is_told_line_by_line() -> None:
    found = findings(config())
    assert bad(found) == []
    assert [finding.check.removeprefix("alertmanager ") for finding in found] == [
        "receiver",
        "send_resolved",
        "max_alerts",
        "route accuracy",
    ]
    assert found[-1].detail == ("leads to 'gw'; debounce 10m > group_interval 5m, stale_after 6h > repeat_interval 4h")


RECEIVER, ROUTE = "receiver", "route accuracy"


@pytest.mark.parametrize(
    ("given", "faults", "words"),
    [
        pytest.param(config({"url": "http://pager/x"}), [(RECEIVER, "fail")], "init", id="no-receiver-is-ours"),
        pytest.param(
            config({"url": GATEWAY + WEBHOOK + "/"}), [(RECEIVER, "fail")], "must end with", id="a-slash-too-many"
        ),
        pytest.param(config({"url": GATEWAY}), [(RECEIVER, "fail")], "404", id="our-host-without-the-path"),
        pytest.param(
            config({"url": "http://proxy/webhooks/alertmanager"}), [(RECEIVER, "fail")], WEBHOOK, id="half-of-the-path"
        ),
        pytest.param(config({"url": "https://proxy/ml" + WEBHOOK}), [], "", id="behind-a-proxy-with-a-prefix"),
        pytest.param(
            config({"url": "<secret>"}, name="trigger-gateway"),
            [(RECEIVER, "warn")],
            "--alertmanager-config",
            id="hidden-but-named-as-init-names-it",
        ),
        pytest.param(
            config({"url": "<secret>"}), [(RECEIVER, "warn")], "--alertmanager-config", id="hidden-but-the-only-one"
        ),
        pytest.param(config({"send_resolved": False}), [("send_resolved", "fail")], "true", id="ends-are-not-told"),
        pytest.param(config({"max_alerts": 20}), [("max_alerts", "fail")], "20", id="alerts-are-left-out"),
        pytest.param(config(group_interval="10m"), [(ROUTE, "fail")], "debounce 10m", id="group_interval-as-debounce"),
        pytest.param(config(group_interval="1h"), [(ROUTE, "fail")], "group_interval 1h", id="group_interval-longer"),
        pytest.param(config(repeat_interval="6h"), [(ROUTE, "fail")], "stale_after 6h", id="repeat-as-stale_after"),
        pytest.param(
            config(repeat_interval="1d"), [(ROUTE, "fail")], "repeat_interval 1d", id="repeat-longer-than-stale_after"
        ),
        pytest.param(
            config(receiver="people"), [(ROUTE, "fail")], "continue: true", id="no-route-leads-to-the-receiver"
        ),
        pytest.param(
            config(receiver="people", routes=[{"receiver": "gw", "matchers": ['alertname="Other"']}]),
            [(ROUTE, "fail")],
            'alertname="Low"',
            id="the-route-is-for-other-alerts",
        ),
        pytest.param(
            config(receiver="people", routes=[{"receiver": "people"}, {"receiver": "gw"}]),
            [(ROUTE, "fail")],
            "take these alerts",
            id="another-route-takes-it-away",
        ),
        pytest.param(
            config(receiver="people", routes=[{"receiver": "gw", "matchers": ['team="ml"']}]),
            [],
            "",
            id="it-may-reach-us",
        ),
        pytest.param({"route": {}, "receivers": "gw"}, [("alertmanager", "fail")], "amtool", id="no-configuration"),
        pytest.param("<html>", [("alertmanager", "fail")], "amtool", id="no-mapping"),
    ],
)
def test_a_fault_is_named_with_what_to_do(given: Any, faults: list[tuple[str, str]], words: str) -> None:
    found = findings(given)
    assert bad(found) == faults
    assert all(finding.next_step for finding in found if finding.level != "ok")
    assert words in " ".join(f"{finding.detail} {finding.next_step}" for finding in found)


@pytest.mark.parametrize(
    ("hook", "tokens", "faults"),
    [
        ({}, False, []),
        ({}, True, [("receiver token", "fail")]),
        ({"http_config": {"follow_redirects": True}}, True, [("receiver token", "fail")]),
        ({"http_config": {"authorization": {"credentials_file": "/etc/t"}}}, True, []),
        ({"http_config": {"authorization": {"credentials": "<secret>"}}}, True, []),
        ({"http_config": {"bearer_token_file": "/etc/t"}}, True, []),
    ],
    ids=["none-needed", "none-sent", "http_config-without-it", "credentials_file", "credentials", "bearer_token_file"],
)
def test_where_a_token_is_needed_the_receiver_must_send_one(
    hook: dict[str, Any], tokens: bool, faults: list[tuple[str, str]]
) -> None:
    assert bad(findings(config(hook), tokens=tokens)) == faults


def test_a_token_of_the_global_http_config_counts() -> None:
    given = config() | {"global": {"http_config": {"authorization": {"credentials": "<secret>"}}}}
    assert bad(findings(given, tokens=True)) == []


def test_two_hidden_receivers_are_not_guessed_at() -> None:
    hidden = {"webhook_configs": [{"url": "<secret>"}]}
    given = {"route": {"receiver": "a"}, "receivers": [{"name": "a", **hidden}, {"name": "b", **hidden}]}
    assert bad(findings(given)) == [("receiver", "warn")]


def test_a_route_that_others_may_feed_is_a_warning_beside_one_that_is_reached() -> None:
    given = config(receiver="people", routes=[{"receiver": "gw", "matchers": ['alertname="Low"']}])
    by_hand = {"name": "by-hand", "match": ['alertname="Asked"']}
    assert bad(findings(given, ACCURACY, by_hand)) == [("route by-hand", "warn")]


@pytest.mark.parametrize("debounce", ["0s", "6m"])
def test_without_a_debounce_the_group_interval_does_not_matter(debounce: str) -> None:
    found = findings(config(group_interval="30m"), ACCURACY | {"debounce": debounce})
    assert bad(found) == ([] if debounce == "0s" else [(ROUTE, "fail")])


def test_the_slowest_way_counts() -> None:
    ways = [{"receiver": "gw", "continue": True}, {"receiver": "gw", "group_interval": "15m"}]
    assert bad(findings(config(routes=ways))) == [(ROUTE, "fail")]


SHIPPED = {"name": "accuracy", "match": ['alertname="ModelAccuracyLow"'], "group_by": ["model"], "debounce": "10m"}


def test_what_we_ship_and_what_init_prints_are_good() -> None:
    shipped = yaml.safe_load((EXAMPLES / "alertmanager.yml").read_text())
    assert bad(findings(shipped, SHIPPED)) == []
    pasted = yaml.safe_load(alertmanager_receiver(GATEWAY))
    pasted["route"]["receiver"] = "people"
    assert bad(findings(pasted, SHIPPED, tokens=True)) == []
