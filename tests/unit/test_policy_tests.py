"""`trigger-gateway test`: policy tests are played over the pure replay, and each difference has its line and a timeline."""

# ruff: noqa: E501 (A test of a policy stands in one line.)

import re
from pathlib import Path

import pytest
import yaml

from app.cli.check import Output
from app.cli.policy_tests import run_tests
from app.replay.cases import Case
from tests.ignoring import models_in
from tests.sizes import size

ROOT = Path(__file__).resolve().parents[2]
POLICY = """\
version: 1
airflow: [{{name: default, url: 'http://a', auth: {{username: u, password: "${{NOT_NEEDED}}"}}}}]
time_intervals: [{{name: night, time_intervals: [{{times: [{{start_time: '00:00', end_time: '06:00'}}]}}]}}]
routes:
  - name: accuracy
    match: ['alertname="A"']
    group_by: [model]
    dag: {{id: retrain}}
{more}"""
CASE = """\
policy: policy.yaml
tests:
  - name: a test
    alerts: [{{labels: {{alertname: A, model: churn}}, firing: 0m}}]
{more}"""
CHURN = 'accuracy {model="churn"}'


class Bench:
    """Files of tests in a folder, and what `test` says of them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.write("policy.yaml", POLICY.format(more=""))

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def case(self, *lines: str, route: str = "", more: str = "") -> list[str]:
        """Play one test with these lines, against a route with these lines; the differences, in short."""
        self.write("policy.yaml", POLICY.format(more="".join(f"    {line}\n" for line in route.splitlines()) + more))
        return self.short(CASE.format(more="".join(f"    {line}\n" for line in lines)))

    def short(self, text: str) -> list[str]:
        """The problems of a file, as line:column: path: message."""
        code, _, err = self.run(self.write("t.yaml", text))
        found = [line.removeprefix("t.yaml:") for line in err.splitlines() if line.startswith("t.yaml:")]
        found = [line for line in found if not re.search(r"test\(s\) passed\.$", line)]
        assert bool(found) == bool(code)
        return found

    def run(self, *files: Path, output: Output = Output.TEXT) -> tuple[int, str, str]:
        code = run_tests(files, output)
        done = self.capsys.readouterr()
        folder = f"{self.folder}/"
        return code, done.out.replace(folder, ""), done.err.replace(folder, "")


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/**/*_test.yaml")), ids=lambda path: path.name)
def test_the_tests_of_the_examples_pass(file: Path, bench: Bench) -> None:
    code, out, err = bench.run(file)
    assert (code, err) == (0, "")
    assert re.search(r": (\d+) of \1 test\(s\) passed\.", out)


#: Lines of a test that holds, with the lines of its route.
HOLD = [
    pytest.param("", ["fires: [{at: 0m, route: accuracy, group: {model: churn}, reason: new_alert}]"], id="a fire"),
    pytest.param("debounce: 10m", ["end: 1h", "fires: [{at: 10m}]"], id="debounce"),
    pytest.param("cooldown: 6h", ["end: 13h", "fires: [{at: 0m}, {at: 6h, reason: still_firing}, {at: 12h}]"], id="cooldown"),
    pytest.param("cooldown: 6h\nstale_after: 1h", ["end: 13h", "fires: [{at: 0m}, {at: 8h}]"], id="a repeat each 4h is too rare"),
    pytest.param("cooldown: 1h\nrefire: false", ["end: 1d", "fires: [{at: 0m}]"], id="refire"),
    pytest.param("cooldown: 1h", ["runs: [{takes: 3h}]", "end: 4h", "fires: [{at: 0m}, {at: 3h}]"], id="a run that takes longer"),
    pytest.param("cooldown: 1h\nlimit: {triggers: 2, per: 10h}", ["end: 12h", "fires: [{at: 0m}, {at: 1h}, {at: 10h}, {at: 11h}]"], id="limit"),
    pytest.param("cooldown: 1d", ["runs: [{outcome: failed}, {outcome: failed, takes: 1h}, {}]", "end: 9h", "fires: [{at: 0m}, {at: 1h}, {at: 3h}]"], id="failures"),
    pytest.param("on_failure: keep", ["runs: [{outcome: failed}]", "end: 9h", "fires: [{at: 0m}]"], id="on_failure"),
    pytest.param("cooldown: 1d", ["runs: [{outcome: dead, takes: 2h}, {}]", "end: 9h", "fires: [{at: 0m}, {at: 2h30m}]"], id="a delivery that dies"),
    pytest.param("cooldown: 1h\nrun_timeout: 2h", ["runs: [{outcome: endless}]", "end: 9h", "fires: [{at: 0m}]", "decisions: [{at: 8h, action: suppress, reason: duplicate}]"], id="a run that never ends"),
    pytest.param("mute: [night]", ["end: 7h", "decisions: [{at: 0m, reason: muted, until: 6h}]", "fires: [{at: 6h}]"], id="mute"),
    pytest.param("mute: [night]", ["start: 2026-01-05T09:00:00+02:00", "fires: [{at: 0m}]"], id="another start"),
    pytest.param("", ["pauses: [{at: 0m, until: 2h, route: accuracy}]", "end: 3h", "fires: [{at: 2h}]"], id="a pause"),
    pytest.param("", ["pauses: [{at: 0m}]", "end: 3h", "fires: []"], id="a pause of everything"),
    pytest.param("confirm: {prometheus: 'http://p', query: up}", ["fires: [{at: 0m}]"], id="Prometheus confirms by itself"),
    pytest.param("confirm: {prometheus: 'http://p', query: up}", ["prometheus: [{at: 0m, confirms: false}, {at: 20m, confirms: true}]", "end: 1h", "decisions: [{at: 1m, action: suppress, reason: unconfirmed, until: 5m}]", "fires: [{at: 20m}]"], id="confirm"),
    pytest.param("confirm: {prometheus: 'http://p', query: up}", ["prometheus: [{at: 0m, confirms: false, route: accuracy, group: {model: fraud}}]", "fires: [{at: 0m}]"], id="confirm of another group"),
    pytest.param("mode: shadow", ["end: 1d", "fires: []", "rehearsals: [{at: 0m}, {at: 1d}]", "decisions: [{at: 0m, action: suppress, reason: shadow}]"], id="shadow"),
    pytest.param("debounce: 1h", ["requests: [{at: 10m, route: accuracy, group: {model: churn}, action: fire, reason: manual}]", "end: 2h", "fires: [{at: 10m, reason: manual}]"], id="a request takes a hold over"),
    pytest.param("cooldown: 1d", ["requests: [{at: 2h, route: accuracy, group: {model: churn}, action: suppress, reason: cooldown, until: 1d}, {at: 3h, route: accuracy, group: {model: churn}, force: true, reason: forced}]", "fires: [{at: 0m}, {at: 3h, reason: forced}]"], id="a forced request"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "lines"), HOLD)
def test_a_test_that_holds_passes(route: str, lines: list[str], bench: Bench) -> None:
    assert bench.case(*lines, route=route) == []


def test_schedules_come_due_and_groups_do_not_touch_each_other(bench: Bench) -> None:
    schedule = "schedules: [{name: s, cron: '0 12 * * *', route: accuracy, group: {model: fraud}}]\n"
    fires = "fires: [{at: 0m, group: {model: churn}}, {at: 12h, group: {model: fraud}, reason: scheduled}]"
    assert bench.case("end: 13h", fires, more=schedule) == []


#: The route has no line of its own: the alert fires at once, and cools down for a day.
WRONG = [
    pytest.param(["decisions: [{at: 0m, action: hold}]"],
                 ["5:17: tests.0.decisions.0: expected hold, but it was fire new_alert at 0s"], id="action"),
    pytest.param(["decisions: [{at: 0m, reason: still_firing}]"],
                 ["5:17: tests.0.decisions.0: expected still_firing, but it was fire new_alert at 0s"], id="reason"),
    pytest.param(["decisions: [{at: 5h, action: suppress, until: 2d}]"],
                 ["5:17: tests.0.decisions.0: expected suppress until 2d, but it was suppress duplicate until 1d at 5h"],
                 id="until"),
    pytest.param(["fires: []"],
                 [f"5:12: tests.0.fires: {CHURN} fired at 0s (new_alert), which is not expected"], id="a fire too many"),
    pytest.param(["fires: [{at: 0m}, {at: 1h}]"], ["5:23: tests.0.fires.1: nothing fired at 1h"], id="a fire too few"),
    pytest.param(["fires: [{at: 0m, group: {model: fraud}}]"],
                 ["5:13: tests.0.fires.0: nothing fired at 0s for this route, group and reason",
                  f"5:12: tests.0.fires: {CHURN} fired at 0s (new_alert), which is not expected"], id="another group"),
    pytest.param(["rehearsals: [{at: 0m}]"], ["5:18: tests.0.rehearsals.0: nothing would have fired at 0s"], id="live"),
    pytest.param(["requests: [{at: 1h, route: accuracy, group: {model: churn}, action: fire}]"],
                 ["5:16: tests.0.requests.0: expected fire, but it was suppress cooldown until 1d at 1h"], id="a request"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "expected"), WRONG)
def test_a_difference_has_its_line_and_what_was_there(lines: list[str], expected: list[str], bench: Bench) -> None:
    assert bench.case(*lines) == expected


def test_a_difference_is_followed_by_what_happened_once_for_each_test(bench: Bench) -> None:
    text = CASE.format(more="    end: 5h\n    decisions: [{at: 0m, action: hold}, {at: 1h, action: hold}]\n")
    code, out, err = bench.run(bench.write("t.yaml", text))
    assert (code, out) == (1, "")
    happened = err.splitlines()[2:-1]
    assert happened[0] == "    what happened in 'a test':"
    assert [line[:70].rstrip() for line in happened[1:]] == [
        '            0s  A{model="churn"}: fire new_alert (a new alert fires)',
        f"            0s  {CHURN} fires (new_alert)",
        f"           30m  the run of {CHURN} ends: success",
        '            4h  A{model="churn"}: suppress duplicate until 1d (its tri',
    ]
    assert err.splitlines()[-1] == "t.yaml: 0 of 1 test(s) passed."


def test_an_alert_that_is_decided_later_has_no_decision_yet(bench: Bench) -> None:
    text = CASE.format(more="    decisions: [{at: 0m, action: fire}]\n").replace("firing: 0m", "firing: 1h to 2h")
    assert bench.short(text) == [
        "5:17: tests.0.decisions.0: expected fire, but nothing was decided about the alert up to 0s"
    ]


LABELS = "name the labels of exactly one"
BAD = [
    pytest.param("policy: policy.yaml\ntests: []\n", ["2:8: tests: must not be empty"], id="no test"),
    pytest.param("tests: [{name: a}]\n", ["1:1: policy: required"], id="no policy"),
    pytest.param("", ["1:1: policy: the file is empty"], id="an empty file"),
    pytest.param("policy: policy.yaml\ntests: [{name: a, alert: []}]\n",
                 ["2:19: tests.0.alert: unknown key; did you mean alerts?"], id="an unknown key"),
    pytest.param("policy: policy.yaml\ntests: [{name: a, fires: [{at: 0m, foo: 1}]}]\n",
                 ["2:36: tests.0.fires.0.foo: unknown key; the keys here are at, route, group, reason"], id="below"),
    pytest.param("policy: gone.yaml\ntests: [{name: a}]\n",
                 ["1:9: policy: gone.yaml cannot be read: No such file or directory"], id="a policy that is not there"),
    pytest.param(CASE.format(more="    decisions: [{at: 0m, action: start}]\n"),
                 ["5:34: tests.0.decisions.0.action: must be fire, hold, suppress, cancel, ignore"], id="an action"),
    pytest.param(CASE.format(more="    decisions: [{at: 0m}]\n"),
                 ["5:17: tests.0.decisions.0: expects nothing: give action, reason or until"], id="nothing expected"),
    pytest.param(CASE.format(more="    decisions: [{at: 0m, alert: {model: x}, action: fire}]\n"),
                 [f"5:17: tests.0.decisions.0: 0 alerts of the test have these labels; {LABELS}"], id="no such alert"),
    pytest.param(CASE.format(more="    fires: [{at: soon}]\n"),
                 ["5:18: tests.0.fires.0.at: 'soon' is not a duration: use numbers with y, w, d, h, m, s or ms, largest "
                  "first, such as 10m or 1d12h"], id="a time"),
    pytest.param(CASE.format(more="    fires: [{at: 0m, route: drift}]\n"),
                 ["5:29: tests.0.fires.0.route: the policy has no route 'drift'; there is accuracy"], id="a route"),
    pytest.param(CASE.format(more="    fires: [{at: 0m, route: accuracy, group: {team: a}}]\n"),
                 ["5:46: tests.0.fires.0.group: must have exactly the labels of the route's group_by: model"], id="group"),
    pytest.param(CASE.format(more="").replace("firing: 0m", "firing: 2h to 1h"),
                 ["4:61: tests.0.alerts.0.firing: '2h to 1h' ends before it begins"], id="a time that goes back"),
    pytest.param(CASE.format(more="").replace("firing: 0m", "firing: [0m, 2h]"),
                 ["4:61: tests.0.alerts.0.firing: a time must end before the next begins"], id="times that overlap"),
    pytest.param(CASE.format(more="    end: 2y\n"), ["5:10: tests.0.end: a test may last 400 days at most"], id="too long"),
    pytest.param(CASE.format(more="    end: 300d\n").replace("firing: 0m", "firing: 0m, repeat: 1s"),
                 ["4:13: tests.0.alerts: 25920002 notifications are too many: repeat them less often"], id="too many"),
    pytest.param(CASE.format(more="    start: today\n"),
                 ["5:12: tests.0.start: must be a time such as 2026-01-05T00:00:00Z"], id="a start"),
    pytest.param(CASE.format(more="    runs: [{outcome: great}]\n"),
                 ["5:22: tests.0.runs.0.outcome: must be success, failed, dead or endless"], id="an outcome"),
    pytest.param("policy: ${POLICY}\ntests: [{name: a}]\n",
                 ["1:9: policy: the environment variable POLICY is not set"], id="a variable in the tests"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD)
def test_every_mistake_of_a_file_is_named_at_its_line_and_column(text: str, expected: list[str], bench: Bench) -> None:
    assert bench.short(text) == expected


def test_files_that_cannot_be_read_do_not_stop_the_others(bench: Bench) -> None:
    good, latin = bench.write("good.yaml", CASE.format(more="")), bench.folder / "latin.yaml"
    latin.write_bytes(b"policy: \xe9\n")
    code, out, err = bench.run(bench.folder / "gone.yaml", latin, bench.folder, good)
    assert (code, out) == (1, "good.yaml: 1 of 1 test(s) passed.\n")
    assert [line.split(": ")[0] for line in err.splitlines()][:2] == ["gone.yaml:1:1", "latin.yaml:1:9"]
    assert "Traceback" not in err


def test_the_errors_of_the_policy_are_named_in_the_policy(bench: Bench) -> None:
    bench.write("policy.yaml", POLICY.format(more="    colour: red\n"))
    code, _, err = bench.run(bench.write("t.yaml", CASE.format(more="")))
    assert code == 1
    assert err.startswith("policy.yaml:9:5: routes.0.colour: unknown key")


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ("", "policy.yaml:9:15: routes.0.cooldown: a test needs the value of '${PACE}': give it under `env`"),
        ("env: {PACE: 6h}\n", ""),
    ],
)
def test_what_decides_needs_its_variable_and_a_secret_does_not(env: str, problem: str, bench: Bench) -> None:
    bench.write("policy.yaml", POLICY.format(more="    cooldown: ${PACE}\n"))
    text = env + CASE.format(more="    end: 7h\n    fires: [{at: 0m}, {at: 6h}]\n")
    code, _, err = bench.run(bench.write("t.yaml", text))
    assert (code, err.startswith(problem)) == (bool(problem), True)


def test_the_same_file_gives_the_same_lines(bench: Bench) -> None:
    text = CASE.format(more="    end: 100d\n    fires: []\n")
    runs = {bench.run(bench.write("t.yaml", text)) for _ in range(size(2, 20))}
    [(code, _, err)] = runs
    assert code == 1
    assert "(lines before" in err or "lines before)" in err


def test_github_gets_a_command_for_each_difference_and_nothing_hostile(bench: Bench) -> None:
    hostile = (
        CASE.format(more="    fires: []\n").replace("churn", '"x\\n::error::y"').replace("a test", '"a\\n::warning::b"')
    )
    code, out, err = bench.run(bench.write("t.yaml", hostile), output=Output.GITHUB)
    lines = out.splitlines()
    assert (code, err) == (1, "")
    assert [line.split(",")[0].split("/")[-1] for line in lines if line.lstrip().startswith("::")] == [
        lines[0].split(",")[0].split("/")[-1]
    ]
    assert lines[0].startswith("::error file=")
    assert ",line=5,col=12,title=Policy::tests.0.fires: accuracy" in lines[0]
    assert any("what happened in" in line for line in lines)


def test_the_page_names_every_key_and_its_example_is_one_of_the_examples() -> None:
    page = (ROOT / "docs/how-to/test-the-policy.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", page, re.M))
    assert set(rows) == {"policy", "env"} | {f"tests.{name}" for name in Case.model_fields}
    for name, field in Case.model_fields.items():
        for model in models_in(field.annotation):
            missing = [key for key in model.model_fields if f"`{key}`" not in rows[f"tests.{name}"]]
            assert missing == [] or name == "rehearsals", name
    [shown] = re.findall(r"^```yaml\n# policy_test\.yaml\n(.*?)^```", page, re.M | re.S)
    tests = yaml.safe_load((ROOT / "examples/tests/policy_test.yaml").read_text())["tests"]
    assert [test["name"] for test in yaml.safe_load(shown)["tests"]] == [tests[0]["name"]]
