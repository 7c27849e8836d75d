"""What a good policy file tells about itself: its hash, its warnings; and the files that the gateway ships."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from app.policy.deadman import Retrain, Switch
from app.policy.file.load import Policy, load_policy, parse_policy
from app.policy.file.starter import STARTER_POLICY, THIS_MACHINE, alertmanager_receiver
from app.policy.intervals import Interval, TimeInterval
from app.policy.mlflow import Mlflow
from app.policy.promotions import Promotion, Require
from app.policy.receivers import KINDS as RECEIVER_KINDS
from app.policy.receivers import Notify, Receiver
from app.policy.schema import Airflow, Dag, Route

ROOT = Path(__file__).parents[2]
HEAD = "version: 1\nairflow: [{name: default, url: http://airflow:8080}]\n"
MINIMAL = HEAD + "routes:\n- match: ['severity=\"critical\"']\n  dag: {id: retrain}\n"

FULL = """\
version: 1
airflow:
  - name: default
    url: http://127.0.0.1:8080
    auth: {username: gateway, password: "${AIRFLOW_PASSWORD}"}   # a comment
    max_parallel: 4
routes:
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"', 'severity=~"critical|warning"']
    group_by: [model]
    debounce: 10m
    cooldown: 24h
    refire: true
    dag: {airflow: default, id: retrain_model, conf: {dataset: "s3://features/{{group.model}}"}}
