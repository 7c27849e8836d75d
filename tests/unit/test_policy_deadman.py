"""`deadman:` in a policy file: what is read, and every mistake at its line."""

from datetime import timedelta

import pytest

from app.policy.deadman import Retrain, Switch, heartbeats_of
from app.policy.file.load import Policy, PolicyError, parse_policy
from app.policy.language.cron import Cron

HEAD = """\
version: 1
airflow: [{name: default, url: http://airflow:8080}]
routes:
  - {name: accuracy, match: [a=b], group_by: [model, region], dag: {id: retrain_model}}
  - {name: own, match: [a=c], group_by: [model], dag: {id: "retrain_{{group.model}}"}}
deadman:
"""  # six lines


def load(*entries: str) -> Policy:
    return parse_policy(HEAD + "".join(f"  - {entry}\n" for entry in entries), "p.yaml", {})


def errors_of(*entries: str) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        load(*entries)
    return [str(problem).removeprefix("p.yaml:") for problem in raised.value.problems]


def only(entry: str) -> Switch:
    [switch] = load(entry).deadman
    return switch


def test_a_retrain_has_the_contracts_defaults() -> None:
    switch = only("{name: churn, expect: {retrain: accuracy, group: {model: churn}}, every: 7d}")
    assert switch.expect == Retrain(retrain="accuracy", group={"model": "churn"}, outcome="success", started_by="any")
    assert (switch.kind, switch.every, switch.grace) == ("retrain", timedelta(days=7), timedelta(0))
    assert (switch.receivers, switch.repeat, switch.timezone) == ((), None, "UTC")


def test_every_is_a_duration_or_a_cron_expression_in_a_time_zone() -> None:
    madrid = only('{name: a, expect: heartbeat, every: "0 3 * * 1", timezone: Europe/Madrid}')
    assert madrid.every == Cron("0 3 * * 1", "Europe/Madrid")
    assert only('{name: a, expect: heartbeat, every: "@X 3 * * 1"}'.replace("@X", "0")).every == Cron("0 3 * * 1")


def test_for_each_makes_a_switch_of_each_combination() -> None:
    switch = only(
        '{name: "{{group.model}}-{{group.region}}", expect: {retrain: accuracy}, '
        "for_each: {model: [churn, fraud], region: [eu]}, every: 7d}"
    )
    made = {instance.name: instance.labels for instance in switch.instances()}
    assert made == {
        "churn-eu": {"model": "churn", "region": "eu"},
        "fraud-eu": {"model": "fraud", "region": "eu"},
    }
    seen = switch.seen({"model": "ltv", "region": "us", "severity": "critical"})
    assert seen is not None
    assert (seen.name, seen.labels) == ("ltv-us", {"model": "ltv", "region": "us"})
    assert switch.seen({"model": "ltv", "region": ""}) is None


def test_a_heartbeat_with_matchers_is_an_alert_and_without_them_a_ping() -> None:
    policy = load(
        '{name: "alive-{{group.cluster}}", expect: heartbeat, match: [\'alertname="Watchdog"\'], '
        "for_each: {cluster: [eu]}, every: 5m}",
        "{name: export, expect: heartbeat, every: 1d}",
    )
    assert [switch.kind for switch in policy.deadman] == ["alert", "ping"]
    watchdog = {"alertname": "Watchdog", "cluster": "us"}
    assert [instance.name for instance in heartbeats_of(policy.deadman, watchdog)] == ["alive-us"]
    assert heartbeats_of(policy.deadman, {"alertname": "Watchdog"}) == []
    assert heartbeats_of(policy.deadman, {"alertname": "Other", "cluster": "us"}) == []
    assert heartbeats_of(policy.deadman, {"alertname": "Watchdog", "cluster": "x" * 200}) == []


def test_a_gateways_own_alarm_is_no_heartbeat() -> None:
    """Else a switch that is down would be up by telling of it, through an Alertmanager that tells the gateway everything."""
    policy = load("{name: alive, expect: heartbeat, match: ['severity=\"critical\"'], every: 5m}")
    own = {"alertname": "TriggerGatewaySwitchDown", "severity": "critical", "notice": "trigger-gateway/deadman:alive"}
    assert heartbeats_of(policy.deadman, own) == []
    assert len(heartbeats_of(policy.deadman, own | {"alertname": "Other"})) == 1


def test_a_switch_that_names_no_receivers_tells_every_one_and_an_empty_list_nobody() -> None:
    text = (
        HEAD
        + "  - {name: a, expect: heartbeat, every: 1d}\n  - {name: b, expect: heartbeat, every: 1d, receivers: []}\n"
    )
    two = "receivers: [{name: ops, slack: {url: https://s.example}}, {name: oncall, slack: {url: https://s.example}}]\n"
    policy = parse_policy(text + two, "p.yaml", {})
    assert [switch.receivers for switch in policy.deadman] == [("ops", "oncall"), ()]


def test_the_hash_follows_the_meaning() -> None:
    hourly = load("{name: a, expect: heartbeat, every: 60m}").hash
    assert load("{name: a, expect: heartbeat, every: 1h, grace: 0s}").hash == hourly
    assert load("{name: a, expect: heartbeat, every: 2h}").hash != hourly


