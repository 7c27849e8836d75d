"""`receivers` and `notify`: who is told of what, mistakes at their place, and no secret anywhere else."""

import pytest

from app.notices.incidents import audience
from app.policy.file.load import Policy, PolicyError, parse_policy
from app.policy.receivers import EVENTS, NEWS

SECRET = f"whsec_{'MfKQ9r8G' * 4}"
HEAD = "version: 1\nairflow: [{name: default, url: http://airflow:8080}]\nroutes:\n"
ROUTES = "- {name: a, match: [], dag: {id: x}, notify: {run_failed: [two], trigger_lost: []}}\n"
THREE = "receivers:\n" + "".join(
    f"- {{name: {name}, alertmanager: {{url: http://am}}}}\n" for name in ("one", "two", "three")
)


def load(text: str, **env: str) -> Policy:
    return parse_policy(text, "p.yaml", env)


def errors_of(receiver: str, **env: str) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        load(f"{HEAD}receivers:\n- {receiver}\n".replace("routes:\n", "routes: []\n"), **env)
    return [str(problem).removeprefix("p.yaml:") for problem in raised.value.problems]


KINDS = "pagerduty, opsgenie, slack, webhook, alertmanager"
MISTAKES = [
    ("{name: x}", [f"5:3: receivers.0: must have exactly one of {KINDS}"]),
    ("{name: x, slack: {url: https://s}, alertmanager: {url: http://a}}",
     [f"5:3: receivers.0: must have exactly one of {KINDS}"]),
    ("{slack: {url: https://s}}", ["5:3: receivers.0.name: required"]),
    ("{name: x, pager: {}}", [f"5:3: receivers.0: must have exactly one of {KINDS}",
                              "5:13: receivers.0.pager: unknown key; did you mean pagerduty?"]),
    ("{name: x, pagerduty: {routing-key: a}}", ["5:24: receivers.0.pagerduty.routing_key: required",
                                        "5:25: receivers.0.pagerduty.routing-key: unknown key; did you mean routing_key?"]),
    ("{name: x, opsgenie: {api_key: a, url: opsgenie.com}}",
     ["5:41: receivers.0.opsgenie.url: must be an address such as http://host.example:8080"]),
    ("{name: x, slack: {url: hooks}}",
     ["5:26: receivers.0.slack.url: must be an address such as http://host.example:8080"]),
    ("{name: x, webhook: {url: 'https://h?key=1', secret: secret}}",
     ["5:55: receivers.0.webhook.secret: must be whsec_ and the base64 of 24 to 64 bytes"]),
    ("{name: x, webhook: {url: 'https://h'}}", ["5:22: receivers.0.webhook.secret: required"]),
    ("{name: X, slack: {url: https://s}}",
     ["5:10: receivers.0.name: must be lower-case letters, digits, _ and -, at most 63, beginning with a letter or digit"]),
    ("{name: x, slack: {url: https://s}}\n- {name: x, slack: {url: https://s}}",
     ["6:10: receivers.1.name: another receiver is called 'x' already"]),
]  # fmt: skip


@pytest.mark.parametrize(("receiver", "expected"), MISTAKES)
def test_mistakes_in_a_receiver_are_told(receiver: str, expected: list[str]) -> None:
    assert errors_of(receiver) == expected


def test_a_mistake_in_a_secret_does_not_repeat_it() -> None:
    [line] = errors_of("{name: x, webhook: {url: https://h, secret: '${S}'}}", S="whsec_hunter2")
    assert "hunter2" not in line
    [line] = errors_of("{name: x, slack: {url: '${S}'}}", S="ftp://hooks/hunter2")
    assert "hunter2" not in line


def test_check_judges_no_secret_that_it_does_not_know() -> None:
    text = (
        HEAD.replace("routes:\n", "routes: []\n") + "receivers:\n- {name: x, webhook: {url: '${U}', secret: '${S}'}}\n"
    )
    policy = parse_policy(text, "p.yaml", {}, require_env=False)
    assert policy.receivers[0].kind == "webhook"


def test_secrets_are_in_no_hash_and_no_text() -> None:
    def policy(routing_key: str, hook: str) -> Policy:
        lines = f"- {{name: a, pagerduty: {{routing_key: {routing_key}}}}}\n- {{name: b, slack: {{url: {hook}}}}}\n"
        return load(HEAD.replace("routes:\n", "routes: []\n") + "receivers:\n" + lines)

    first, other = policy("hunter2", "https://hooks.slack.com/hunter2"), policy("else", "https://hooks.slack.com/else")
    assert first.hash == other.hash
    assert "hunter2" not in repr(first) + first.model_dump_json()
    assert first.receivers[0].secrets() == ("hunter2",)
    renamed = load(
        HEAD.replace("routes:\n", "routes: []\n") + "receivers:\n- {name: c, alertmanager: {url: http://am}}\n"
    )
    assert renamed.hash != first.hash


