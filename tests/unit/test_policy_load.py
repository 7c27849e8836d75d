"""A good policy file becomes a frozen Policy with every default and variable filled in."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from app.policy.file.load import Policy, parse_policy
from app.policy.language.templates import render
from app.policy.schema import Route
from app.policy.values import PasswordAuth, TokenAuth, TokenFileAuth

HEAD = "version: 1\nairflow: [{name: default, url: http://airflow:8080}]\n"
MINIMAL = HEAD + "routes:\n- match: ['severity=\"critical\"']\n  dag: {id: retrain}\n"

# The sample of the contract, without the keys of later versions.
CONTRACT = """\
version: 1
airflow:
  - name: default
    url: http://127.0.0.1:8080
    api: v2                              # v2: Airflow 3; v1: Airflow 2
    auth: {username: gateway, password: "${AIRFLOW_PASSWORD}"}   # or {token: ...} or {token_file: ...}
    max_parallel: 4
routes:                                  # first match wins
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"', 'severity=~"critical|warning"']
    group_by: [model]
    debounce: 10m
    cooldown: 24h
    refire: true
    on_failure: release
    failure_backoff: 30m
    run_timeout: 24h
    stale_after: 6h
    dag: {airflow: default, id: retrain_model, conf: {dataset: "s3://features/{{group.model}}"}}
    mode: live