"""


def load(text: str, env: dict[str, str] | None = None, *, require_env: bool = True) -> Policy:
    return parse_policy(text, "p.yaml", env or {}, require_env=require_env)


def test_the_hash_is_the_same_with_and_without_the_variables() -> None:
    known = load(FULL, {"AIRFLOW_PASSWORD": "one"})
    assert known.hash == load(FULL, {"AIRFLOW_PASSWORD": "two"}).hash == load(FULL, require_env=False).hash


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(FULL.replace("  #", "    # more\n    #"), id="comments"),
        pytest.param(FULL.replace("    refire: true\n", ""), id="a default left out"),
        pytest.param(FULL.replace("cooldown: 24h", "cooldown: 1d"), id="another way to write a duration"),
        pytest.param(FULL.replace("'severity=~\"critical|warning\"'", '"severity =~ critical|warning,"'), id="matcher"),
        pytest.param(FULL.replace("airflow: default, ", ""), id="the only airflow left out"),
        pytest.param(FULL.replace("    group_by: [model]\n", "") + "defaults: {group_by: [model]}\n", id="defaults"),
    ],
)  # fmt: skip
def test_what_means_the_same_has_the_same_hash(same: str) -> None:
    assert same != FULL
    assert load(same, require_env=False).hash == load(FULL, require_env=False).hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("debounce: 10m", "debounce: 11m"),
        ("critical|warning", "critical"),
        ("max_parallel: 4", "max_parallel: 5"),
        ("username: gateway", "username: other"),
        ("AIRFLOW_PASSWORD", "OTHER_PASSWORD"),
        ("{{group.model}}", "all"),
        ("name: accuracy", "name: accuracies"),
        ("[model]", "[model, region]"),
        ("refire: true", "refire: false"),
        ("version: 1\n", "version: 1\nmlflow: {tracking_uri: http://m}\n"),
        ("version: 1\n", "version: 1\nreceivers: [{name: a, alertmanager: {url: http://am}}]\n"),
        ("version: 1\n", "version: 1\nnotify: {run_failed: []}\n"),
        ("version: 1\n", "version: 1\ntime_intervals: [{name: freeze, time_intervals: [{years: [2030]}]}]\n"),
    ],
)
def test_what_means_something_else_has_another_hash(old: str, new: str) -> None:
    before, after = load(FULL, require_env=False), load(FULL.replace(old, new), require_env=False)
    assert len(before.hash) == 12
    assert before.hash != after.hash


def test_a_literal_secret_is_not_in_the_hash() -> None:
    secrets = [FULL.replace("${AIRFLOW_PASSWORD}", password) for password in ("hunter2", "correct horse")]
    assert load(secrets[0]).hash == load(secrets[1]).hash != load(FULL, require_env=False).hash


SHORT = "shorter than Alertmanager's group_interval (5m): it may fire before the end of an alert arrives"
STALE = "not shorter than stale_after: an alert that is not repeated in time never fires"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["debounce: 0s"], []),
        (["debounce: 5m"], []),
        (["debounce: 4m59s"], [f"6:13: routes.0.debounce: {SHORT}"]),
        (["debounce: 1ms"], [f"6:13: routes.0.debounce: {SHORT}"]),
        (["debounce: 6h"], [f"6:13: routes.0.debounce: {STALE}"]),
        (["debounce: 10m", "stale_after: 5m"], [f"6:13: routes.0.debounce: {STALE}"]),
        (["debounce: ${V}"], []),
    ],
)
def test_a_debounce_that_probably_is_not_meant_is_a_warning(lines: list[str], expected: list[str]) -> None:
    policy = load(MINIMAL + "\n".join(f"  {line}" for line in lines), require_env=False)
    assert [str(warning).removeprefix("p.yaml:") for warning in policy.warnings] == expected


@pytest.mark.parametrize(
    ("lines", "more", "warned"),
    [
        (["group_by: [model]"], "", True),
        (["group_by: [model]", "limit: {triggers: 3, per: 1d}"], "", False),
        (["group_by: [model]"], "\ndefaults: {limit: {triggers: 3, per: 1d}}", False),
        (["group_by: [model]", "mode: shadow"], "", False),
        ([], "", False),
    ],
)
def test_a_route_whose_groups_nobody_limits_is_a_warning_and_no_other_policy(
    lines: list[str], more: str, warned: bool
) -> None:
    policy = load(MINIMAL + "\n".join(f"  {line}" for line in lines) + more)
    found = [str(warning) for warning in policy.warnings]
    assert [("has no limit" in text, "routes.0" in text) for text in found] == [(True, True)] * warned
    limit = policy.routes[0].limit
    assert (limit is None) == (not any("limit" in text for text in (*lines, more))), "nothing is limited by itself"


REFUSED = "two of its times are {} apart, within the route's cooldown of {}: the second one is refused"


@pytest.mark.parametrize(
    ("cron", "more", "refused"),
    [
        pytest.param("0 3 * * *", "", ("1d", "1d"), id="the default cooldown is a day"),
        pytest.param("0 3 * * *", "defaults: {cooldown: 23h}", None, id="of the defaults"),
        pytest.param("0 3 * * 1", "", None, id="weekly"),
        pytest.param("0 3 * * 1,2", "defaults: {cooldown: 2d}", ("1d", "2d"), id="once a week"),
        pytest.param("0 3 * * *", "defaults: {cooldown: '${V}'}", None, id="a cooldown that is not known"),
        pytest.param("${V}", "", None, id="a cron that is not known"),
    ],
)
def test_a_schedule_that_its_own_cooldown_refuses_is_a_warning(
    cron: str, more: str, refused: tuple[str, str] | None
) -> None:
    schedules = f"schedules: [{{name: s, cron: '{cron}', route: retrain}}]"
    policy = load("\n".join([MINIMAL, schedules, more]), require_env=False)
    expected = [f"7:29: schedules.0.cron: {REFUSED.format(*refused)}"] if refused else []
    assert [str(warning).removeprefix("p.yaml:") for warning in policy.warnings] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            MINIMAL + "defaults: {debounce: 1m}", [f"6:22: defaults.debounce: {SHORT}"], id="defaults are told once"
        ),
        pytest.param(HEAD + "routes: []", ["3:9: routes: there is no route: nothing will ever start a DAG run"], id="none"),
        pytest.param(
            HEAD + "routes:\n- {match: [], dag: {id: a}}\n- {match: ['{}'], dag: {id: b}}",
            ["4:11: routes.0.match: this takes every alert: no alert reaches the routes below it"],
            id="a route that hides the others",
        ),
        pytest.param(
            HEAD + r"""routes: [{match: ['x="1"', 'a=~"\d+"'], dag: {id: a}}]""",
            [r"""3:28: routes.0.match.1: only the classic grammar reads this (\d is not an escape; write a backslash """
             r'itself as \\); write a=~"\\d+"'],
            id="the older grammar",
        ),
        pytest.param(
            HEAD + r"""routes: [{match: ['a="\t"'], dag: {id: a}}]""",
            [r"""3:19: routes.0.match.0: the classic and the UTF-8 grammar differ, the classic one holds; write """
             + r'a="\\t"'],
            id="two meanings",
        ),
    ],
)  # fmt: skip
def test_what_is_allowed_and_probably_not_meant_is_a_warning(text: str, expected: list[str]) -> None:
    assert [str(warning).removeprefix("p.yaml:") for warning in load(text).warnings] == expected


def test_the_starter_policy_loads_without_a_word(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(STARTER_POLICY)
    policy = load_policy(file, {"AIRFLOW_USERNAME": "u", "AIRFLOW_PASSWORD": "p"})
    assert (policy.warnings, [route.name for route in policy.routes]) == ((), ["accuracy"])


def test_every_default_in_the_starters_comments_is_the_real_one() -> None:
    lines = STARTER_POLICY.splitlines()
    start = lines.index("# defaults:")
    section = [line.removeprefix("# ") for line in lines[start:] if line.startswith("# ")]
    assert load(MINIMAL + "\n".join(section)).hash == load(MINIMAL).hash


@pytest.mark.parametrize("name", ["policy.yaml", "policy-full.yaml"])
def test_the_shipped_examples_load_without_a_word(name: str) -> None:
    secrets = ["AIRFLOW_PASSWORD", "MLFLOW_PASSWORD", "PAGERDUTY_ROUTING_KEY", "OPSGENIE_API_KEY"]
    secrets += ["PROXY_TOKEN", "MIMIR_PASSWORD", "MLFLOW_PASSWORD_OF_ALICE"]
    signing = dict.fromkeys(["HOOK_SECRET", "CLOUDWATCH_SECRET"], f"whsec_{'MfKQ9r8G' * 4}")
    env = dict.fromkeys(secrets, "x") | {"SLACK_WEBHOOK_URL": "https://s"} | signing
    assert load_policy(ROOT / "examples" / name, env).warnings == ()


def test_the_full_example_shows_every_key() -> None:
    shown = (ROOT / "examples" / "policy-full.yaml").read_text()
    policy = load(shown, require_env=False)
    models: list[type[BaseModel]] = [Airflow, Route, Dag, Mlflow, TimeInterval, Interval, Promotion, Require]
    models += [Receiver, *RECEIVER_KINDS.values(), Notify, Switch, Retrain]
    for key in {key for model in models for key in model.model_fields} | {"token", "token_file", "password"}:
        assert f"{key}:" in shown, f"{key} is not shown"
    assert [route.name for route in policy.routes] == ["accuracy", "drift", "refresh-features", "canary"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8090", "http://127.0.0.1:8090/", "http://[::1]:8090", f"http://{THIS_MACHINE}:8090"]
)
def test_the_receiver_to_paste_posts_everything_to_this_gateway(url: str) -> None:
    text = alertmanager_receiver(url)
    assert ("put the name or address by which Alertmanager reaches this machine" in text) is (THIS_MACHINE in url)
    pasted = yaml.safe_load(text)
    (receiver,) = pasted["receivers"]
    (webhook,) = receiver["webhook_configs"]
    assert webhook["url"] == url.rstrip("/") + "/api/v1/webhooks/alertmanager"
    assert (webhook["send_resolved"], webhook["max_alerts"]) == (True, 0)
    assert webhook["http_config"]["authorization"]["credentials_file"]
    (route,) = pasted["route"]["routes"]
    assert (route["receiver"], route["continue"]) == (receiver["name"], True)
    assert load(STARTER_POLICY, require_env=False).route_for({"alertname": "ModelAccuracyLow", "severity": "warning"})
