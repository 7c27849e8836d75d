"""Each mistake in a policy is named as `file:line:column: path: message`, in the order of the file. One table: one file."""

import pytest

from app.kit.errors import UsageError
from app.policy.file.load import Policy, PolicyError, parse_policy

AIRFLOW = "airflow:\n- {name: default, url: http://airflow:8080}\n"
HEAD = "version: 1\n" + AIRFLOW  # three lines


def parse(text: str) -> Policy | PolicyError:
    try:
        return parse_policy(text, "p.yaml", {"WORD": "word", "BRACES": "{{x}}", "LATIN": "\udce9", "EMPTY": ""})
    except PolicyError as error:
        return error


def errors_of(text: str) -> list[str]:
    result = parse(text)
    assert isinstance(result, PolicyError), "the file was accepted"
    assert all(problem.file == "p.yaml" for problem in result.problems)
    return [str(problem).removeprefix("p.yaml:") for problem in result.problems]


def route(*lines: str, head: str = HEAD) -> str:
    """A file with one valid route, and these lines more in it from line 7 on."""
    return "\n".join(
        [f"{head}routes:", "- match: ['a=\"b\"']", "  dag: {id: retrain}", *(f"  {line}" for line in lines)]
    )


NAME_RULE = "must be lower-case letters, digits, _ and -, at most 63, beginning with a letter or digit"
PLACEHOLDER = 'only {{group.label}} or {{group["label"]}} may stand in double braces'
AUTH = "auth is either username and password, or token, or token_file"
TEXT = "must be text; put a number or true in quotes if it is meant as text"
EMPTY = "is empty; give it a value or leave the key out"

TOP_LEVEL = [
    ("{}", ["1:1: airflow: required", "1:1: routes: required", "1:1: version: required; write `version: 1`"]),
    (
        "version: 2\nairflow: []\nroutes: {}",
        [
            "1:10: version: must be 1, the version that this gateway reads",
            "2:10: airflow: must name at least one Airflow",
            "3:9: routes: must be a list",
        ],
    ),
    ("version: '1'\n" + AIRFLOW + "routes: []", ["1:10: version: must be 1, the version that this gateway reads"]),
    ("version: true\n" + AIRFLOW + "routes: []", ["1:10: version: must be 1, the version that this gateway reads"]),
    (HEAD + "routes: [5, x]", ["4:10: routes.0: must be a mapping", "4:13: routes.1: must be a mapping"]),
    (HEAD + "routes:", ["4:8: routes: must be a list"]),
    (HEAD + "routes: []\nroute: []", ["5:1: route: unknown key; did you mean routes?"]),
    (
        HEAD + "routes: []\nqqq: []",
        [
            "5:1: qqq: unknown key; the keys here are version, airflow, routes, defaults, mlflow, promotions, "
            "time_intervals, receivers, notify, lineage, schedules, sources, deadman"
        ],
    ),
]

