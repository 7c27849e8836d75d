"""The text of a policy that is kept: no secret is left in it, and it can be read as a policy again."""

import pytest

from app.policy.file.load import parse_policy

POLICY = """
version: 1
# Before May the password was hunter2-of-ana.
airflow:
  - {name: default, url: "http://a:8080", auth: {username: gateway, password: %s}}
  - name: second
    url: http://b:8080
    auth:
      token: |
        a token of
        two lines
    headers: {X-Key: short, X-Kept: "${TOKEN}"}
defaults:
  cooldown: ${COOLDOWN}
  confirm: {prometheus: "http://p:9090", query: up, auth: {token: prometheus-token}}
routes:
  - match: ['alertname="A"', 'team="${TEAM}"']
    dag: {airflow: default, id: retrain, conf: {password: "${TOKEN}"}}
receivers:
  - {name: chat, slack: {url: "https://hooks.slack.example/T0/a-secret-path"}}
  - {name: ops, webhook: {url: "https://ops.example/hook", secret: "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}}
"""
ENVIRONMENT = {"COOLDOWN": "3h", "TOKEN": "a-token-from-outside", "TEAM": "growth"}
SECRETS = ("hunter2", "a token of", "short", "prometheus-token", "a-secret-path", "whsec_", "a-token-from-outside")


@pytest.mark.parametrize(
    "written",
    ["hunter2-of-ana", "'hunter2-of-ana'", '"hunter2-of-ana"', '"${ABSENT}hunter2-of-ana"', "&same hunter2-of-ana"],
)
def test_no_secret_is_left_in_the_text_of_a_policy(written: str) -> None:
    kept = parse_policy(POLICY % written, "policy.yaml", ENVIRONMENT | {"ABSENT": ""}).text
    assert [secret for secret in SECRETS if secret in kept] == []


def test_the_text_of_a_policy_is_a_policy_that_decides_alike() -> None:
    policy = parse_policy(POLICY % "hunter2-of-ana", "policy.yaml", ENVIRONMENT)
    again = parse_policy(policy.text, "policy.yaml", {}, require_env=False)
    for mine, its in zip(again.routes, policy.routes, strict=True):
        assert (mine.name, mine.match, mine.cooldown) == (its.name, its.match, its.cooldown)
    assert again.text == policy.text


def test_a_variable_stays_as_it_is_written_where_it_decides_nothing() -> None:
    kept = parse_policy(POLICY % '"${TOKEN}"', "policy.yaml", ENVIRONMENT).text
    assert 'password: "${TOKEN}"}' in kept
    assert 'X-Kept: "${TOKEN}"' in kept
    assert 'conf: {password: "${TOKEN}"}' in kept
    assert 'cooldown: "3h"' in kept
    assert 'team=\\"growth\\"' in kept


def test_a_policy_without_secrets_is_kept_as_it_is() -> None:
    text = """version: 1
airflow:
  - {name: a, url: "http://a:8080"}  # ours
routes:
  - match: ['a="b"']
    dag: {id: x}
"""
    assert parse_policy(text, "policy.yaml", {}).text == text