"""


def load(text: str, env: dict[str, str] | None = None, *, require_env: bool = True) -> Policy:
    return parse_policy(text, "p.yaml", env or {}, require_env=require_env)


def only_route(text: str) -> Route:
    (route,) = load(text).routes
    return route


def test_the_sample_of_the_contract_loads_whole() -> None:
    policy = load(CONTRACT, {"AIRFLOW_PASSWORD": "s3cret"})
    (airflow,) = policy.airflow
    assert (airflow.name, airflow.url, airflow.api, airflow.max_parallel) == (
        "default",
        "http://127.0.0.1:8080",
        "v2",
        4,
    )
    assert isinstance(airflow.auth, PasswordAuth)
    assert (airflow.auth.username, airflow.auth.password.get_secret_value()) == ("gateway", "s3cret")
    (route,) = policy.routes
    assert [str(matcher) for matcher in route.match] == ['alertname="ModelAccuracyLow"', 'severity=~"critical|warning"']
    assert (route.name, route.group_by, route.debounce) == ("accuracy", ("model",), timedelta(minutes=10))
    assert render(route.dag.conf, {"model": "churn"}) == {"dataset": "s3://features/churn"}
    assert ["has no limit" in str(warning) for warning in policy.warnings] == [True]


def test_three_lines_of_route_take_every_default() -> None:
    route = only_route(MINIMAL)
    assert route.model_dump(exclude={"match", "dag"}) == {
        "name": "retrain",
        "group_by": (),
        "debounce": timedelta(0),
        "cooldown": timedelta(hours=24),
        "refire": True,
        "on_failure": "release",
        "failure_backoff": timedelta(minutes=30),
        "run_timeout": timedelta(hours=24),
        "stale_after": timedelta(hours=6),
        "limit": None,
        "mute": (),
        "confirm": None,
        "mode": "live",
        "effect": {"settle": timedelta(hours=6), "watch": timedelta(days=7)},
        "on_no_effect": {"after": 3, "then": "tell", "receivers": None},
        "notify": None,
        "openlineage": None,
        "lineage": True,
    }
    assert route.dag.model_dump() == {"airflow": "default", "id": "retrain", "conf": {}}
    assert load(MINIMAL).airflow[0].model_dump(exclude={"name", "url"}) == {
        "api": "v2",
        "auth": None,
        "max_parallel": None,
    }


def test_an_alert_of_an_id_a_severity_and_a_time_finds_a_three_line_route() -> None:
    route = load(MINIMAL).route_for({"alertname": "a-1", "severity": "critical"})
    assert route is not None
    assert route.group({"alertname": "a-1", "severity": "critical"}) == {}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("group_by", "[model, region]", ("model", "region")),
        ("debounce", "1d12h", timedelta(hours=36)),
        ("debounce", "0", timedelta(0)),
        ("cooldown", "0s", timedelta(0)),
        ("refire", "false", False),
        ("on_failure", "keep", "keep"),
        ("failure_backoff", "90s", timedelta(seconds=90)),
        ("run_timeout", "2d", timedelta(days=2)),
        ("stale_after", "4h30m", timedelta(hours=4, minutes=30)),
        ("mode", "shadow", "shadow"),
    ],
)
def test_a_value_comes_from_the_route_or_else_from_defaults(key: str, value: str, expected: object) -> None:
    assert getattr(only_route(f"{MINIMAL}  {key}: {value}"), key) == expected
    assert getattr(only_route(f"{MINIMAL}defaults: {{{key}: {value}}}"), key) == expected
    other = {"group_by": "[other]", "refire": "true", "on_failure": "release", "mode": "live"}.get(key, "9h")
    assert getattr(only_route(f"{MINIMAL}  {key}: {value}\ndefaults: {{{key}: {other}}}"), key) == expected


@pytest.mark.parametrize(
    ("dag_id", "name"),
    [
        ("retrain_model", "retrain_model"),
        ("Retrain.Model", "retrain-model"),
        ("Team.Retrain-.v2", "team-retrain-v2"),
        ("_private_", "private"),
        ("ré-entraîner", "r-entra-ner"),
        ("x" * 250, "x" * 63),
    ],
)
def test_a_route_without_a_name_takes_one_from_its_dag(dag_id: str, name: str) -> None:
    assert only_route(f"{HEAD}routes: [{{match: [], dag: {{id: '{dag_id}'}}}}]").name == name


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ("{token: '${TOKEN}'}", TokenAuth.model_validate({"token": "t0k"})),
        ("{token_file: /run/token}", TokenFileAuth(token_file="/run/token")),
        ("", None),
        ("{username: u, password: p}", PasswordAuth.model_validate({"username": "u", "password": "p"})),
    ],
)
def test_each_kind_of_auth_is_told_by_its_keys(auth: str, expected: object) -> None:
    text = f"version: 1\nairflow: [{{name: a, url: http://a, auth: {auth}}}]\nroutes: []"
    policy = load(text, {"TOKEN": "t0k"})
    assert policy.airflow[0].auth == expected
    assert "t0k" not in repr(policy)


@pytest.mark.parametrize(
    ("names", "written", "expected"),
    [
        (["default"], None, "default"),
        (["prod"], None, "prod"),
        (["prod", "default"], None, "default"),
        (["prod", "gpu"], "gpu", "gpu"),
        (["prod", "default"], "prod", "prod"),
    ],
)
def test_a_dag_runs_on_the_named_airflow_or_the_default_or_the_only_one(
    names: list[str], written: str | None, expected: str
) -> None:
    airflow = ", ".join(f"{{name: {name}, url: http://{name}/}}" for name in names)
    dag = "{id: x}" if written is None else f"{{id: x, airflow: {written}}}"
    policy = load(f"version: 1\nairflow: [{airflow}]\nroutes: [{{match: [], dag: {dag}}}]")
    assert policy.routes[0].dag.airflow == expected
    found = policy.airflow_named(expected)
    assert found is not None
    assert found.url == f"http://{expected}"
    assert policy.airflow_named("other") is None


ROUTES = """\
- {name: critical, match: ['severity="critical"', 'team=~"ml|ds"'], group_by: [model, region], dag: {id: a}}
- {name: drift, match: ['{alertname=~"Drift.*", env!="dev"}'], dag: {id: b}}
- {name: rest, match: ['alertname!=""'], dag: {id: c}}
"""


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"severity": "critical", "team": "ml", "alertname": "DriftHigh"}, "critical"),
        ({"severity": "critical", "team": "ops", "alertname": "DriftHigh"}, "drift"),
        ({"severity": "critical", "alertname": "DriftHigh", "env": "dev"}, "rest"),
        ({"alertname": "Drift"}, "drift"),
        ({"alertname": "Other"}, "rest"),
        ({"severity": "critical"}, None),
        ({}, None),
    ],
)
def test_the_first_route_whose_matchers_all_hold_takes_the_alert(labels: dict[str, str], expected: str | None) -> None:
    policy = load(f"{HEAD}routes:\n{ROUTES}")
    found = policy.route_for(labels)
    assert (found.name if found else None) == expected
    assert found is None or (found.matches(labels) and policy.route(found.name) is found)
    assert policy.route("missing") is None


def test_a_group_is_exactly_group_by_in_its_order_and_what_is_missing_is_empty() -> None:
    route = load(f"{HEAD}routes:\n{ROUTES}").routes[0]
    group = route.group({"region": "eu", "severity": "critical"})
    assert list(group.items()) == [("model", ""), ("region", "eu")]


@pytest.mark.parametrize("field", ["hash", "routes"])
def test_a_policy_cannot_be_changed(field: str) -> None:
    policy = load(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(policy, field, "other")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("'${A}'", "alpha"),
        ("'x-${A}-${B_2}'", "x-alpha-beta"),
        ('"${A}${A}"', "alphaalpha"),
        ("'$${A}'", "${A}"),
        ("'$$${A}'", "$${A}"),
        ("'$A $ {A}'", "$A $ {A}"),
        ("'${EMPTY}'", ""),
        ("'${YES}'", "yes: [1"),
        ("'${TWICE}'", "${A}"),
        ("'${FILE}/${FILE}'", " of two\nlines/ of two\nlines"),
    ],
)
def test_variables_are_filled_once_and_as_text(written: str, expected: str) -> None:
    env = {"A": "alpha", "B_2": "beta", "EMPTY": "", "YES": "yes: [1", "TWICE": "${A}", "FILE": " of two\nlines\r\n"}
    policy = load(f"{HEAD}routes: [{{name: r, match: [], dag: {{id: x, conf: {{v: {written}}}}}}}]", env)
    assert policy.routes[0].dag.conf == {"v": expected}


def test_keys_are_not_filled() -> None:
    policy = load(f"{HEAD}routes: [{{match: [], dag: {{id: x, conf: {{'${{A}}': 1}}}}}}]", {"A": "alpha"})
    assert policy.routes[0].dag.conf == {"${A}": 1}


EVERYWHERE = """\
version: 1
airflow: [{name: "${V}", url: "${V}", api: "${V}", auth: {username: "${V}", password: "${V}"}}]
routes:
- {name: "${V}", match: ["${V}"], group_by: ["${V}"], debounce: "${V}", run_timeout: "${V}", on_failure: "${V}",
   mode: "${V}", dag: {airflow: "${V}", id: "${V}", conf: {a: ["${V}"]}}}
"""


def test_check_needs_no_variable_wherever_it_stands() -> None:
    policy = load(EVERYWHERE, require_env=False)
    assert policy.warnings == ()
    assert (policy.airflow[0].url, policy.routes[0].dag.id, policy.routes[0].on_failure) == ("${V}", "${V}", "release")