AIRFLOWS = [
    ("{}", ["2:11: airflow.0.name: required", "2:11: airflow.0.url: required"]),
    ("{name: , url: }", [f"2:17: airflow.0.name: {EMPTY}", f"2:24: airflow.0.url: {EMPTY}"]),
    ("{name: 5, url: 6}", [f"2:18: airflow.0.name: {TEXT}", f"2:26: airflow.0.url: {TEXT}"]),
    ("{name: '', url: http://a}", ["2:18: airflow.0.name: must not be empty"]),
    ("{name: a, url: airflow:8080}", ["2:26: airflow.0.url: must be an address such as http://host.example:8080"]),
    ("{name: a, url: 'ftp://a'}", ["2:26: airflow.0.url: must be an address such as http://host.example:8080"]),
    ("{name: a, url: 'http://'}", ["2:26: airflow.0.url: must be an address such as http://host.example:8080"]),
    ("{name: a, url: 'http://a:99999'}", ["2:26: airflow.0.url: must be an address such as http://host.example:8080"]),
    ("{name: a, url: 'http://a b'}", ["2:26: airflow.0.url: must be an address such as http://host.example:8080"]),
    ("{name: a, url: 'http://[::1'}", ["2:26: airflow.0.url: must be an address such as http://host.example:8080"]),
    ("{name: a, url: 'http://u:p@a'}", ["2:26: airflow.0.url: user and password belong in auth, not in the address"]),
    ("{name: a, url: 'http://a?x=1'}", ["2:26: airflow.0.url: must be an address without ? and #"]),
    ("{name: a, url: http://a, api: v3}", ["2:41: airflow.0.api: must be v2 or v1"]),
    ("{name: a, url: http://a, max_parallel: 0}", ["2:50: airflow.0.max_parallel: must be at least 1"]),
    ("{name: a, url: http://a, max_parallel: 1.5}", ["2:50: airflow.0.max_parallel: must be a whole number"]),
    ("{name: a, url: http://a, max_parallel: true}", ["2:50: airflow.0.max_parallel: must be a whole number"]),
    ("{name: a, url: http://a, max_parallel: 1000000}", ["2:50: airflow.0.max_parallel: must be at most 100000"]),
    ("{name: a, url: http://a, auth: x}", ["2:42: airflow.0.auth: must be a mapping"]),
    ("{name: a, url: http://a, auth: {username: u}}", ["2:42: airflow.0.auth.password: required"]),
    (
        "{name: a, url: http://a, auth: {}}",
        ["2:42: airflow.0.auth.password: required", "2:42: airflow.0.auth.username: required"],
    ),
    ("{name: a, url: http://a, auth: {username: u, password: ''}}",
     ["2:66: airflow.0.auth.password: must not be empty"]),
    ("{name: a, url: http://a, auth: {token: 123}}", [f"2:50: airflow.0.auth.token: {TEXT}"]),
    ("{name: a, url: http://a, auth: {token: t, username: u}}", [f"2:63: airflow.0.auth.username: {AUTH}"]),
    ("{name: a, url: http://a, auth: {token: t, token_file: f}}", [f"2:50: airflow.0.auth.token: {AUTH}"]),
    ("{name: a, url: http://a, auth: {user: u, token: t}}",
     ["2:43: airflow.0.auth.user: unknown key; did you mean username?"]),
    ("{name: a, url: http://a, tls: no}",
     ["2:36: airflow.0.tls: unknown key; the keys here are name, url, api, max_parallel, auth, headers, ca_file"]),
    ("{name: a, url: http://a}, {name: a, url: http://b}",
     ["2:44: airflow.1.name: another airflow is called 'a' already"]),
]  # fmt: skip