PING = "name: a, expect: heartbeat, every: 1d"
MISTAKES = [
    ("{}", ["every: required", "expect: required", "name: required"]),
    ("{name: a, expect: ping, every: 1d}", ["expect: must be heartbeat, or name a route: {retrain: accuracy}"]),
    ("{name: a, expect: {group: {}}, every: 1d}", ["expect.retrain: required"]),
    (
        "{name: a, expect: {retrain: accuracy, outcome: good, started_by: me}, every: 1d}",
        ["expect.outcome: must be success or any", "expect.started_by: must be any or gateway"],
    ),
    (
        "{name: a, expect: {retrain: accurcy}, every: 1d}",
        ["expect.retrain: no route is called 'accurcy'; did you mean 'accuracy'?"],
    ),
    (
        "{name: a, expect: {retrain: accuracy, group: {modell: x}}, every: 1d}",
        ["expect.group.modell: 'modell' is not in the route's group_by"],
    ),
    (
        '{name: "{{group.model}}", expect: {retrain: accuracy, group: {model: x}}, for_each: {model: [y]}, every: 1d}',
        ["for_each.model: is in expect.group too"],
    ),
    (
        "{name: a, expect: {retrain: own}, every: 1d}",
        ["expect: must name 'model': the DAG of the route is 'retrain_{{group.model}}', another DAG for each value"],
    ),
    ("{name: a, expect: {retrain: accuracy}, match: [a=b], every: 1d}", ["match: is for a heartbeat; a retrain"]),
    ('{name: "{{group.x}}", expect: heartbeat, every: 1d}', ["name: 'x' is not in for_each"]),
    ('{name: "{{x}}", expect: heartbeat, every: 1d}', ["name: only {{group.label}}"]),
    (f"{{{PING}, for_each: {{x: [y]}}}}", ["name: must hold {{group.x}}: each value makes its own switch"]),
    (f"{{{PING}, for_each: [x]}}", ["for_each: must be a mapping"]),
    (f"{{{PING}, for_each: {{x: [1]}}}}", ["for_each.x.0: must be text"]),
    (f"{{{PING}, match: []}}", ["match: is empty; leave it out for a heartbeat by ping"]),
    (f"{{{PING}, match: ['a']}}", ["match.0: expected"]),
    (f"{{{PING}, timezone: Mars/Base}}", ["timezone: there is no time zone 'Mars/Base'"]),
    (f"{{{PING}, repeat: 0s}}", ["repeat: must be longer than 0s"]),
    (f"{{{PING}, receivers: [oncal]}}", ["receivers.0: no receiver is called 'oncal'; there is none"]),
    (f"{{{PING}, graze: 1h}}", ["graze: unknown key; did you mean grace?"]),
    ("{name: a, expect: heartbeat, every: 0s}", ["every: must be longer than 0s"]),
    ("{name: a, expect: heartbeat, every: daily}", ["every: 'daily' is not a duration"]),
    (
        "{name: a, expect: heartbeat, every: 0 3 * *}",
        ["every: '0 3 * *' is not a cron expression: it needs five fields"],
    ),
    ("{name: a, expect: heartbeat, every: 5}", ["every: must be a duration such as 7d, or a cron expression"]),
    ("{name: my export, expect: heartbeat, every: 1d}", ["name: 'my export' cannot be in the address of a ping"]),
    (f"{{name: {'x' * 151}, expect: heartbeat, every: 1d}}", ["is not a valid name: at most 150 printable characters"]),
]


@pytest.mark.parametrize(("entry", "mistakes"), MISTAKES, ids=[entry for entry, _ in MISTAKES])
def test_a_mistake_is_told_at_its_place(entry: str, mistakes: list[str]) -> None:
    lines = errors_of(entry)
    assert len(lines) == len(mistakes), lines
    for line, mistake in zip(sorted(lines, key=lambda text: text.split(": ", 1)[1]), sorted(mistakes), strict=True):
        assert line.startswith("7:"), line
        assert mistake in line, line


def test_two_switches_of_one_name_are_told() -> None:
    each = '{name: "{{group.x}}", expect: heartbeat, match: [a=b], for_each: {x: [a, b]}, every: 1d}'
    assert errors_of(each, f"{{{PING}}}") == ["8:12: deadman.1.name: another switch is called 'a' already"]


@pytest.mark.parametrize(
    ("template", "name", "hit"),
    [
        ("{{group.x}}", "prometheus-alive", True),
        ("{{group.x}}-alive", "prometheus-alive", True),
        ("prometheus-{{group.x}}", "prometheus-alive", True),
        ("{{group.x}}-alive", "prometheus-up", False),
        ("{{group.x}}-alive", "-alive", False),
    ],
)
def test_a_value_that_an_alert_brings_cannot_make_the_name_of_another_entry(
    template: str, name: str, hit: bool
) -> None:
    other = f"{{name: {name}, expect: heartbeat, every: 1d}}"
    each = f'{{name: "{template}", expect: heartbeat, match: [a=b], for_each: {{x: []}}, every: 1d}}'
    of_pings = f'{{name: "{template}", expect: heartbeat, for_each: {{x: [z]}}, every: 1d}}'
    assert load(other, of_pings), "alerts bring nothing there"
    if not hit:
        assert load(other, each)
        return
    sentence = f"an alert's label can make it {name!r}, the name of another switch: begin or end it otherwise"
    assert errors_of(other, each) == [f"8:12: deadman.1.name: {sentence}"]


def test_too_many_switches_are_told() -> None:
    values = ", ".join(f"v{number}" for number in range(40))
    entry = (
        '{name: "{{group.x}}{{group.y}}", expect: heartbeat, match: [a=b], '
        f"for_each: {{x: [{values}], y: [{values}]}}, every: 1d}}"
    )
    assert errors_of(entry) == ["7:3: deadman: these are more than 1000 switches"]


def test_check_needs_no_variables() -> None:
    text = HEAD + '  - {name: "a${A}", expect: "${B}", every: "${C}", timezone: "${D}", grace: "${E}"}\n'
    assert parse_policy(text, "p.yaml", {}, require_env=False).deadman[0].kind == "ping"