def test_the_defaults_of_each_kind() -> None:
    lines = "- {name: a, pagerduty: {routing_key: k}}\n- {name: b, opsgenie: {api_key: k}}\n"
    policy = load(HEAD.replace("routes:\n", "routes: []\n") + "receivers:\n" + lines)
    pagerduty, opsgenie = policy.receivers[0].pagerduty, policy.receivers[1].opsgenie
    assert pagerduty is not None
    assert opsgenie is not None
    assert (pagerduty.url, opsgenie.url) == ("https://events.pagerduty.com", "https://api.opsgenie.com")


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_without_a_line_is_told_to_everybody_and_one_with_an_empty_list_to_nobody(event: str) -> None:
    text = HEAD + "- {name: a, match: [], dag: {id: x}}\n" + THREE
    everybody = () if event in NEWS else ("one", "two", "three")
    assert load(text).receivers_of(event, "a") == everybody
    assert load(text + f"notify: {{{event}: []}}").receivers_of(event, "a") == ()
    assert load(text + f"notify: {{{event}: [three, one]}}").receivers_of(event) == ("three", "one")
    assert load(text.replace(THREE, "")).receivers_of(event, "a") == ()


def test_a_route_speaks_for_itself_event_by_event() -> None:
    policy = load(HEAD + ROUTES + THREE + "notify: {run_failed: [one], trigger_lost: [one], trigger_dead: [three]}")
    assert policy.receivers_of("run_failed", "a") == ("two",)
    assert policy.receivers_of("trigger_lost", "a") == ()
    assert policy.receivers_of("trigger_dead", "a") == ("three",)
    assert policy.receivers_of("run_failed", "gone") == ("one",)
    assert policy.receivers_of("run_failed") == ("one",)
    own = ROUTES.replace("dag: {id: x}", "dag: {id: x}, on_no_effect: {receivers: [two]}")
    assert load(HEAD + own + THREE + "notify: {no_effect: [one]}").receivers_of("no_effect", "a") == ("two",)


AUDIENCE = [
    ("run_failed", "run_failed:a:0", {"model": "churn", "route": "a"}, ("two",)),
    ("run_failed", "run_failed:gone:0", {"route": "gone"}, ("three",)),
    ("promotion_blocked", "promotion:0:0:0", {"model": "churn"}, ("one", "two", "three")),
    ("orphan", "orphan:run", {"kind": "run"}, ()),
    ("switch_down", "deadman:of-churn", {"switch": "of-churn", "model": "churn"}, ("one",)),
    ("switch_down", "deadman:of-churn", {"switch": "of-churn", "model": "other"}, ()),
    ("switch_down", "deadman:gone", {"switch": "gone"}, ()),
    ("test", "test:0", {"receiver": "one"}, None),
]


@pytest.mark.parametrize(("event", "key", "labels", "names"), AUDIENCE)
def test_an_incident_that_is_open_is_whose_the_policy_says_now(
    event: str, key: str, labels: dict[str, str], names: tuple[str, ...] | None
) -> None:
    route = ROUTES.replace("match: []", "match: [], group_by: [model]")
    of_model = (
        "name: 'of-{{group.model}}', expect: {retrain: a}, for_each: {model: [churn]}, every: 1d, receivers: [one]"
    )
    policy = load(HEAD + route + THREE + f"notify: {{run_failed: [three], orphan: []}}\ndeadman: [{{{of_model}}}]")
    assert audience(policy, event, key, labels) == names


def test_defaults_speak_for_the_routes_without_a_notify() -> None:
    other = "- {name: b, match: [], dag: {id: x}}\n"
    text = (
        HEAD + ROUTES.replace("match: []", "match: [a=b]") + other + THREE + "defaults: {notify: {run_failed: [three]}}"
    )
    assert load(text).receivers_of("run_failed", "b") == ("three",)
    assert load(text).receivers_of("run_failed", "a") == ("two",)


@pytest.mark.parametrize(
    ("notify", "path"),
    [
        ("notify: {trigger_dead: [on]}", "notify.trigger_dead.0"),
        ("defaults: {notify: {run_failed: [on]}}", "defaults.notify.run_failed.0"),
    ],
)
def test_a_receiver_that_is_not_there_is_told_with_the_one_that_was_meant(notify: str, path: str) -> None:
    with pytest.raises(PolicyError) as raised:
        load(HEAD + "- {name: a, match: [], dag: {id: x}}\n" + THREE + notify)
    assert str(raised.value).endswith(f"{path}: no receiver is called 'on'; did you mean 'one'?")