OPTIONS = [
    ("name: Accuracy", [f"7:9: routes.0.name: {NAME_RULE}"]),
    ("name: -a", [f"7:9: routes.0.name: {NAME_RULE}"]),
    (f"name: {'a' * 64}", [f"7:9: routes.0.name: {NAME_RULE}"]),
    ("name: ''", [f"7:9: routes.0.name: {NAME_RULE}"]),
    ("name: 2024", [f"7:9: routes.0.name: {TEXT}"]),
    ("debounce: 10", ["7:13: routes.0.debounce: '10' has no unit; write 10s, 10m or 10h"]),
    ("debounce: 1.5", ["7:13: routes.0.debounce: '1.5' is not a duration: use whole numbers, so 1h30m instead of 1.5h"]),
    ("debounce: -1m", ["7:13: routes.0.debounce: '-1m' is not a duration: it cannot be negative"]),
    ("debounce: true", ["7:13: routes.0.debounce: must be a duration such as 10m or 1d12h"]),
    ("debounce: [10m]", ["7:13: routes.0.debounce: must be a duration such as 10m or 1d12h"]),
    ("debounce:", [f"7:12: routes.0.debounce: {EMPTY}"]),
    ("cooldown: 20y", ["7:13: routes.0.cooldown: '20y' is longer than ten years"]),
    ("run_timeout: 0s", ["7:16: routes.0.run_timeout: must be longer than 0s"]),
    ("stale_after: 0", ["7:16: routes.0.stale_after: must be longer than 0s"]),
    ("refire: yes", ["7:11: routes.0.refire: must be true or false"]),
    ("refire: 1", ["7:11: routes.0.refire: must be true or false"]),
    ("on_failure: ignore", ["7:15: routes.0.on_failure: must be release or keep"]),
    ("mode: dry", ["7:9: routes.0.mode: must be live or shadow"]),
    ("group_by: model", ["7:13: routes.0.group_by: must be a list"]),
    ("group_by: [model, '', 5]",
     ["7:21: routes.0.group_by.1: must not be empty", f"7:25: routes.0.group_by.2: {TEXT}"]),
    ("group_by: [model, model]", ["7:13: routes.0.group_by: a label is here twice"]),
    ("group_by: ['...']",
     ["7:13: routes.0.group_by: ... (every label) would make a group of every alert; name the labels"]),
    ("debouce: 10m", ["7:3: routes.0.debouce: unknown key; did you mean debounce?"]),
    ("matchers: []", ["7:3: routes.0.matchers: unknown key; did you mean match?"]),
    ("limit: {triggers: 0, per: 7d}", ["7:21: routes.0.limit.triggers: must be at least 1"]),
    ("limit: {triggers: 3, per: 0s}", ["7:29: routes.0.limit.per: must be longer than 0s"]),
    ("limit: {triggers: 3}", ["7:10: routes.0.limit.per: required"]),
    ("limit: {trigers: 3, per: 7d}", ["7:10: routes.0.limit.triggers: required",
      "7:11: routes.0.limit.trigers: unknown key; did you mean triggers?"]),
    ("limit: 3", ["7:10: routes.0.limit: must be a mapping"]),
    ("mute: freeze", ["7:9: routes.0.mute: must be a list"]),
    ("mute: [freeze]", ["7:10: routes.0.mute.0: no time interval is called 'freeze'; there is none"]),
    ("mute: ['', 7]", ["7:10: routes.0.mute.0: must not be empty", f"7:14: routes.0.mute.1: {TEXT}"]),
    ("notify: [oncall]", ["7:11: routes.0.notify: must be a mapping"]),
    ("notify: {run_faild: []}", ["7:12: routes.0.notify.run_faild: unknown key; did you mean run_failed?"]),
    ("notify: {orphan: []}", ["7:12: routes.0.notify.orphan: unknown key; "
                                         "the keys here are trigger_dead, trigger_waiting, trigger_lost, run_failed, "
                                         "no_effect, run_succeeded, promoted"]),
    ("notify: {run_failed: oncall}", ["7:24: routes.0.notify.run_failed: must be a list"]),
    ("notify: {run_failed: [oncall]}",
     ["7:25: routes.0.notify.run_failed.0: no receiver is called 'oncall'; there is none"]),
    ("name: ${NOPE}", ["7:9: routes.0.name: the environment variable NOPE is not set"]),
    ("name: ${ABSENT}${NOPE}", ["7:9: routes.0.name: the environment variable ABSENT is not set",
                                "7:9: routes.0.name: the environment variable NOPE is not set"]),
    ("name: '${WORD-x}'", ["7:9: routes.0.name: write a variable as ${NAME}, and a plain ${ as $${"]),
    ("name: '${WORD'", ["7:9: routes.0.name: write a variable as ${NAME}, and a plain ${ as $${"]),
    ("name: '${LATIN}'", ["7:9: routes.0.name: the variable LATIN holds bytes that are not UTF-8 text"]),
]  # fmt: skip

