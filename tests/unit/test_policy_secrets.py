"""An error about a policy quotes the file, never the value of a variable."""

from typing import Any

import pytest

from app.policy.file.load import PolicyError, parse_policy

SECRET = "hunter2-Tr0ub4dor&3"
PLACES = [
    "airflow: [{url: 'ftp://${SECRET}@host'}]",
    "airflow: [{url: 'http://host:${SECRET}'}]",
    "airflow: [{url: 'http://host', auth: '${SECRET}'}]",
    "airflow: [{url: 'http://host', api: '${SECRET}'}]",
    "airflow: [{url: 'http://host', max_parallel: '${SECRET}'}]",
    "airflow: [{url: 'http://host', headers: {'X-A': '${SECRET}\\n'}}]",
    "routes: [{dag: {id: 'x'}, match: ['${SECRET}']}]",
    "routes: [{dag: {id: 'x'}, match: ['a=~\"(${SECRET}\"']}]",
    "routes: [{dag: {id: '${SECRET} '}, match: []}]",
    "routes: [{name: '${SECRET}', dag: {id: x}, match: []}, {name: '${SECRET}', dag: {id: x}, match: []}]",
    "routes: [{dag: {id: x}, match: [], debounce: '${SECRET}'}]",
    "routes: [{dag: {id: x}, match: [], cooldown: '${LATE}'}]",
    "routes: [{dag: {id: x}, match: [], mute: ['${SECRET}']}]",
    "routes: [{dag: {id: x}, match: [], mode: '${SECRET}'}]",
    "routes: [{dag: {id: x, airflow: '${SECRET}'}, match: []}]",
    "routes: [{dag: {id: x}, match: [], confirm: {prometheus: '${SECRET}', query: 'x{{${SECRET}}}'}}]",
    "schedules: [{name: a, cron: '${SECRET}', route: '${SECRET}', timezone: '${SECRET}'}]",
    "deadman: [{name: '${SECRET}', expect: '${SECRET}', every: '${SECRET}', receivers: ['${SECRET}']}]",
    "receivers: [{name: ops, webhook: {url: '${SECRET}', secret: '${SECRET}'}}]",
    "receivers: [{name: ops, slack: {url: 'https://hooks.slack.com/${SECRET} '}}]",
    "receivers: [{name: '${SECRET}'}, {name: ops}]\nnotify: {dead: ['ops2', '${SECRET}x']}",
    "mlflow: {tracking_uri: '${SECRET}'}",
    "promotions: [{model: '(${SECRET}', registry: '${SECRET}', to: '${SECRET}', rules: ['${SECRET} >= 1']}]",
    "time_intervals: [{name: a, time_intervals: [{weekdays: ['${SECRET}'], times: [{start_time: '${SECRET}'}]}]}]",
    "sources: [{name: '${SECRET}', alert_id: '${SECRET}'}]",
    "version: '${SECRET}'",
    "'${SECRET}': 1",
]


@pytest.mark.parametrize("text", PLACES)
@pytest.mark.parametrize("secret", [SECRET, SECRET.upper() * 20, "12345", "s3cr3t"])
def test_no_error_shows_the_value_of_a_variable(text: str, secret: str) -> None:
    whole = text if "version" in text else f"version: 1\n{text}"
    with pytest.raises(PolicyError) as refused:
        parse_policy(whole, "policy.yaml", {"SECRET": secret, "LATE": f"{secret}h"})
    shown = str(refused.value).casefold()
    assert not any(secret[at : at + 5].casefold() in shown for at in range(len(secret) - 4)), shown
    for problem in refused.value.problems:
        assert problem.line > 0


@pytest.mark.parametrize(
    ("text", "env", "shown"),
    [
        ("debounce: '${WAIT}'", {"WAIT": "five minutes"}, "${WAIT}"),
        ("mute: ['${NAME}']", {"NAME": "freeze-2026"}, "no time interval is called '${NAME}'"),
        ("mute: ['x-${NAME}']", {"NAME": "a"}, "no time interval is called"),
    ],
)
def test_an_error_quotes_the_text_of_the_file(text: str, env: dict[str, Any], shown: str) -> None:
    policy = (
        f"version: 1\nairflow: [{{name: default, url: 'http://a'}}]\nroutes: [{{dag: {{id: x}}, match: [], {text}}}]"
    )
    with pytest.raises(PolicyError) as refused:
        parse_policy(policy, "policy.yaml", env)
    assert shown in str(refused.value)