MATCHES = [
    ("match:", ["5:9: routes.0.match: must be a list of matchers, such as ['alertname=\"Drift\"']"]),
    ("match: a=b", ["5:10: routes.0.match: must be a list of matchers, such as ['alertname=\"Drift\"']"]),
    ("match: {a: b}", ["5:10: routes.0.match: must be a list of matchers, such as ['alertname=\"Drift\"']"]),
    ("match: [a: b]", ["5:11: routes.0.match.0: must be text, such as 'alertname=\"Drift\"'"]),
    ("match: ['', ' ']", ["5:11: routes.0.match.0: is empty; write match: [] for a route that takes every alert",
                          "5:15: routes.0.match.1: is empty; write match: [] for a route that takes every alert"]),
    ("match: ['${EMPTY}']", ["5:11: routes.0.match.0: is empty; write match: [] for a route that takes every alert"]),
    ("match: [a=b, c]", ["5:17: routes.0.match.1: expected one of = != =~ !~, found the end"]),
    ("match: ['a=b, c']", ["5:18: routes.0.match.0: expected one of = != =~ !~, found the end"]),
    ("match: ['a=~\"x[\"']", ["5:15: routes.0.match.0: not a regular expression of RE2: missing ]: ["]),
    ('match: ["a=~\\"x[\\""]', ["5:11: routes.0.match.0: not a regular expression of RE2: missing ]: ["]),
    ("match: ['a=~(', '=b']", ["5:15: routes.0.match.0: not a regular expression of RE2: missing ): (",
                               "5:20: routes.0.match.1: expected a label name, found '='"]),
    ("match: ['a=b, ${WORD}']", ["5:11: routes.0.match.0: expected one of = != =~ !~, found the end"]),
]  # fmt: skip

DAGS = [
    ("dag: retrain", ["6:8: routes.0.dag: must be a mapping"]),
    ("dag: {}", ["6:8: routes.0.dag.id: required"]),
    ("dag: {id: ''}", ["6:13: routes.0.dag.id: must not be empty"]),
    ("dag: {id: 5}", [f"6:13: routes.0.dag.id: {TEXT}"]),
    ("dag: {id: x, config: {}}", ["6:16: routes.0.dag.config: unknown key; did you mean conf?"]),
    ("dag: {id: x, conf: [a]}", ["6:22: routes.0.dag.conf: must be a mapping"]),
    ("dag: {id: x, conf: }", [f"6:21: routes.0.dag.conf: {EMPTY}"]),
    ("dag: {id: x, conf: {gateway: 1}}",
     ["6:23: routes.0.dag.conf.gateway: this key is the gateway's own; choose another"]),
    ("dag: {id: x, conf: {a: '" + "x" * 12_000 + "'}}",
     ["6:22: routes.0.dag.conf: 12009 bytes of JSON are too many; at most 12000 fit into a DAG run"]),
    ("dag: {id: x, conf: {a: '" + "漢" * 2_000 + "'}}",
     ["6:22: routes.0.dag.conf: 12009 bytes of JSON are too many; at most 12000 fit into a DAG run"]),
    ("dag: {id: x, airflow: defualt}",
     ["6:25: routes.0.dag.airflow: no Airflow is called 'defualt'; did you mean 'default'?"]),
    ("dag: {id: x, airflow: gpu}", ["6:25: routes.0.dag.airflow: no Airflow is called 'gpu'; there is 'default'"]),
    ("dag: {id: 'r_{{group.team}}'}", ["6:16: routes.0.dag.id: 'team' is not in the route's group_by"]),
    ("dag: {id: 'r_{{ds}}'}", [f"6:16: routes.0.dag.id: {PLACEHOLDER}"]),
    ("dag: {id: x, conf: {a: [1, {b: '{{group.team}}'}]}}",
     ["6:35: routes.0.dag.conf.a.1.b: 'team' is not in the route's group_by"]),
    ("dag: {id: x, conf: {a: '{{ ds }}', b: '{{'}}",
     [f"6:27: routes.0.dag.conf.a: {PLACEHOLDER}", f"6:42: routes.0.dag.conf.b: {PLACEHOLDER}"]),
    ("dag: {id: x, conf: {'{{group.model}}': 1}}",
     ["6:23: routes.0.dag.conf.{{group.model}}: placeholders are filled in values, not in keys"]),
    ("dag: {id: x, conf: {a: '${BRACES}'}}", [f"6:26: routes.0.dag.conf.a: {PLACEHOLDER}"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TOP_LEVEL)
def test_mistakes_at_the_top_are_told(text: str, expected: list[str]) -> None:
    assert errors_of(text) == expected


@pytest.mark.parametrize(("entry", "expected"), AIRFLOWS)
def test_mistakes_in_an_airflow_are_told(entry: str, expected: list[str]) -> None:
    assert errors_of(f"version: 1\nairflow: [{entry}]\nroutes: []") == expected


ADDRESS = "must be an address such as http://host.example:8080"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[]", ["5:9: mlflow: must be a mapping"]),
        ("", ["5:8: mlflow: must be a mapping"]),
        ("{}", ["5:9: mlflow.tracking_uri: required"]),
        ("{tracking_uri: 'sqlite:///x.db'}", [f"5:24: mlflow.tracking_uri: {ADDRESS}"]),
        ("{uri: http://m}", ["5:9: mlflow.tracking_uri: required",
                             "5:10: mlflow.uri: unknown key; "
                             "the keys here are tracking_uri, logins, auth, headers, ca_file"]),
        ("{tracking_uri: http://m, auth: {token: 1}}", [f"5:48: mlflow.auth.token: {TEXT}"]),
    ],
)  # fmt: skip
def test_mistakes_in_mlflow_are_told(value: str, expected: list[str]) -> None:
    assert errors_of(f"{HEAD}routes: []\nmlflow: {value}") == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{}", ["6:14: promotions.0.model: required", "6:14: promotions.0.to: required"]),
        ("{model: '(', to: c}",
         ["6:22: promotions.0.model: not a regular expression of RE2: missing ): ("]),
        ("{model: m, to: v3}", ["6:29: promotions.0.to: latest and v followed by a number are reserved by MLflow"]),
        ("{model: m, to: Latest}", ["6:29: promotions.0.to: latest and v followed by a number are reserved by MLflow"]),
        ("{model: m, to: 'a b'}", ["6:29: promotions.0.to: must be letters, digits, _ and -, at most 100"]),
        ("{model: m, to: c, registry: s3}", ["6:42: promotions.0.registry: must be mlflow or sagemaker"]),
        ("{model: m, to: c, mode: dry}", ["6:38: promotions.0.mode: must be live or shadow"]),
        ("{model: m, to: c, requires: c}",
         ["6:42: promotions.0.requires: a version cannot hold the alias before it gets it"]),
        ("{model: m, to: c, require: {metrics: [f1, f1]}}",
         ["6:51: promotions.0.require.metrics: a name is here twice"]),
        ("{model: m, to: c, require: {metric: [f1]}}",
         ["6:42: promotions.0.require.metric: unknown key; did you mean metrics?"]),
        ("{model: m, to: c, rules: f1 > 1}",
         ["6:39: promotions.0.rules: must be a list of rules, such as ['f1 >= 0.80']"]),
        ("{model: m, to: c, rules: ['f1 => 1', 5, 'f1 > 10min']}",
         ["6:44: promotions.0.rules.0: unexpected '='; use ==, >= or <=",
          "6:51: promotions.0.rules.1: must be text, such as 'f1 >= 0.80'",
          "6:62: promotions.0.rules.2: 'min' is not a unit; the units are %, ms, s, m, h, d, KiB, MiB, GiB"]),
        ("{model: m, to: c}, {model: m, to: c}",
         ["6:48: promotions.1.to: another entry has the model 'm' and the alias 'c' already"]),
        ("{model: m, to: c, probation: 48h}", ["6:43: promotions.0.probation: must be a mapping"]),
        ("{model: m, to: c, probation: {}}", ["6:43: promotions.0.probation.match: required"]),
        ("{model: m, to: c, probation: {match: []}}",
         ["6:51: promotions.0.probation.match: is empty: every alert would speak against the version"]),
        ("{model: m, to: c, probation: {match: ['']}}",
         ["6:52: promotions.0.probation.match.0: is empty; write match: [] for a route that takes every alert"]),
        ("{model: m, to: c, probation: {match: ['a=\"b\"'], for: 0s, then: undo}}",
         ["6:67: promotions.0.probation.for: must be longer than 0s",
          "6:77: promotions.0.probation.then: must be tell or rollback"]),
        ("{model: m, to: c, probation: {match: ['a=\"b\"'], after: 1h}}",
         ["6:62: promotions.0.probation.after: unknown key; the keys here are for, match, group, debounce, then"]),
        ("{model: m, to: c, probation: {match: ['a=\"b\"'], group: {x: 'y {{group.x}}'}}}",
         ["6:76: promotions.0.probation.group.x: only {{version.model}} or {{version.version}} may stand in double braces"]),
    ],
)  # fmt: skip
def test_mistakes_in_promotions_are_told(entry: str, expected: list[str]) -> None:
    assert errors_of(f"{HEAD}routes: []\nmlflow: {{tracking_uri: http://m}}\npromotions: [{entry}]") == expected


def test_a_promotion_in_mlflow_needs_an_mlflow() -> None:
    entries = "[{model: m, to: c}, {model: m, to: d, registry: sagemaker}]"
    lacks = "the registry is MLflow, but the policy has no `mlflow:`"
    assert errors_of(f"{HEAD}routes: []\npromotions: {entries}") == [f"5:14: promotions.0.registry: {lacks}"]


@pytest.mark.parametrize(("line", "expected"), OPTIONS)
def test_mistakes_in_the_options_of_a_route_are_told(line: str, expected: list[str]) -> None:
    assert errors_of(route(line)) == expected


@pytest.mark.parametrize(
    ("line", "expected"), [case for case in OPTIONS if case[0].partition(":")[0] not in ("name", "matchers")]
)
def test_mistakes_in_defaults_are_told_once_and_there(line: str, expected: list[str]) -> None:
    text = "\n".join([route(), "defaults:", "  " + line])
    shifted = [problem.replace("7:", "8:", 1).replace("routes.0.", "defaults.") for problem in expected]
    assert errors_of(text) == shifted


@pytest.mark.parametrize(("line", "expected"), MATCHES)
def test_mistakes_in_match_are_told_at_the_character(line: str, expected: list[str]) -> None:
    assert errors_of(f"{HEAD}routes:\n- {line}\n  dag: {{id: retrain}}") == expected


@pytest.mark.parametrize(("line", "expected"), DAGS)
def test_mistakes_in_a_dag_are_told(line: str, expected: list[str]) -> None:
    assert errors_of(f"{HEAD}routes:\n- {{name: r, match: [], group_by: [model],\n  {line}}}") == expected


def test_only_match_and_a_dag_with_its_id_are_required() -> None:
    assert errors_of(f"{HEAD}routes:\n- debounce: 5m") == [
        "5:3: routes.0.dag: required",
        "5:3: routes.0.match: required",
    ]


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        pytest.param(
            ["{name: a, match: [], dag: {id: x}}", "{name: a, match: [], dag: {id: y}}"],
            ["6:10: routes.1.name: another route is called 'a' already"],
            id="the same name twice",
        ),
        pytest.param(
            ["{match: [], dag: {id: x}}", "{match: [], dag: {id: X}}"],
            ["6:3: routes.1.name: required: another route is called 'x' already"],
            id="the same DAG twice without names",
        ),
        pytest.param(
            ["{name: x, match: [], dag: {id: y}}", "{match: [], dag: {id: x}}"],
            ["6:3: routes.1.name: required: another route is called 'x' already"],
            id="a made name that is taken",
        ),
        pytest.param(
            ["{match: [], group_by: [m], dag: {id: 'x{{group.m}}'}}"],
            ["5:3: routes.0.name: required: no name can be made from this dag.id"],
            id="no name and a placeholder",
        ),
        pytest.param(
            ["{match: [], dag: {id: '___'}}"],
            ["5:3: routes.0.name: required: no name can be made from this dag.id"],
            id="no name and a DAG without letters",
        ),
    ],
)
def test_routes_must_be_told_apart(routes: list[str], expected: list[str]) -> None:
    assert errors_of(HEAD + "routes:\n" + "\n".join(f"- {entry}" for entry in routes)) == expected


def test_a_dag_must_name_its_airflow_when_there_is_no_default() -> None:
    airflow = "version: 1\nairflow:\n- {name: a, url: http://a}\n- {name: b, url: http://b}\n"
    assert errors_of(route(head=airflow)) == [
        "7:8: routes.0.dag.airflow: required: there are several Airflows and none is called 'default'"
    ]


def test_every_error_of_a_file_is_told_at_once_and_in_its_order() -> None:
    text = """\
version: 1
mlfow: {tracking_uri: http://127.0.0.1:5000}
airflow:
  - {name: default, url: "${AIRFLOW_URL}", auth: {username: gateway, password: "${AIRFLOW_PASSWORD}"}}
defaults:
  cooldown: one day
routes:
  - name: Accuracy
    match: ['alertname="ModelAccuracyLow', 'severity=~"critical|(warning"']
    debounce: 10min
    cooldwon: 24h
    dag: {airflow: prod, id: "retrain_{{group.model}}"}
  - match: ['alertname="Drift"']
    debounce: 5m
    debounce: 6m
    dag: {id: 7}
"""
    assert errors_of(text) == [
        "2:1: mlfow: unknown key; did you mean mlflow?",
        "4:26: airflow.0.url: the environment variable AIRFLOW_URL is not set",
        "4:80: airflow.0.auth.password: the environment variable AIRFLOW_PASSWORD is not set",
        "6:13: defaults.cooldown: 'one day' is not a duration: use numbers with y, w, d, h, m, s or ms, largest first,"
        " such as 10m or 1d12h",
        f"8:11: routes.0.name: {NAME_RULE}",
        "9:24: routes.0.match.0: this double quote is never closed",
        "9:55: routes.0.match.1: not a regular expression of RE2: missing ): critical|(warning",
        "10:15: routes.0.debounce: '10min' is not a duration: use numbers with y, w, d, h, m, s or ms, largest first,"
        " such as 10m or 1d12h",
        "11:5: routes.0.cooldwon: unknown key; did you mean cooldown?",
        "12:20: routes.0.dag.airflow: no Airflow is called 'prod'; there is 'default'",
        "12:39: routes.0.dag.id: 'model' is not in the route's group_by",
        "15:5: routes.1.debounce: this key is here twice, first on line 14",
        f"16:15: routes.1.dag.id: {TEXT}",
    ]


def test_the_error_is_the_operators_and_prints_one_line_for_each_problem() -> None:
    error = parse("version: 1\nroutes: 5\n")
    assert isinstance(error, UsageError)
    assert str(error) == "p.yaml:1:1: airflow: required\np.yaml:2:9: routes: must be a list"


def test_no_message_repeats_a_secret_of_the_environment() -> None:
    env = {"SECRET": "hunter2 {{"}
    places = ["name", "url", "api", "max_parallel", "auth"]
    for place in places:
        entry = {"name": "default", "url": "http://a"} | {place: '"${SECRET}"'}
        text = "version: 1\nairflow:\n- {" + ", ".join(f"{key}: {value}" for key, value in entry.items()) + "}\n"
        text += "routes:\n- match: ['${SECRET}']\n  name: '${SECRET}'\n  refire: '${SECRET}'\n  mode: '${SECRET}'\n"
        text += "  dag: {id: '${SECRET}', conf: {a: '${SECRET}'}}\n"
        with pytest.raises(PolicyError) as caught:
            parse_policy(text, "p.yaml", env)
        assert "hunter2" not in str(caught.value)
